"""Which pixels are pasted, and pasting them; what a training makes of it is tested with the algorithm."""

import math
from collections import Counter
from fractions import Fraction
from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from selftrain import randomness
from selftrain.data.batches import Batch
from selftrain.settings.mixing import (
    ClassMixSettings,
    CowMixSettings,
    CutMixSettings,
    MeanTeacherMixingSettings,
    NoMixSettings,
)
from selftrain.train import mixing
from selftrain.train.algorithms import Given
from selftrain.train.algorithms.mean_teacher_mixing import MeanTeacherMixing
from selftrain.train.mixing import Pixels, chosen_of, class_mask, cow_mask, cut_mask, paste_mask

PLACE = (3, 1, "mixing", 7)
LETTERS = "srcbp."
KINDS = [ClassMixSettings(), CutMixSettings(), CowMixSettings()]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def ids(*texts):
    """Label maps drawn as rows of letters, a dot where ignored."""
    index = {letter: number for number, letter in enumerate(LETTERS)} | {".": 255}
    return torch.tensor([[[index[one] for one in row] for row in text.split()] for text in texts], dtype=torch.uint8)


def letters(labels):
    index = dict(enumerate(LETTERS)) | {255: "."}
    return [" ".join("".join(index[one] for one in row) for row in label) for label in labels.tolist()]


def drawn(mask):
    return [" ".join("".join("-#"[one] for one in row) for row in item) for item in mask.tolist()]


def random_labels(count, size=(20, 32), classes=5, seed=0):
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.choice(np.array([*range(classes), 255], np.uint8), (count, *size)))


def pixels(labels, seed=0, classes=None):
    """Every pixel with an image, a weight and, where `classes` are given, probabilities that no other has."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), 3, *labels.shape[1:]), dtype=torch.uint8, generator=generator)
    soft = None if classes is None else torch.rand(len(labels), classes, *labels.shape[1:], generator=generator)
    return Pixels(images, labels, torch.rand(labels.shape, generator=generator), soft)


def mix(taught, classes, number=7, labeled=None, **told):
    """Algorithm 1 as the training runs it, at place (3, 1, "mixing", number)."""
    algorithm = MeanTeacherMixing(MeanTeacherMixingSettings(**told), Given(classes, place=(3, 1)))
    return algorithm.mix(taught, labeled, number)


# ClassMix


@pytest.fixture
def draws(monkeypatch):
    """Sets what is drawn for each item."""

    def given_draws(*of_items):
        def generator(*place):
            assert place[:-1] == PLACE
            return SimpleNamespace(random=lambda classes: np.array(of_items[place[-1]][:classes]))

        monkeypatch.setattr(mixing.randomness, "generator", generator)

    return given_draws


def test_class_masks_as_worked_by_hand(draws):
    """Of 4, 2, 1 and 0 classes present half are pasted, rounded up: those with the lowest draws."""
    #       s    r    c    b    p
    draws(
        [0.9, 0.1, 0.5, 0.2, 0.0],  # b and r; p is not there
        [0.3, 0.0, 0.1, 0.2, 0.8],  # s
        [0.1, 0.9, 0.2, 0.3, 0.4],  # r, which is alone
        [0.1, 0.2, 0.3, 0.4, 0.5],  # nothing is there
    )
    labels = ids("ssr. ccrb", "ppp. ssss", ".... ..rr", ".... ....")
    mask = class_mask(labels, 5, 0.5, PLACE)
    assert mask.dtype == torch.bool
    assert drawn(mask) == ["--#- --##", "---- ####", "---- --##", "---- ----"]
    mixture = mix(pixels(labels), 5)
    assert letters(mixture.mixed.labels) == [
        "ppr. ssrb",  # the first onto the second
        ".... ssss",
        ".... ..rr",
        "ssr. ccrb",  # the last onto the first: nothing of it
    ]


@pytest.mark.parametrize(
    ("proportion", "mask"),
    [
        (0.01, "---# ---- ----"),
        (0.25, "---# ---- ----"),
        (0.26, "---# -##- ----"),
        (0.75, "---# -##- --#-"),
        (1, "#### ###- --#-"),
    ],
)
def test_the_proportion_is_of_the_classes_present(draws, proportion, mask):
    draws([0.9, 0.2, 0.3, 0.1, 0.0])
    assert drawn(class_mask(ids("sssb srr. ..c."), 5, proportion, PLACE)) == [mask]


def by_loops(labels, classes, twentieths, place):
    """The mask of Algorithm 1 per item and pixel, and labels and source (item, row, column) of the mixed pixels."""
    mask, mixed, source = [], [], []
    for b in range(len(labels)):
        present = sorted({int(id_) for id_ in labels[b].flat} - {255})
        rank = randomness.generator(*place, b).random(classes)
        chosen = sorted(present, key=lambda one: rank[one])[: math.ceil(Fraction(twentieths, 20) * len(present))]
        below = b + 1 if b + 1 < len(labels) else 0
        for row, column in np.ndindex(labels[b].shape):
            mask.append(labels[b][row, column] in chosen)
            item = b if mask[-1] else below
            mixed.append(labels[item][row, column])
            source.append((item, row, column))
    return np.array(mask).reshape(labels.shape), np.array(mixed).reshape(labels.shape), source


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_algorithm_1_is_a_loop_over_items_and_pixels(data):
    classes = data.draw(st.integers(2, 6))
    shape = data.draw(st.tuples(st.integers(2, 8), st.integers(1, 6), st.integers(1, 6)))
    labels = data.draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([*range(classes), 255])))
    twentieths, number = data.draw(st.integers(1, 20)), data.draw(st.integers(0, 1000))
    taught = pixels(torch.from_numpy(labels), classes=classes)
    mixture = mix(taught, classes, number, mixing={"name": "classmix", "proportion": twentieths / 20})
    mask, mixed, source = by_loops(labels, classes, twentieths, (3, 1, "mixing", number))
    assert np.array_equal(mixture.mask, mask) and np.array_equal(mixture.mixed.labels, mixed)
    item, row, column = np.array(source).T
    for name in ("images", "weights", "probabilities"):
        whole, found = (getattr(one, name).view(shape[0], -1, *shape[1:]) for one in (taught, mixture.mixed))
        assert np.array_equal(found.movedim(1, 3).reshape(len(source), -1), whole[item, :, row, column]), name


def test_a_batch_of_one_has_a_mask_too():
    labels = random_labels(1)
    mask, _, _ = by_loops(labels.numpy(), 5, 10, PLACE)
    assert np.array_equal(class_mask(labels, 5, 0.5, PLACE), mask)


@pytest.mark.parametrize("place", [(0, 0, "mixing"), (5, 2, "mixing")])
def test_every_set_of_classes_turns_up_as_often(place):
    """Of the 4 classes present 2 are pasted, whole: 6 sets, over 600 steps."""
    labels = ids("ssrr .bpp")
    found = Counter()
    for number in range(600):
        mask = class_mask(labels, 5, 0.5, (*place, number))
        pasted = set(letters(labels[mask][None, None])[0])
        assert mask.equal(torch.isin(labels, ids("".join(pasted))))
        found["".join(sorted(pasted))] += 1
    assert set(found) == {"".join(sorted(pair)) for pair in combinations("srbp", 2)}
    assert all(60 < times < 140 for times in found.values()), found


def test_items_of_a_batch_draw_for_themselves():
    labels = ids("ssrr .bpp").expand(100, -1, -1)
    assert len(class_mask(labels, 5, 0.5, PLACE).flatten(1).unique(dim=0)) == 6


def test_half_of_the_classes_is_exact_for_every_count():
    for count in range(41):
        for hundredths in range(1, 101):
            assert chosen_of(count, hundredths / 100) == math.ceil(Fraction(hundredths, 100) * count)


# All kinds of masks


@by_kind
def test_a_mask_depends_on_its_place_its_item_and_its_own_labels(kind):
    labels = random_labels(8, (12, 18))
    whole = paste_mask(labels, 5, kind, PLACE)
    assert whole.dtype == torch.bool and whole.shape == labels.shape
    for count in range(1, 8):
        assert torch.equal(paste_mask(labels[:count], 5, kind, PLACE), whole[:count])
    others = random_labels(8, (12, 18), seed=1)
    others[3] = labels[3]
    assert torch.equal(paste_mask(others, 5, kind, PLACE)[3], whole[3])
    alike = paste_mask(labels[:1].expand(8, -1, -1), 5, kind, PLACE)
    assert len(alike.flatten(1).unique(dim=0)) > 4
    for place in ((4, 1, "mixing", 7), (3, 2, "mixing", 7), (3, 1, "mixing", 8)):
        assert not torch.equal(paste_mask(labels, 5, kind, place), whole)


@by_kind
def test_a_kind_of_mask_is_chosen_by_its_settings(kind):
    labels = random_labels(4)
    expected = {
        "classmix": class_mask(labels, 5, 0.5, PLACE),
        "cutmix": cut_mask(labels, 0.5, PLACE),
        "cowmix": cow_mask(labels, CowMixSettings(), PLACE),
    }
    assert torch.equal(paste_mask(labels, 5, kind, PLACE), expected.pop(kind.name))
    assert all(not torch.equal(paste_mask(labels, 5, kind, PLACE), other) for other in expected.values())


def test_none_pastes_nothing():
    labels = random_labels(3)
    mask = paste_mask(labels, 5, NoMixSettings(), PLACE)
    assert mask.dtype == torch.bool and mask.shape == labels.shape and not mask.any()
    for across in ("target_to_target", "source_to_target"):
        taught = pixels(labels[:2])
        source = Batch(taught.images.flip(0), labels[1:], ("x", "y"))
        mixed = mix(taught, 5, labeled=source, mixing="none", across=across).mixed
        assert mixed.images.equal(taught.images) and mixed.labels.equal(taught.labels)
        assert mixed.weights.equal(taught.weights)


# CutMix


@pytest.mark.parametrize("proportion", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("size", [(20, 33), (16, 16), (40, 9)])
def test_a_cut_is_one_rectangle_of_its_share(size, proportion):
    height, width = size
    masks = cut_mask(torch.zeros(300, *size, dtype=torch.uint8), proportion, PLACE)
    rows, columns = masks.any(2), masks.any(1)
    assert torch.equal(masks, rows[:, :, None] & columns[:, None, :])
    for spans in (rows, columns):
        starts = torch.nn.functional.pad(spans.int(), (1, 0)).diff().eq(1).sum(1)
        assert starts.eq(1).all(), "one piece"
    tall, wide = rows.sum(1).double(), columns.sum(1).double()
    off = (tall * wide - proportion * height * width).abs()
    assert (off <= (tall + wide) / 2 + 0.5).all(), "each side is rounded"
    assert len({*zip(tall.tolist(), wide.tolist(), strict=True)}) > min(size) * (1 - proportion) * 0.8
    shares = (tall / height).log() / math.log(proportion)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.08) and shares.min() < 0.1 and shares.max() > 0.9
    for edge in (rows[:, 0], rows[:, -1], columns[:, 0], columns[:, -1]):
        assert 0 < edge.sum() < 300
    assert masks.any(0).all() or proportion < 0.5


def test_a_cut_lies_anywhere_it_fits():
    masks = cut_mask(torch.zeros(2000, 6, 6, dtype=torch.uint8), 0.5, PLACE)
    tops = masks[masks.any(2).sum(1) == 4].any(2).int().argmax(1)
    assert tops.bincount().float().div(len(tops)).tolist() == pytest.approx([1 / 3] * 3, abs=0.07)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2)])
def test_a_cut_of_a_small_image_is_never_nothing(size):
    masks = cut_mask(torch.zeros(20, *size, dtype=torch.uint8), 0.05, PLACE)
    assert masks.flatten(1).any(1).all()


# CowMix


@pytest.mark.parametrize("size", [(20, 33), (16, 16), (40, 9), (1, 12)])
@pytest.mark.parametrize("proportion", [0.001, 0.3, 0.5, 0.999])
def test_blobs_take_exactly_their_share(size, proportion):
    masks = cow_mask(torch.zeros(6, *size, dtype=torch.uint8), CowMixSettings(proportion=proportion), PLACE)
    area = size[0] * size[1]
    assert masks.dtype == torch.bool and masks.shape == (6, *size)
    assert masks.sum((1, 2)).tolist() == [min(max(1, round(proportion * area)), area - 1)] * 6


def test_blobs_of_one_size_lie_elsewhere_in_each_item_and_place():
    told = CowMixSettings(sigma=(0.05, 0.05))
    labels = torch.zeros(8, 20, 33, dtype=torch.uint8)
    masks = torch.cat([cow_mask(labels, told, (*PLACE[:-1], number)) for number in range(3)])
    pairs = combinations(masks.flatten(1), 2)
    assert all((one != other).float().mean() > 0.2 for one, other in pairs), "half of it by chance"


@pytest.mark.parametrize("size", [(32, 48), (128, 256)])
def test_the_largest_sigma_pastes_its_share_too(size):
    settings = MeanTeacherMixingSettings(mixing={"name": "cowmix", "sigma": (0.5, 0.5)}).mixing
    masks = cow_mask(torch.zeros(6, *size, dtype=torch.uint8), settings, PLACE)
    assert masks.sum((1, 2)).tolist() == [size[0] * size[1] // 2] * 6


def test_the_smoothest_blobs_have_the_shortest_boundaries():
    labels, steps = torch.zeros(8, 48, 64, dtype=torch.uint8), []
    for sigma in (0.01, 0.03, 0.08, 0.2):
        masks = cow_mask(labels, CowMixSettings(sigma=(sigma, sigma)), PLACE)
        steps.append(sum(int((masks.roll(1, axis) != masks).sum()) for axis in (1, 2)))
    assert all(later < 0.6 * earlier for earlier, later in pairwise(steps)), steps


@pytest.mark.parametrize("size", [(20, 33), (33, 20)])
def test_sigma_is_drawn_evenly_on_a_log_scale_from_its_range(monkeypatch, size):
    seen, smoothed = [], mixing._smoothed

    def recording(fields, sigma):
        seen.append(sigma)
        return smoothed(fields, sigma)

    monkeypatch.setattr(mixing, "_smoothed", recording)
    cow_mask(torch.zeros(400, *size, dtype=torch.uint8), CowMixSettings(sigma=(0.02, 0.32)), PLACE)
    sigma = seen[0] / 20
    assert sigma.min() >= 0.02 - 1e-6 and sigma.max() <= 0.32 + 1e-6
    parts = torch.histc(sigma.log2(), 4, math.log2(0.02), math.log2(0.32))
    assert parts.div(400).tolist() == pytest.approx([0.25] * 4, abs=0.07)


@pytest.mark.parametrize("size", [(12, 15), (16, 10)])
def test_smoothing_is_a_circular_gaussian_convolution(size):
    fields = np.random.default_rng(0).normal(size=(3, *size))
    sigmas = (1.2, 1.7, 2.5)
    found = mixing._smoothed(torch.from_numpy(fields).float(), torch.tensor(sigmas))
    for field, sigma, smooth in zip(fields, sigmas, found, strict=True):
        expected = np.zeros(size)
        reach = math.ceil(6 * sigma)
        kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        kernel /= kernel.sum()
        for row, column in np.ndindex(2 * reach + 1, 2 * reach + 1):
            expected += kernel[row] * kernel[column] * np.roll(field, (row - reach, column - reach), (0, 1))
        assert np.allclose(smooth, expected, atol=2e-3 * np.abs(expected).max())


# Pasting


@pytest.mark.parametrize("soft", [(4, 4), (4, None), (None, None)])
def test_pixels_come_from_their_source(soft):
    labels = random_labels(6, (5, 7), classes=4)
    above, below = pixels(labels[:3], 1, soft[0]), pixels(labels[3:], 2, soft[1])
    mask = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    mixed = above.pasted_onto(below, mask)
    for item, row, column in np.ndindex(3, 5, 7):
        source = above if mask[item, row, column] else below
        at = item, ..., row, column
        assert torch.equal(mixed.images[at], source.images[at]) and mixed.labels[at] == source.labels[at]
        assert mixed.weights[at] == source.weights[at]
        assert soft[1] is None or torch.equal(mixed.probabilities[at], source.probabilities[at])
    assert (mixed.probabilities is None) == (soft[1] is None)
    assert mixed.images.dtype == mixed.labels.dtype == torch.uint8


@pytest.mark.parametrize("classes", [None, 4])
def test_items_are_taken_in_the_order_asked_for(classes):
    whole = pixels(random_labels(4, (5, 7)), classes=classes)
    order = [2, 0, 0, 3, 1]
    taken = whole.at(torch.tensor(order))
    for name in ("images", "labels", "weights", "probabilities"):
        one, other = getattr(taken, name), getattr(whole, name)
        assert (one is other is None) or all(torch.equal(one[at], other[item]) for at, item in enumerate(order))
