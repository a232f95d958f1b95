"""`hybrid`: what a step learns, in which order images come, and how far two rounds' models agree."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import trainings
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import CLASSES, PLACE, SOURCE, STILL, Fixed, batch, logits
from PIL import Image
from test_label import CLASSES as LABEL_CLASSES
from test_label import digest, images, run, write_shard

from selftrain.data.batches import Batch
from selftrain.errors import UserError
from selftrain.label.merge import merge
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.label.stage import label
from selftrain.settings.hybrid import HybridSettings, ReliableFirstSettings
from selftrain.train import stage
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.hybrid import Hybrid, rare_first
from selftrain.train.growing import Growing
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


# The order of images.


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(0.05, 1), st.floats(0.05, 1), st.integers(1, 200), st.integers(0, 9))
def test_a_pool_grows_from_the_most_reliable_to_all(count, start, until, draws, seed):
    reliability = np.random.default_rng(seed).random(count).astype(np.float32).round(1)
    order = Growing(reliability, ReliableFirstSettings(start=start, until=until), draws, (seed,))
    ranked = np.argsort(-reliability, kind="stable")
    for number in range(draws):
        share = start + (1 - start) * min(1, number / (until * draws))
        assert order(number) in ranked[: int(np.ceil(round(share * count, 9)))]
    again = Growing(reliability, ReliableFirstSettings(start=start, until=until), draws, (seed,))
    assert (again.order == order.order).all()


def test_within_a_pool_each_image_comes_as_often_and_new_ones_at_once():
    order = Growing(np.linspace(1, 0, 40).astype(np.float32), ReliableFirstSettings(start=0.5, until=0.5), 400, (1,))
    first = [order(number) for number in range(20)]
    assert set(first[:10]) <= set(range(20)) and first[:10] != sorted(first[:10])
    times = np.bincount(order.order, minlength=40)
    assert (np.diff(times[:20]).astype(int) <= 1).all() and times[:20].max() - times[:20].min() <= 1
    assert (np.diff(times) <= 1).all() and times[39] >= 400 / 40 / 2
    plain = Growing(np.zeros(40, np.float32), ReliableFirstSettings(start=1), 400, (1,))
    for epoch in range(10):
        assert sorted(plain.order[40 * epoch :][:40]) == list(range(40))


def file_of(folder, **told):
    """Seven images of blocks."""
    names = [f"unlabeled-{number}" for number in range(7)]
    return tiny.write_pseudo_labels(
        folder / "labels.h5", names, [tiny.blocks(tiny.SIZE, 1000 + n) for n in range(7)], **told
    )


@pytest.mark.parametrize("ordered", [False, True])
def test_reliability_makes_the_order(tmp_path, ordered):
    file = PseudoLabels(file_of(tmp_path, reliability=np.linspace(0, 1, 7)))
    algorithm = make(file, round=2, reliable_first=ordered and {"start": 0.5, "until": 1})
    orders = algorithm.orders(20, {"labeled": 2, "pseudo_labeled": 2})
    assert set(orders) == ({"pseudo_labeled"} if ordered else set())
    if ordered:  # four of seven are the most reliable half, and the order lasts for as long as the round does
        every = [orders["pseudo_labeled"](number) for number in range(40)]
        assert set(every) == set(range(7)) and set(every[:5]) <= {3, 4, 5, 6}


def test_what_is_missing_is_told(tmp_path):
    file = PseudoLabels(file_of(tmp_path))
    with pytest.raises(UserError, match=r"labels\.h5: does not tell how far two rounds' models agree; run label again"):
        make(file, round=2, reliable_first=True).orders(20, {"labeled": 2, "pseudo_labeled": 2})


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
    file_of(tmp_path, reliability=np.linspace(0, 1, 7)).rename(given["pseudo_labels"])

    def trained(name, told, **inputs):
        paths = tiny.outputs(tmp_path / name, **(given | inputs))
        stage.train(told.model_copy(update={"round": 2}), paths, tiny.NOW)
        return paths

    return trained


PARTS = {"rare_classes": True, "reliable_first": True}


def test_each_part_changes_the_training_and_repeats_to_the_byte(train):
    found = {}
    for part in (None, *PARTS):
        told = tiny.stage({"name": "hybrid"} | ({part: True} if part else {}), steps=5)
        found[part] = train(f"{part}", told).model.read_bytes()
        assert train(f"{part} again", told).model.read_bytes() == found[part]
    assert len(set(found.values())) == 3


def test_it_learns_of_pseudo_labels_alone(train, tmp_path):
    """The colors of blocks, where every label of the labeled images is ignored."""
    labeled = tiny.split(tmp_path / "blank")
    for path in (tmp_path / "blank/labels").iterdir():
        Image.fromarray(np.full(tiny.SIZE, IGNORE, np.uint8)).save(path)
    told = tiny.stage({"name": "hybrid", "strong": STILL} | PARTS, steps=40)
    table = pd.read_csv(train("long", told, labeled=labeled).table)
    assert (table.labeled == 0).all() and table.mixed.iloc[-1] < 0.8 * table.mixed.iloc[0]


# How far two rounds' models agree.


def reliabilities(folder, count=5, shards=1):
    items, earlier = list(images(count)), list(images(count, seed=1))
    output, how, labels, predictions = run(folder, items, shards)
    parts = np.array_split(np.arange(count), shards)
    for number, (part, one, prediction) in enumerate(zip(parts, labels, predictions, strict=True)):
        before = write_shard(folder / f"e{number}.h5", [earlier[i] for i in part], (40, 60), model="1f" * 8)
        label(how, prediction, folder / "cut.csv", one, earlier=before)
    merge(how, labels, predictions, folder / "cut.csv", output, folder / "pseudo_labels.csv")
    return output, (how, labels, predictions), items, earlier


@pytest.mark.parametrize("shards", [1, 3])
def test_reliability_is_the_share_of_pixels_that_two_models_take_for_the_same(tmp_path, shards):
    output, _, items, earlier = reliabilities(tmp_path / "some", count=4, shards=shards)
    found = PseudoLabels(output)
    expected = [((a == b) & (a != IGNORE)).mean() for (_, a, _), (_, b, _) in zip(items, earlier, strict=True)]
    assert np.allclose(found.reliability, expected) and np.allclose(found.images.reliability, expected)
    one, *_ = reliabilities(tmp_path / "one", count=4)
    assert digest(one) == digest(output)


def test_what_both_models_leave_out_is_no_agreement(tmp_path):
    items = list(images(3))
    items[1] = (items[1][0], np.full_like(items[1][1], IGNORE), items[1][2])  # filtered everywhere
    output, how, labels, predictions = run(tmp_path, items)
    label(how, predictions[0], tmp_path / "cut.csv", labels[0], earlier=predictions[0])
    merge(how, labels, predictions, tmp_path / "cut.csv", output, tmp_path / "pseudo_labels.csv")
    reliability = PseudoLabels(output).reliability
    assert reliability[1] == 0 and (reliability[[0, 2]] > 0.9).all()


def test_without_a_model_before_there_is_none(tmp_path):
    found = PseudoLabels(run(tmp_path, list(images(3)))[0])
    assert found.reliability is None and "reliability" not in found.images


def test_shards_that_do_not_all_tell_are_refused(tmp_path):
    output, (how, labels, predictions), *_ = reliabilities(tmp_path, shards=2)
    label(how, predictions[1], tmp_path / "cut.csv", labels[1])
    with pytest.raises(UserError, match="1 of 2 shards of labels tell of reliability; run label again"):
        merge(how, labels, predictions, tmp_path / "cut.csv", output, tmp_path / "pseudo_labels.csv")


def test_predictions_of_other_images_are_refused(tmp_path):
    _, (how, labels, predictions), *_ = reliabilities(tmp_path)
    other = write_shard(tmp_path / "other.h5", list(images(4)), (40, 60), classes=LABEL_CLASSES)
    with pytest.raises(UserError, match=r"other\.h5: differs in images from .*p0\.h5; run predict again"):
        label(how, predictions[0], tmp_path / "cut.csv", labels[0], earlier=other)


def test_a_batch_without_any_label_is_no_loss():
    blank = Batch(batch(2, 1).images, torch.full((2, 6, 8), IGNORE, dtype=torch.uint8), ("x", "y"))
    loss = make().loss(scene(blank))
    assert loss.terms["mixed"].item() == 0 and torch.isfinite(loss.terms["labeled"])
