"""`hybrid`: what a step learns, which classes it pastes, and whole trainings."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import trainings
from hypothesis import given
from hypothesis import strategies as st
from mixtures import CLASSES, PLACE, SOURCE, STILL, Fixed, batch, logits
from PIL import Image

from selftrain.data.batches import Batch
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.settings.hybrid import HybridSettings
from selftrain.train import stage
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.hybrid import Hybrid, rare_first
from selftrain.train.mixing import class_mask

IGNORE = 255


def make(file=None, round=1, **told):
    told = {"strong": STILL, "forwards": "separate"} | told
    return Hybrid(HybridSettings(**told), Given(CLASSES, place=(5, round), pseudo_labels=file))


def pseudo_labeled(count=3, seed=2):
    """Images of whose pixels a third has no label."""
    return batch(count, seed, ignored=0.35)


def scene(unlabeled, labeled=None, number=7):
    labeled = labeled or batch(3, 1)
    mixed = logits(len(unlabeled.images), 5, unlabeled.images.shape[-2:])
    student = Fixed(logits(len(labeled.images), 4).requires_grad_(), mixed.requires_grad_())
    return Step(number, 20, {"labeled": labeled, "pseudo_labeled": unlabeled}, student, None)


# What a step learns.


@pytest.mark.parametrize("across", ["target_to_target", SOURCE])
def test_the_loss_is_that_of_labels_and_of_mixtures(across):
    """Against a loop over pixels; what is pasted from labeled images has a mean of its own."""
    step = scene(pseudo_labeled())
    algorithm = make(across=across, weight=0.7, pasted_weight=0.3)
    loss = algorithm.loss(step)
    labeled, unlabeled = step.batches["labeled"], step.batches["pseudo_labeled"]
    pasted, of_pasted, below = (labeled, 0.3, [0, 1, 2]) if across == SOURCE else (unlabeled, 0.7, [1, 2, 0])
    mask = class_mask(pasted.labels, CLASSES, 0.5, (*PLACE, "mixing", 7))
    said = step.student.answers[1].detach().log_softmax(1)
    terms = {name: [] for name in (["mixed", "pasted"] if across == SOURCE else ["mixed"])}
    for item, *at in np.ndindex(mask.shape):
        source, of, factor = (pasted, item, of_pasted) if mask[item, *at] else (unlabeled, below[item], 0.7)
        assert torch.equal(step.student.shown[1][item, :, *at], source.images[of, :, *at])
        if (target := int(source.labels[of, *at])) != IGNORE:
            term = terms["pasted" if mask[item, *at] and across == SOURCE else "mixed"]
            term.append(-float(factor * said[item, target, *at]))
    answer = step.student.answers[0].detach()
    expected = torch.nn.functional.cross_entropy(answer, labeled.labels.long(), ignore_index=IGNORE).item()
    assert loss.terms.keys() == {"labeled", *terms} and all(terms.values())
    for name, value in {"labeled": expected, **{name: np.mean(each) for name, each in terms.items()}}.items():
        assert loss.terms[name].item() == pytest.approx(value, rel=1e-5)
    assert loss.facts["mixed_weight"].item() == pytest.approx(0.7)


# Rare classes.


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0.001, 10))
def test_chances_are_daformers(shares, temperature):
    chances = np.exp(rare_first(np.array(shares), temperature))
    assert chances.sum() == pytest.approx(1)
    ratio = chances[0] / chances[1] if chances[1] > 1e-200 else None
    if ratio is not None and chances[0] > 1e-200:
        assert np.log(ratio) == pytest.approx((shares[1] - shares[0]) / temperature, rel=1e-6, abs=1e-6)


def test_classes_are_drawn_by_their_chances_and_none_that_is_not_there():
    """Of the first of two draws, its chance; of both, the chance of being among two drawn without putting back."""
    labels = torch.tensor([[[0, 1, 2, IGNORE]]], dtype=torch.uint8).repeat(6000, 1, 1)
    chances = np.array([0.6, 0.3, 0.1, 1e6])  # the last is not in the image
    one = class_mask(labels, 4, 0.3, ("x",), np.log(chances))
    assert (one.sum((1, 2)) == 1).all()
    assert np.allclose(one[:, 0, :3].double().mean(0), chances[:3], atol=0.025)
    two = class_mask(labels, 4, 0.5, ("x",), np.log(chances))[:, 0, :3].double().mean(0)
    left = [sum(chances[b] * chances[a] / (1 - chances[b]) for b in range(3) if b != a) for a in range(3)]
    assert np.allclose(two, chances[:3] + left, atol=0.025)
    assert not class_mask(labels, 4, 0.5, ("x",), np.log(chances))[..., 3].any()


@pytest.mark.parametrize("tiny_chance", [0.0, -1e5])
def test_equal_chances_change_nothing(tiny_chance):
    labels = batch(50, 3).labels
    plain = class_mask(labels, CLASSES, 0.5, ("x",))
    assert torch.equal(plain, class_mask(labels, CLASSES, 0.5, ("x",), np.full(CLASSES, tiny_chance)))


def file_of(folder, **told):
    """Seven images of blocks."""
    names = [f"unlabeled-{number}" for number in range(7)]
    return tiny.write_pseudo_labels(
        folder / "labels.h5", names, [tiny.blocks(tiny.SIZE, 1000 + n) for n in range(7)], **told
    )


def test_rarity_is_that_of_what_is_pasted(tmp_path):
    file = PseudoLabels(file_of(tmp_path))
    shares = file.classes["share"].to_numpy()
    for across, expected in (("target_to_target", shares), (SOURCE, shares[::-1])):
        favor = make(file, across=across, rare_classes={"temperature": 0.2}).favor
        assert np.allclose(favor - favor[0], (expected[0] - expected) / 0.2)


# Whole trainings.


@pytest.fixture
def train(tmp_path):
    given = trainings.files(tmp_path)
    file_of(tmp_path).rename(given["pseudo_labels"])

    def trained(name, told, **inputs):
        paths = tiny.outputs(tmp_path / name, **(given | inputs))
        stage.train(told.model_copy(update={"round": 2}), paths, tiny.NOW)
        return paths

    return trained


def test_rare_classes_change_the_training_and_it_repeats_to_the_byte(train):
    found = {}
    for rare in (False, True):
        told = tiny.stage({"name": "hybrid", "rare_classes": rare}, steps=5)
        found[rare] = train(f"{rare}", told).model.read_bytes()
        assert train(f"{rare} again", told).model.read_bytes() == found[rare]
    assert found[False] != found[True]


def test_it_learns_of_pseudo_labels_alone(train, tmp_path):
    """The colors of blocks, where every label of the labeled images is ignored."""
    labeled = tiny.split(tmp_path / "blank")
    for path in (tmp_path / "blank/labels").iterdir():
        Image.fromarray(np.full(tiny.SIZE, IGNORE, np.uint8)).save(path)
    told = tiny.stage({"name": "hybrid", "strong": STILL, "rare_classes": True}, steps=40)
    table = pd.read_csv(train("long", told, labeled=labeled).table)
    assert (table.labeled == 0).all() and table.mixed.iloc[-1] < 0.8 * table.mixed.iloc[0]


def test_a_batch_without_any_label_is_no_loss():
    blank = Batch(batch(2, 1).images, torch.full((2, 6, 8), IGNORE, dtype=torch.uint8), ("x", "y"))
    loss = make().loss(scene(blank))
    assert loss.terms["mixed"].item() == 0 and torch.isfinite(loss.terms["labeled"])
