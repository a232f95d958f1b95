"""The strategic curriculum: its steps with networks whose answers are given, its turns, and whole trainings."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixtures import generator
from torch.nn import functional as F

from selftrain.data.batches import Batch
from selftrain.models.segmenter import Outputs
from selftrain.settings.curriculum import CurriculumSettings, RampSettings
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.curriculum import Curriculum, ramp

torch.set_num_threads(1)

CLASSES, SIZE = 4, (6, 8)
WEIGHTS = (0.5, 2.0, 0.25, 1.0)
OFF = {"target_easy_mining": False, "source_hard_mining": False}


def make(place=(0, 0), weights=None, **told):
    given_weights = None if weights is None else torch.tensor(weights)
    return Curriculum(CurriculumSettings(**told), Given(CLASSES, class_weights=given_weights, place=place))


class Says:
    """A network whose branches give these logits, whatever they are shown."""

    def __init__(self, branches):
        self.branches = [one.clone().requires_grad_() for one in branches]

    def __call__(self, images, *, apart):
        assert apart
        return Outputs(tuple(self.branches), {})


def logits(branches=2, count=3, size=SIZE, seed=0, alike=0.5):
    """Random logits of each branch; at a share of the pixels all branches nearly say the first one's."""
    draw = generator(seed)
    each = [torch.randn(count, CLASSES, *size, generator=draw) * 2 for _ in range(branches)]
    same = torch.rand(count, 1, *size, generator=draw) < alike
    return [torch.where(same, each[0] + 0.01 * one, one) for one in each]


def step(stream, branches, number=7, steps=20, ignored=0.2, size=SIZE):
    """A step of random images; a fifth of the pixels is ignored."""
    draw, count = generator(99), len(branches[0])
    labels = torch.randint(0, CLASSES if stream == "labeled" else 1, (count, *size), generator=draw, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=draw) < ignored] = 255
    shown = torch.randint(0, 256, (count, 3, *size), generator=draw, dtype=torch.uint8)
    return Step(number, steps, {stream: Batch(shown, labels, ("x",) * count)}, Says(branches), None)


def frequency(branches):
    """f_m of each pixel, (images, h, w)."""
    votes = np.stack([one.detach().numpy().argmax(1) for one in branches])
    found = np.zeros(votes.shape[1:], int)
    for at in np.ndindex(*found.shape):
        found[at] = Counter(votes[:, *at].tolist()).most_common(1)[0][1]
    return found


def reference(branches, labels, retained, weights):
    """The cross-entropy over retained pixels, added over branches, and its gradient; in float64 and plain loops."""
    norm = sum(weights[labels[at]] for at in zip(*retained.nonzero(), strict=True))
    loss, gradients = 0.0, [np.zeros(one.shape) for one in branches]
    for of_branch, gradient in zip(branches, gradients, strict=True):
        for image, *place in zip(*retained.nonzero(), strict=True):
            z, label = of_branch.detach()[image, :, *place].double().numpy(), labels[image, *place]
            odds = np.exp(z - z.max())
            loss -= weights[label] * np.log(odds[label] / odds.sum()) / norm
            gradient[image, :, *place] = weights[label] * (odds / odds.sum() - np.eye(CLASSES)[label]) / norm
    return loss, gradients


def learned(student):
    """Where any branch got a gradient; all do, or none."""
    first, *others = (one.grad.abs().sum(1).numpy() > 0 for one in student.branches)
    assert all(np.array_equal(first, one) for one in others)
    return first


# Turns


@given(start=st.floats(0, 1), end=st.floats(0, 1), until=st.floats(0.01, 1), steps=st.integers(1, 50))
def test_a_ramp_is_a_line_and_then_still(start, end, until, steps):
    told = RampSettings(start=start, end=end, until=until)
    for number in range(steps):
        assert ramp(told, number, steps) == pytest.approx(np.interp(number / steps, [0, until], [start, end]))


@pytest.mark.parametrize("told", [{}, {"until": 1}, {"start": 0.2, "end": 0.8, "until": 0.25}], ids=str)
def test_the_share_of_labeled_steps_follows_gamma(told):
    turns, ratio = make(source_ratio=told).turns(60_000), {"start": 0.9, "end": 0.1, "until": 0.5} | told
    assert (turns["labeled"] ^ turns["unlabeled"]).all()  # exactly one each step
    share = turns["labeled"].reshape(30, -1).mean(1)
    gamma = np.interp((np.arange(30) + 0.5) / 30, [0, ratio["until"]], [ratio["start"], ratio["end"]])
    assert np.abs(share - gamma).max() < 0.05  # 4.5 standard deviations


def test_turns_are_a_function_of_the_place():
    first, again, *others = (make(place).turns(200)["labeled"] for place in ((3, 0), (3, 0), (4, 0), (3, 1)))
    assert np.array_equal(first, again)
    assert all((first != other).any() for other in others)


# Unlabeled images


EASY = [(1, False), (2, True), (2, False), (2, {"agreement": 0.5}), (3, True), (3, {"agreement": 2 / 3}), (3, False)]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize(("count", "mining"), EASY)
def test_of_unlabeled_images_easy_pixels_are_learned_as_the_mean_labels_them(count, mining, weights):
    """With this gradient, none flows through the labels."""
    taken = step("unlabeled", logits(count))
    branches, batch = taken.student.branches, taken.batches["unlabeled"]
    valid, f_m = batch.labels.numpy() != 255, frequency(branches)
    proxy = (sum(one.detach() for one in branches) / count).numpy().argmax(1)
    share = {False: 0, True: 1}[mining] if isinstance(mining, bool) else mining["agreement"]
    retained = valid & (f_m / count > share - 1e-6)
    assert 10 < retained.sum() <= valid.sum() < valid.size
    found = make(weights=weights, target_easy_mining=mining).loss(taken)
    loss, gradients = reference(branches, proxy, retained, weights or (1,) * CLASSES)
    assert {name: term.item() for name, term in found.terms.items()} == pytest.approx({"unlabeled": loss}, rel=1e-5)
    found.terms["unlabeled"].backward()
    for branch, gradient in zip(branches, gradients, strict=True):
        np.testing.assert_allclose(branch.grad, gradient, atol=1e-6)
    assert np.array_equal(learned(taken.student), retained)
    facts = {"unlabeled_agreement": (f_m == count)[valid].mean(), "unlabeled_retained": retained.sum() / valid.sum()}
    assert {name: fact.item() for name, fact in found.facts.items()} == pytest.approx(facts)
    shown = {
        "image": batch.images[0].numpy(),
        "predicted": np.where(valid[0], proxy[0], 255),
        "agreement": np.where(valid[0], np.round(255 * f_m[0] / count), 255),
        "label": np.where(retained[0], proxy[0], 255),
    }
    assert set(found.example) == set(shown)
    for name, picture in found.example.items():
        assert picture.dtype == torch.uint8 and np.array_equal(picture, shown[name]), name


@pytest.mark.parametrize("stream", ["labeled", "unlabeled"])
def test_agreement_is_that_of_logits_at_the_labels_size(stream):
    coarse = logits(size=(3, 4))
    grown = [F.interpolate(one, size=SIZE, mode="bilinear", align_corners=False) for one in coarse]
    one, other = (make().loss(step(stream, branches)) for branches in (coarse, grown))
    assert one.terms[stream].item() == pytest.approx(other.terms[stream].item()) and one.facts == other.facts


# Labeled images


def dropped(number, steps=40, place=(0, 0), branches=2, **told):
    """Which pixels of a large labeled batch got no gradient, which all branches agree on, and what is told of it."""
    taken = step("labeled", logits(branches, 2, size := (64, 64)), number, steps, size=size)
    found = make(place, **told).loss(taken)
    found.terms["labeled"].backward()
    valid, retained = taken.batches["labeled"].labels.numpy() != 255, learned(taken.student)
    easy = frequency(taken.student.branches) == branches
    assert not (retained & ~valid).any() and found.example == {}
    facts = {"labeled_agreement": easy[valid].mean(), "labeled_retained": retained.sum() / valid.sum()}
    assert {name: fact.item() for name, fact in found.facts.items()} == pytest.approx(facts)
    return valid & ~retained, valid & easy


@pytest.mark.parametrize("branches", [2, 3])
@pytest.mark.parametrize("number", [0, 1, 5, 10, 15, 19, 20, 39])
def test_a_growing_share_of_agreeing_labeled_pixels_is_dropped_and_no_other(number, branches):
    gone, easy = dropped(number, branches=branches)
    expected, count = min(1, number / 20), easy.sum()
    assert count > 2000 and not (gone & ~easy).any()
    spread = math.sqrt(expected * (1 - expected) / count)  # so none at the start, and all from half-way
    assert abs(gone.sum() / count - expected) <= 4 * spread


@pytest.mark.parametrize(
    ("mining", "number", "expected"),
    [(None, 39, 0), ({"end": 0}, 39, 0), ({"start": 0.3, "end": 0.5, "until": 0.1}, 4, 0.5)],
)
def test_how_much_is_dropped_can_be_told(mining, number, expected):
    gone, easy = dropped(number, source_hard_mining=mining)
    assert abs(gone.sum() / easy.sum() - expected) <= 0.05 * (expected > 0)


def test_what_is_dropped_is_drawn_anew_by_place_step_and_image():
    places = [(3, (0, 0)), (3, (0, 0)), (4, (0, 0)), (3, (1, 0)), (3, (0, 1))]
    half = {"source_hard_mining": {"start": 0.5, "end": 0.5}}
    first, again, *others = (dropped(number, place=place, **half) for number, place in places)
    assert np.array_equal(first[0], again[0])
    for gone, easy in (*others, (first[0][::-1], first[1][::-1])):
        both = first[1] & easy
        assert abs((first[0] & gone)[both].mean() - 0.25) < 0.05 and both.sum() > 1000


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize("count", [2, 3])
def test_the_labeled_loss_is_the_mean_over_what_is_retained(count, weights):
    taken = step("labeled", logits(count))
    found = make(weights=weights).loss(taken).terms
    found["labeled"].backward()
    retained, labels = learned(taken.student), taken.batches["labeled"].labels.numpy()
    loss, gradients = reference(taken.student.branches, labels, retained, weights or (1,) * CLASSES)
    assert {name: term.item() for name, term in found.items()} == pytest.approx({"labeled": loss}, rel=1e-5)
    for branch, gradient in zip(taken.student.branches, gradients, strict=True):
        np.testing.assert_allclose(branch.grad, gradient, atol=1e-6)


@pytest.mark.parametrize(
    ("stream", "alike", "ignored"),
    [("labeled", True, 0.2), ("unlabeled", False, 0.2), ("labeled", False, 1.1), ("unlabeled", True, 1.1)],
)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
def test_where_nothing_is_retained_the_loss_is_zero(stream, alike, ignored, weights):
    """All labeled pixels are easy, all unlabeled ones hard, or none is valid."""
    (first,) = logits(1)
    taken = step(stream, [first, first if alike else first.roll(1, 1)], number=10, ignored=ignored)
    found = make(weights=weights).loss(taken)
    found.terms[stream].backward()
    assert found.terms[stream].item() == 0 == found.facts[f"{stream}_retained"]
    assert all(torch.equal(one.grad, torch.zeros_like(one)) for one in taken.student.branches)


def test_each_row_of_table_1_changes_its_own_term():
    rows = [(OFF, None), (OFF, WEIGHTS), ({"source_hard_mining": False}, WEIGHTS), ({}, WEIGHTS)]
    terms = {}
    for stream, (number, (told, weights)) in product(("labeled", "unlabeled"), enumerate(rows)):
        terms[stream, number] = make(weights=weights, **told).loss(step(stream, logits())).terms[stream].item()
    changed = [{one for one in ("labeled", "unlabeled") if terms[one, row] != terms[one, row + 1]} for row in range(3)]
    assert changed == [{"labeled", "unlabeled"}, {"unlabeled"}, {"labeled"}]
