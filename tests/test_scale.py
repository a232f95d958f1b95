"""What is kept of each image while a stage works on many: names and a few bytes."""

import threading
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from selftrain.ahead import AHEAD, mapped
from selftrain.confidence import BINS
from selftrain.data.check import check
from selftrain.data.tables import read_images, write_images
from selftrain.label.merge import merge
from selftrain.label.stage import label
from selftrain.predict.writer import PredictionWriter
from selftrain.select.stage import select
from selftrain.settings.data import CheckedSplit, CheckSettings, ListSettings, ReadSettings
from selftrain.settings.selection import LabelSettings, SelectSettings

SHAPE = (2, 3)
FEW, MANY = 100, 1100
CLASSES = tuple(f"class {number}" for number in range(19))
SELECT = SelectSettings(classes=CLASSES, policy="dars", portion=0.5)


def test_work_in_threads_is_in_order_and_a_few_items_ahead():
    begun, gate = [], threading.Event()

    def work(item):
        begun.append(item)
        gate.wait(30)
        return -item

    gate.set()
    results = mapped(work, iter(range(1000)), threads=2)
    assert [next(results) for _ in range(3)] == [0, -1, -2]
    assert len(begun) <= 3 + 2 * AHEAD
    assert list(results) == [-item for item in range(3, 1000)]


def test_an_error_in_a_thread_is_raised_where_its_result_is_due():
    results = mapped(lambda item: 1 / item, [1, 0, 2], threads=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def listing(root):
    given = {"images": ("images/*.png",), "labels": None, "list": None, "labeled": False}
    return ListSettings(root=str(root), data_root=str(root), **given)


def draw(folder, count):
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        pixels = random.integers(0, 256, (*SHAPE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"images/image_{number:06}.png")


def predict(folder, count, shards=2):
    random = np.random.default_rng(0)
    for shard in range(shards):
        names = [f"image_{number:06}" for number in range(shard, count, shards)]
        about = {"names": names, "shapes": [SHAPE] * len(names), "canvas": SHAPE, "classes": CLASSES}
        with PredictionWriter(folder / f"p{shard}.h5", **about, attributes={"model": "0f"}) as writer:
            for position in range(len(names)):
                bins = random.integers(0, BINS, SHAPE, np.uint16)
                writer.write(position, random.integers(0, len(CLASSES), SHAPE, np.uint8), bins)
    return [folder / f"p{shard}.h5" for shard in range(shards)]


def peak(work):
    """Bytes of Python's and NumPy's that `work` holds at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def kept(works):
    """Bytes of an image, from the peaks of FEW and of MANY; a first run, not counted, imports what there is to."""
    works[FEW]()
    few, many = (peak(works[count]) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def test_checking_keeps_a_path_and_a_digest_and_listing_a_path(tmp_path):
    read = ReadSettings(classes=CLASSES, ignore_index=255)
    checks, lists = {}, {}
    for count in (FEW, MANY):
        draw(tmp_path / str(count), count)
        told = listing(tmp_path / str(count))
        settings = CheckSettings(task="t", splits={"unlabeled": CheckedSplit(list=told, read=read)})
        checks[count] = lambda settings=settings: check(settings)
        lists[count] = lambda told=told, count=count: write_images(told, tmp_path / f"{count}.csv")
    assert kept(checks) < 1200  # 800, most of it paths; 2400 with a future and a hexadecimal digest of each
    assert kept(lists) < 750  # 610; 830 with a table of all rows
    assert len(read_images(tmp_path / f"{MANY}.csv")) == MANY


def test_labeling_and_merging_keep_a_name_and_a_size(tmp_path):
    prior = {"class": CLASSES, "share": 1 / len(CLASSES), "mean_size": 0.1, "images": 1}
    told = LabelSettings(seed=0, round=1, select=SELECT, eta=0.1)
    labels, merges = {}, {}
    for count in (FEW, MANY):
        folder = tmp_path / str(count)
        folder.mkdir()
        predictions = predict(folder, count)
        shards = [folder / f"l{shard}.h5" for shard in range(len(predictions))]
        pd.DataFrame(prior).to_csv(folder / "classes.csv", index=False)
        select(SELECT, predictions, folder / "classes.csv", folder / "cut.csv")

        def apply(folder=folder, predictions=predictions, shards=shards):
            for prediction, shard in zip(predictions, shards, strict=True):
                label(told, prediction, folder / "cut.csv", shard)

        labels[count] = apply
        outputs = folder / "cut.csv", folder / "out.h5", folder / "out.csv"
        merges[count] = lambda shards=shards, predictions=predictions, outputs=outputs: merge(
            told, shards, predictions, *outputs
        )
        apply()
    assert kept(labels) < 120  # 60, of a shard's half; 190 with the counts of 19 classes
    assert kept(merges) < 200  # 120; 700 with them
