from collections import Counter

import numpy as np
import pytest
import tiny
import torch
from torch.utils.data import DataLoader

from selftrain.data.batches import Batches, Stream, Unlabeled, unbatched
from selftrain.errors import UserError
from selftrain.settings.config import MachineSettings
from selftrain.settings.training import AugmentationSettings
from selftrain.train.stage import train

OPTIONS = AugmentationSettings(crop=(16, 20), scale=(0.7, 1.4), rotation=10, jitter_probability=0.5)
MEAN = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("splits")
    return {name: tiny.split(folder / name, (tiny.SIZE,) * count, seed=count) for name, count in (("a", 5), ("b", 7))}


def make(tables, place=(0, 0), sizes=None, options=OPTIONS):
    sizes = sizes or {"a": 3, "b": 2}
    streams = {name: Stream(tables[name], tiny.READ) for name in sizes}
    return Batches(streams, sizes, options, MEAN, place)


def equal(one, other):
    return one.names == other.names and torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_sizes_and_kinds(tables):
    batches = make(tables)[4]
    for name, count in (("a", 3), ("b", 2)):
        batch = batches[name]
        assert batch.images.shape == (count, 3, 16, 20) and batch.images.dtype == torch.uint8
        assert batch.labels.shape == (count, 16, 20) and batch.labels.dtype == torch.uint8
        assert len(batch.names) == count


def test_a_batch_is_a_function_of_its_step(tables):
    forward, backward = make(tables), make(tables)
    later = {step: backward[step] for step in (9, 2, 5, 0)}
    for step in (0, 2, 5, 9):
        assert all(equal(forward[step][name], later[step][name]) for name in "ab")


def test_other_places_draw_anew(tables):
    first, step, seed, round_ = make(tables)[0], make(tables)[1], make(tables, (1, 0))[0], make(tables, (0, 1))[0]
    for other in (step, seed, round_):
        assert not torch.equal(first["b"].images, other["b"].images)


def test_one_image_is_changed_anew_each_time(tables):
    batches = make(tables, sizes={"a": 5})
    pictures = {}
    for step in range(2):
        for name, image in zip(batches[step]["a"].names, batches[step]["a"].images, strict=True):
            pictures.setdefault(name, []).append(image)
    assert all(not torch.equal(*pair) for pair in pictures.values())


def test_each_epoch_sees_each_image_once_in_an_order_of_its_own(tables):
    batches = make(tables)
    for name, count, size in (("a", 5, 3), ("b", 7, 2)):
        seen = [image for step in range(count * 2) for image in batches[step][name].names]
        epochs = [tuple(seen[start : start + count]) for start in range(0, len(seen), count)]
        assert all(set(Counter(epoch).values()) == {1} for epoch in epochs) and len(epochs) == 2 * size
        assert len(set(epochs)) > 1


def test_workers_change_nothing(tables):
    batches = make(tables)
    loaders = [
        DataLoader(batches, batch_size=None, sampler=range(2, 8), num_workers=workers, collate_fn=unbatched)
        for workers in (0, 2)
    ]
    steps = list(zip(*loaders, strict=True))
    assert len(steps) == 6
    assert all(equal(alone[name], helped[name]) for alone, helped in steps for name in "ab")


def test_images_of_several_sizes_need_a_crop(tables, tmp_path):
    mixed = tiny.split(tmp_path / "mixed", [(20, 24), (24, 24)])
    with pytest.raises(UserError, match=r"2 sizes \(20×24, 24×24.*set train\.augmentation\.crop"):
        make({"a": mixed}, sizes={"a": 1}, options=AugmentationSettings())
    with pytest.raises(UserError, match="3 sizes"):
        make({"a": mixed, "b": tables["b"]}, options=AugmentationSettings())
    assert make({"a": mixed}, sizes={"a": 2})[0]["a"].images.shape == (2, 3, 16, 20)
    resized = Stream(mixed, tiny.READ.model_copy(update={"size": (12, 16)}))
    whole = Batches({"a": resized}, {"a": 2}, AugmentationSettings(), MEAN, (0, 0))[0]["a"]
    assert whole.images.shape == (2, 3, 12, 16) and whole.labels.shape == (2, 12, 16)


def test_streams_that_do_not_meet_may_differ_in_size(tables, tmp_path):
    small, mixed = tiny.split(tmp_path / "small", [(20, 24)] * 2), tiny.split(tmp_path / "mixed", [(20, 24), (24, 24)])
    whole = AugmentationSettings()
    for other, one_size, refused in ((small, False, False), (small, True, True), (mixed, False, True)):
        streams = {"a": Stream(tables["a"], tiny.READ), "b": Unlabeled(other, tiny.READ)}
        if refused:
            with pytest.raises(UserError, match=r"2 sizes .*set train\.augmentation\.crop"):
                Batches(streams, {"a": 2, "b": 2}, whole, MEAN, (0, 0), one_size=one_size)
        else:
            batches = Batches(streams, {"a": 2, "b": 2}, whole, MEAN, (0, 0), one_size=one_size)[0]
            assert [batch.images.shape for batch in batches.values()] == [(2, 3, *tiny.SIZE), (2, 3, 20, 24)]


def test_unlabeled_images_have_blank_labels_and_what_is_no_image_is_ignored(tables, tmp_path):
    """Even where there are label files, which nobody may look at."""
    for labels in (True, False):
        table = tiny.split(tmp_path / f"{labels}", seed=7, label_files=labels)
        whole = Unlabeled(table, tiny.READ)
        assert whole.item(0)[1].dtype == torch.uint8 and all(not whole.item(at)[1].any() for at in range(len(whole)))
        truth = Stream(table, tiny.READ, labels=lambda _: np.zeros(tiny.SIZE, np.uint8))
        options = AugmentationSettings(crop=(30, 60), scale=(0.5, 1.3), rotation=10)
        found, expected = (Batches({"a": one}, {"a": 4}, options, MEAN, (0, 0))[3]["a"] for one in (whole, truth))
        assert equal(found, expected) and set(found.labels.unique().tolist()) == {0, 255}


def test_labels_may_come_from_elsewhere(tables):
    stream = Stream(tables["a"], tiny.READ, labels=lambda position: tiny.blocks(tiny.SIZE, 77 + position))
    for position in range(5):
        assert torch.equal(stream.item(position)[1], torch.from_numpy(tiny.blocks(tiny.SIZE, 77 + position)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanishes_is_one_clear_error_from_a_worker_too(tmp_path, workers):
    labeled = tiny.split(tmp_path / "labeled")
    (tmp_path / "labeled/images/labeled-3.png").unlink()
    paths = tiny.outputs(tmp_path / "run", labeled)
    with pytest.raises(UserError, match=r"labeled-3\.png") as told:
        train(tiny.stage(steps=5), paths, MachineSettings(workers=workers))
    assert "Traceback" not in str(told.value) and not paths.model.exists()
