"""Many images: `python benchmarks/scale.py [--quick] [--images 1000 10000 100000] [--shards 32 256] [--only planning]`.

Memory: the most that each stage without a network takes over more and more tiny images, whose predictions are made up.
What grows is what is kept of an image, not its pixels. Each stage runs in a process of its own.

Planning, and finding nothing to do, over the fewest and the most of these images and each number of shards, the stages
making empty files.

`python benchmarks/scale.py --rates predict=148 step=0.0764` measures nothing: it prints what one round costs on data
sets of several sizes, computed from RATES or what is given in their place.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from graph import Project
from measures import Line, peak_mebibytes, show
from PIL import Image

SHAPE = (8, 16)
CLASSES = tuple(f"class_{i}" for i in range(19))
FILES = 32
"""Shards of predictions that memory is measured over."""
STAGES = ("check", "list", "select", "label", "merge", "read pseudo_labels.h5")

RATES = {
    "predict": (math.nan, "images of 512×1024 a second that the predict stage does on one GPU"),
    "step": (math.nan, "seconds that a training step takes on one GPU"),
    "steps": (20_000, "steps of a round's training, however many images there are"),
    "shard": (20_000, "images of a shard, which `shards` in the config decides"),
    "check": (19.0, "CPU-ms to check and list an image of 512×1024, PNG: decoding it, and digests"),
    "label": (16.0, "CPU-ms to label and merge an image of 512×1024"),
    "predictions": (0.77, "MB on disk of the predictions of an image of 512×1024"),
    "labels": (0.26, "MB on disk of the pseudo-labels of an image of 512×1024"),
    "listing": (70.0, "CPU-µs that each start of Snakemake takes per image, to list it and ask for its size and time"),
    "kept": (900.0, "bytes that checking or listing keeps in memory per image, the most of any job"),
}
"""What one round's costs are computed from; docs/scale.md says where each was measured."""
DATA_SETS = {
    "Cityscapes": (2_975, 1024, 2048),
    "GTA5": (24_966, 1052, 1914),
    "BDD100K": (100_000, 720, 1280),
    "100 million of 720×1280": (100_000_000, 720, 1280),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["memory", "planning"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--shards", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--rates", nargs="*", metavar="NAME=NUMBER", help=f"of {', '.join(RATES)}")
    told = parser.parse_args()
    if told.rates is not None:
        print(costs(_rates(told.rates)).to_markdown(index=False, disable_numparse=True, stralign="right"))
        return
    images, shards = ([20, 40], [2]) if told.quick else (sorted(told.images), told.shards)
    with tempfile.TemporaryDirectory() as folder:
        for count in images:
            draw(Path(folder, str(count)), count)
        lines = list(memory(Path(folder), images)) if told.only != "planning" else []
        lines += planning(Path(folder), images, shards) if told.only != "memory" else []
        show(lines)


# Memory.


def memory(folder: Path, counts: Sequence[int]) -> Iterator[Line]:
    """Peak and time of every stage at each number of images, beside those of the fewest."""
    peaks: dict[tuple[str, int], float] = {}
    few = counts[0]
    for count in counts:
        _alone("make up predictions", folder / str(count))
        for stage in STAGES:
            peaks[stage, count], seconds = _alone(stage, folder / str(count))
            if count == few:
                continue
            most, least = peaks[stage, count], peaks[stage, few]
            yield Line(
                f"peak memory of {stage}, {count} images",
                f"{most:.0f} MiB, {seconds:.1f} CPU-s",
                "1",
                f"{few} images: {least:.0f} MiB; {(most - least) * 2**20 / (count - few):.0f} bytes an image more",
                f"{most / least:.2f}",
            )


def draw(folder: Path, count: int) -> None:
    """Tiny images, no two alike, and three of them with labels."""
    random = np.random.default_rng(0)
    for name in ("images", "labeled", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        picture = Image.fromarray(random.integers(0, 256, (*SHAPE, 3), np.uint8))
        picture.save(folder / f"images/image_{number:08}.png", compress_level=1)
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (*SHAPE, 3), np.uint8)).save(folder / f"labeled/{number}.png")
        Image.fromarray(random.integers(0, 3, SHAPE, np.uint8)).save(folder / f"labels/{number}.png")


def _alone(stage: str, folder: Path) -> tuple[float, float]:
    """Run a stage in a process of its own; returns its peak in MiB and its CPU-seconds."""
    print(f"{stage}, {folder.name} images ...", file=sys.stderr, flush=True)
    run = subprocess.run([sys.executable, __file__, "--stage", stage, folder], check=True, stdout=subprocess.PIPE)
    peak, seconds = run.stdout.split()[-2:]
    return float(peak), float(seconds)


def works(folder: Path) -> dict[str, Callable[[], object]]:
    """Each stage over the images and shards in `folder`."""
    from selftrain.settings.data import CheckedSplit, CheckSettings, ListSettings, ReadSettings
    from selftrain.settings.selection import LabelSettings, SelectSettings

    listed = ListSettings(
        root=str(folder), data_root=str(folder), images=("images/*.png",), labels=None, list=None, labeled=False
    )
    read = ReadSettings(classes=CLASSES, ignore_index=255)
    checked = CheckSettings(task="t", splits={"unlabeled": CheckedSplit(list=listed, read=read)})
    selected = SelectSettings(classes=CLASSES, policy={"name": "dars"}, portion=0.5)
    told = LabelSettings(seed=0, round=1, select=selected)
    predictions, labels = ([folder / f"{kind}{shard}.h5" for shard in range(FILES)] for kind in "pl")
    classes, cut, output, table = (folder / name for name in ("classes.csv", "cut.csv", "out.h5", "out.csv"))

    def check() -> None:
        from selftrain.data.check import check

        check(checked)

    def write_images() -> None:
        from selftrain.data.tables import write_images

        write_images(listed, folder / "images.csv")

    def select() -> None:
        from selftrain.select.stage import select

        select(selected, predictions, classes, cut)

    def label() -> None:
        from selftrain.label.stage import label

        for prediction, of_shard in zip(predictions, labels, strict=True):
            label(told, prediction, cut, of_shard)

    def merge() -> None:
        from selftrain.label.merge import merge

        merge(told, labels, predictions, cut, output, table)

    def read_labels() -> None:
        from selftrain.label.pseudo_labels import PseudoLabels

        PseudoLabels(output).label(0)

    stages = dict(zip(STAGES, (check, write_images, select, label, merge, read_labels), strict=True))
    return {"make up predictions": lambda: make_up(folder, predictions, classes)} | stages


def make_up(folder: Path, shards: Sequence[Path], classes: Path) -> None:
    """Predictions at random, for as many images as there are, and a prior."""
    from selftrain.confidence import BINS
    from selftrain.data.images import shard_of
    from selftrain.predict.writer import PredictionWriter

    prior = np.array([1 / (i + 1) for i in range(len(CLASSES))])
    known = {"class": CLASSES, "share": prior / prior.sum(), "mean_size": 0.1, "images": 1}
    pd.DataFrame(known).to_csv(classes, index=False)
    random, names = np.random.default_rng(0), sorted(file.stem for file in (folder / "images").iterdir())
    for shard, path in enumerate(shards):
        own = [names[position] for position in shard_of(len(names), 1, shard, len(shards))]
        about = {"names": own, "shapes": [SHAPE] * len(own), "canvas": SHAPE, "classes": CLASSES}
        with PredictionWriter(path, **about, attributes={"model": "0" * 16}) as writer:
            for position in range(len(own)):
                predicted = random.integers(0, len(CLASSES), SHAPE, np.uint8)
                writer.write(position, predicted, random.integers(BINS // 8, BINS, SHAPE, np.uint16))


# Planning.


def planning(folder: Path, counts: Sequence[int], shards: Sequence[int]) -> Iterator[Line]:
    """Planning and finding nothing to do, at the most images beside the fewest."""
    for number in shards:
        spent = {}
        for count in (counts[0], counts[-1]):
            print(f"planning, {count} images, {number} shards ...", file=sys.stderr, flush=True)
            settings = config(folder / str(count), number)
            spent[count] = Project(folder / f"{count}-in-{number}", settings, stand_in=True).whole(cores=2)
        few, many = spent.values()
        jobs = f"{counts[-1]} images in {number} shards, {len(many.commands)} jobs"
        for what, one, other in (("planning", many.planning, few.planning), ("nothing to do", many.again, few.again)):
            yield Line(f"{what}, {jobs}", str(one), "", f"{counts[0]} images: {other}", f"{one.cpu / other.cpu:.2f}")


def config(data: Path, shards: int) -> dict[str, Any]:
    """One round over the images in a folder."""
    labeled = {"images": "labeled/*.png", "labels": "labels/*.png"}
    task = {
        "classes": list(CLASSES),
        "root": str(data),
        "labeled": labeled,
        "unlabeled": {"images": "images/*.png"},
        "evaluation": {"val": labeled},
    }
    return {
        "tasks": {"many": task},
        "shards": shards,
        "pretrain": {"start": {}},
        "experiments": {"dars": {"policy": "dars", "rounds": [{"portion": 0.5}]}},
    }


# What a round costs.


def _rates(given: Sequence[str]) -> dict[str, float]:
    """RATES, and what is given in their place as NAME=NUMBER."""
    rates = {name: number for name, (number, _) in RATES.items()}
    for one in given:
        name, _, number = one.partition("=")
        if name not in rates:
            sys.exit(f"--rates {one}: unknown rate '{name}'; one of {', '.join(rates)}")
        rates[name] = float(number)
    return rates


def costs(rates: dict[str, float]) -> pd.DataFrame:
    """A row per data set: what one round costs, predicting all its images anew."""
    rows = []
    for name, (images, height, width) in DATA_SETS.items():
        scaled = images * height * width / (512 * 1024)
        shards = math.ceil(images / rates["shard"])
        hours = {"predict": scaled / rates["predict"] / 3600, "train": rates["steps"] * rates["step"] / 3600}
        row = {
            "one round over": name,
            "images": f"{images:,}",
            "predict, GPU-h": hours["predict"],
            "train, GPU-h": hours["train"],
            "check once, CPU-h": scaled * rates["check"] / 3.6e6,
            "label, merge, CPU-h": scaled * rates["label"] / 3.6e6,
            "predictions, GB": scaled * rates["predictions"] / 1e3,
            "pseudo_labels.h5, GB": scaled * rates["labels"] / 1e3,
            "most memory for names, GB": images * rates["kept"] / 1e9,
            "shards": f"{shards:,}",
            "jobs": f"{2 * shards + 6:,}",  # and select, merge, signs, alarms, train, evaluate
            "planning: listing, CPU-s": images * rates["listing"] / 1e6,
        }
        rows.append({key: value if isinstance(value, str) else _said(value) for key, value in row.items()})
    return pd.DataFrame(rows)


def _said(number: float) -> str:
    """In two or more digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _stage(name: str, folder: Path) -> None:
    """In a process of its own: run a stage, and tell its peak in MiB and its CPU-seconds, imports included."""
    works(folder)[name]()
    print(peak_mebibytes(), time.process_time())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        _stage(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
