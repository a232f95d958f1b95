"""`hybrid`: what a step learns, in which order images come, and how far two rounds' models agree."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import trainings
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import CLASSES, PLACE, SOURCE, STILL, Fixed, batch, logits
from test_label import CLASSES as LABEL_CLASSES
from test_label import digest, images, run, write_shard

from selftrain.data.batches import Batch, Shuffled
from selftrain.data.tables import STATISTICS, read_counts
from selftrain.errors import UserError
from selftrain.label.merge import merge
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.label.stage import label
from selftrain.settings.hybrid import HybridSettings, ReliableFirstSettings
from selftrain.train import stage
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.hybrid import Hybrid, rare_first
from selftrain.train.anchors import Anchored, Epochs, Pairs, Partners, PastedPartners, roots
from selftrain.train.mixing import class_mask

OPEN, IGNORE = 254, 255


def make(file=None, layouts=None, round=1, **told):
    told = {"strong": STILL} | told
    return Hybrid(HybridSettings(**told), Given(CLASSES, place=(5, round), pseudo_labels=file, layouts=layouts))


def anchored(count=3, seed=2):
    """Images of whose pixels a third has no label in the file, and a tenth is outside."""
    found = batch(count, seed, ignored=0.1)
    draw = torch.rand(found.labels.shape, generator=torch.Generator().manual_seed(seed + 1))
    found.labels[(draw < 0.35) & (found.labels != IGNORE)] = OPEN
    return found


def scene(unlabeled, labeled=None, number=7):
    labeled = labeled or batch(3, 1)
    size = unlabeled.images.shape[-2:]
    teacher, mixed = (logits(len(unlabeled.images), seed, size) for seed in (3, 5))
    student = Fixed(logits(len(labeled.images), 4).requires_grad_(), mixed.requires_grad_())
    return Step(number, 20, {"labeled": labeled, "anchored": unlabeled}, student, Fixed(teacher))


# What a step learns.


@pytest.mark.parametrize("threshold", [None, 0.0, 0.6])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_the_file_says_what_it_can_and_the_teacher_the_rest(threshold, weight):
    fill = None if threshold is None else {"threshold": threshold}
    step = scene(anchored())
    taught, facts = make(fill=fill, weight=weight).teach(step, step.batches["anchored"])
    told, said = step.batches["anchored"].labels, logits(3, 3).softmax(1)
    filled = 0
    for place in np.ndindex(told.shape):
        item, *at = place
        sure, top = said[item, :, *at].max(0)
        if told[place] == OPEN and threshold is not None and sure >= threshold:
            expected, factor, filled = top, sure, filled + 1
        else:
            expected, factor = IGNORE if told[place] == OPEN else told[place], 1
        assert taught.labels[place] == expected
        if expected != IGNORE:
            assert taught.weights[place] == pytest.approx(float(factor) * weight)
    valid = (told != IGNORE).sum()
    assert facts["filled_share"] == filled / valid and (filled > 0) == (threshold is not None)
    assert facts["anchored_share"] == ((told != IGNORE) & (told != OPEN)).sum() / valid


def test_nobody_asks_a_teacher_without_fill():
    step = scene(anchored())
    make().loss(step)
    assert step.teacher.shown == []


@pytest.mark.parametrize("across", ["target_to_target", SOURCE])
def test_the_loss_is_that_of_labels_and_of_mixtures(across):
    """Against a loop over pixels."""
    step = scene(anchored())
    algorithm = make(across=across, fill=True, weight=0.7)
    loss = algorithm.loss(step)
    labeled, unlabeled = step.batches["labeled"], step.batches["anchored"]
    taught, _ = algorithm.teach(scene(anchored()), unlabeled)
    pasted_images, pasted_labels, weights = taught.images, taught.labels, taught.weights
    below = [1, 2, 0]
    if across == SOURCE:
        pasted_images, pasted_labels = labeled.images, labeled.labels
        weights, below = torch.full_like(taught.weights, 0.7), [0, 1, 2]
    mask = class_mask(pasted_labels, CLASSES, 0.5, (*PLACE, "mixing", 7))
    said = step.student.answers[1].detach().log_softmax(1)
    total, count = 0.0, 0
    for item, *at in np.ndindex(mask.shape):
        source, of = (pasted_labels, item) if mask[item, *at] else (taught.labels, below[item])
        factor = (weights if mask[item, *at] else taught.weights)[of, *at]
        seen = (pasted_images if mask[item, *at] else taught.images)[of, :, *at]
        assert torch.equal(step.student.shown[1][item, :, *at], seen)
        if (target := int(source[of, *at])) != IGNORE:
            total, count = total - float(factor * said[item, target, *at]), count + 1
    assert loss.terms["mixed"].item() == pytest.approx(total / count, rel=1e-5)
    answer = step.student.answers[0].detach()
    expected = torch.nn.functional.cross_entropy(answer, labeled.labels.long(), ignore_index=IGNORE)
    assert loss.terms["labeled"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_pairs_are_pasted_onto_each_other():
    step = scene(anchored(4), batch(4, 1))
    algorithm = make(alike=True)
    mixture = algorithm.mix(algorithm.teach(step, step.batches["anchored"])[0], step.batches["labeled"], 7)
    assert torch.equal(mixture.below.images, mixture.pasted.images[[1, 0, 3, 2]])


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
@given(st.integers(1, 40), st.floats(0.05, 1), st.floats(0.05, 1), st.integers(0, 200), st.integers(0, 9))
def test_a_pool_grows_from_the_most_reliable_to_all(count, start, until, draws, seed):
    reliability = np.random.default_rng(seed).random(count).astype(np.float32).round(1)
    epochs = Epochs(reliability, ReliableFirstSettings(start=start, until=until), draws, (seed,))
    drawn = [epochs(number) for number in range(draws)]
    first = 0
    while first < draws:
        pool = epochs.pool(first)
        epoch = drawn[first : first + len(pool)]
        assert len(set(epoch)) == len(epoch) and set(epoch) <= set(pool)
        grown = min(1, first / (until * draws))
        assert len(pool) == pytest.approx(count * (start + (1 - start) * grown), abs=1)
        outside = np.setdiff1d(np.arange(count), pool)
        assert not len(outside) or reliability[outside].max() <= reliability[pool].min()
        first += len(pool)


@given(st.integers(1, 30), st.integers(0, 99))
def test_without_an_order_images_come_as_in_any_training(count, seed):
    epochs = Epochs(np.zeros(count, np.float32), ReliableFirstSettings(start=1), 100, (seed, "order"))
    plain = Shuffled(count, (seed, "order"))
    assert [epochs(number) for number in range(100)] == [plain(number) for number in range(100)]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.floats(0.01, 1), st.integers(0, 99))
def test_a_partner_is_among_those_most_alike(count, among, seed):
    counts = np.random.default_rng(seed).integers(0, 3, (count, 4)) * 10
    layouts = roots(counts)
    partners = Partners(layouts, layouts, among, (seed,))
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    for position in range(count):
        affinity = np.sqrt(shares * shares[position]).sum(1)
        found = partners(position, 7)
        closer = (affinity > affinity[found] + 1e-5).sum()
        assert closer < np.ceil(among * count) or not affinity.any()
        assert partners(position, 7) == found


def test_all_alike_images_are_drawn_and_none_but_those_allowed():
    layouts = roots(np.array([[9, 0], [8, 1], [7, 2], [0, 9]]))
    partners = Partners(layouts, layouts, 0.5, (1,))
    assert {partners(0, draw) for draw in range(60)} == {0, 1}
    assert {partners(0, draw, np.array([1, 2, 3])) for draw in range(60)} == {1, 2}
    nothing = Partners(roots(np.zeros((1, 2), int)), layouts, 0.1, (1,))
    assert {nothing(0, draw) for draw in range(60)} == {0, 1, 2, 3}


def test_in_pairs_no_image_is_its_own_partner_and_the_pool_holds():
    counts = np.random.default_rng(0).integers(0, 9, (12, 3))
    layouts = roots(counts)
    reliability = np.linspace(1, 0, 12).astype(np.float32)
    epochs = Epochs(reliability, ReliableFirstSettings(start=0.25, until=1), 60, (4,))
    pairs = Pairs(epochs, Partners(layouts, layouts, 0.3, (4,)))
    for number in range(60):
        first, second = pairs(2 * number), pairs(2 * number + 1)
        assert first == epochs(number) and second != first
        assert {first, second} <= set(epochs.pool(number))
    alone = Pairs(
        Epochs(np.zeros(1, np.float32), ReliableFirstSettings(), 4, (4,)), Partners(layouts, layouts, 1, (4,))
    )
    assert [alone(number) for number in range(4)] == [0] * 4


@pytest.mark.parametrize(("labeled", "below"), [(4, 4), (4, 3)])
def test_a_labeled_image_is_like_the_one_it_is_pasted_onto(labeled, below):
    own, others = np.eye(5, dtype=int), np.repeat(np.eye(5, dtype=int), 2, 0)
    epochs = Epochs(np.zeros(10, np.float32), ReliableFirstSettings(start=1), 60, (4,))
    order = PastedPartners(epochs, Partners(roots(others), roots(own), 0.2, (4,)), labeled, below)
    for drawn in range(5 * labeled):
        step, item = divmod(drawn, labeled)
        assert order(drawn) == epochs(step * below + item % below) // 2


def file_of(folder, **told):
    """Seven images of blocks."""
    names = [f"unlabeled-{number}" for number in range(7)]
    return tiny.write_pseudo_labels(
        folder / "labels.h5", names, [tiny.blocks(tiny.SIZE, 1000 + n) for n in range(7)], **told
    )


@pytest.mark.parametrize("across", ["target_to_target", SOURCE])
@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("round", [1, 2])
def test_parts_that_are_on_make_the_order(tmp_path, across, alike, round):
    file = PseudoLabels(file_of(tmp_path, reliability=np.linspace(0, 1, 7)))
    told = {"across": across, "alike": alike, "reliable_first": {"start": 0.2}}
    orders = make(file, np.ones((5, 3), int), round, **told).orders(20, {"labeled": 2, "anchored": 2})
    assert set(orders) == ({"anchored", "labeled"} if alike and across == SOURCE else {"anchored"})
    first = {orders["anchored"](number) for number in range(4)}
    # In round 1 there is no model before to compare with.
    assert first <= {5, 6} if round == 2 and not (alike and across != SOURCE) else True
    assert isinstance(orders["anchored"], Pairs) == (alike and across != SOURCE)


def test_what_is_missing_is_told(tmp_path):
    file = PseudoLabels(file_of(tmp_path))
    with pytest.raises(UserError, match=r"labels\.h5: does not tell how far two rounds' models agree; run label again"):
        make(file, round=2, reliable_first=True).orders(20, {"labeled": 2, "anchored": 2})
    with pytest.raises(UserError, match=r"algorithm\.alike: needs the statistics\.h5"):
        make(file, across=SOURCE, alike=True).orders(20, {"labeled": 2, "anchored": 2})


def test_rarity_is_that_of_what_is_pasted(tmp_path):
    file = PseudoLabels(file_of(tmp_path))
    shares = file.classes["share"].to_numpy()
    for across, expected in (("target_to_target", shares), (SOURCE, shares[::-1])):
        favor = make(file, across=across, rare_classes={"temperature": 0.2}).favor
        assert np.allclose(favor - favor[0], (expected[0] - expected) / 0.2)


# Streams.


def test_what_the_file_leaves_ignored_is_open_and_what_a_person_said_is_not(tmp_path):
    table = tiny.split(tmp_path / "unlabeled", (tiny.SIZE,) * 7)
    path = file_of(tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["review"] = json.dumps([{"image": "unlabeled-3", "review": "mask", "reason": ""}])
    stream = Anchored(table, tiny.READ, PseudoLabels(path))
    for position in range(7):
        expected = tiny.blocks(tiny.SIZE, 1000 + position)
        if position != 3:
            expected = np.where(expected == IGNORE, OPEN, expected)
        assert (stream.item(position)[1].numpy() == expected).all()


def test_counts_are_of_the_images_of_the_table(tmp_path):
    table = tiny.split(tmp_path / "labeled")
    names = pd.read_csv(table).image.to_list()

    def write(names, classes=tiny.CLASSES):
        with STATISTICS.create(tmp_path / "statistics.h5") as file:
            file.attrs["classes"] = json.dumps(classes)
            file.create_dataset("images", data=names, dtype=h5py.string_dtype())
            file["counts"], file["frequency"] = np.ones((5, 3), int), np.zeros((3, 64, 128), np.float32)

    write(names)
    assert read_counts(tmp_path / "statistics.h5", table, tiny.CLASSES).shape == (5, 3)
    for wrong in ((names[::-1],), (names, ("a", "b", "c"))):
        write(*wrong)
        with pytest.raises(UserError, match=r"statistics\.h5: is of other images or classes than .*images\.csv"):
            read_counts(tmp_path / "statistics.h5", table, tiny.CLASSES)


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


PARTS = {"rare_classes": True, "alike": True, "fill": True, "reliable_first": True}


def test_each_part_changes_the_training_and_repeats_to_the_byte(train):
    found = {}
    for part in (None, *PARTS):
        told = tiny.stage({"name": "hybrid"} | ({part: True} if part else {}), steps=5, teacher={})
        found[part] = train(f"{part}", told).model.read_bytes()
        assert train(f"{part} again", told).model.read_bytes() == found[part]
    assert len(set(found.values())) == 5


def test_the_table_tells_the_terms_and_the_shares(train):
    table = pd.read_csv(train("all", tiny.stage({"name": "hybrid"} | PARTS, steps=12, teacher={})).table)
    assert {"labeled", "mixed", "anchored_share", "filled_share", "mixed_weight"} <= set(table)
    assert np.allclose(table.anchored_share + table.filled_share, 1)  # the teacher says something of every open pixel


def test_it_learns(train, tmp_path):
    """The colors of blocks, from pseudo-labels alone: the labeled images are all ignored."""
    told = tiny.stage({"name": "hybrid", "strong": STILL} | PARTS, steps=40, teacher={})
    table = pd.read_csv(train("long", told).table)
    assert table.mixed.iloc[-1] < 0.75 * table.mixed.iloc[0]


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
    expected = [(a == b).mean() for (_, a, _), (_, b, _) in zip(items, earlier, strict=True)]
    assert np.allclose(found.reliability, expected) and np.allclose(found.images.reliability, expected)
    one, *_ = reliabilities(tmp_path / "one", count=4)
    assert digest(one) == digest(output)


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


def test_a_batch_that_is_all_open_is_no_loss():
    blank = Batch(batch(2, 1).images, torch.full((2, 6, 8), OPEN, dtype=torch.uint8), ("x", "y"))
    loss = make().loss(scene(blank))
    assert loss.terms["mixed"].item() == 0 and torch.isfinite(loss.terms["labeled"])
