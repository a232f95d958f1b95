"""What selection costs: `python benchmarks/selection.py`.

(a) CPU-seconds of one thread from logits to pseudo_labels.h5, by stage, as ratios to log-odds alone in the same run.
(b) Peak memory of select, label and merge at 64 and at 1,000 images.
"""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

from selftrain.confidence import BINS
from selftrain.label.merge import merge
from selftrain.label.stage import Rule, label
from selftrain.predict.store import PredictionWriter, histogram
from selftrain.select.cut import read_cut
from selftrain.select.stage import select
from selftrain.settings.selection import LabelSettings, SelectSettings

if TYPE_CHECKING:  # the memory of select, label and merge is measured without it
    import torch

CLASSES = tuple(f"class_{i}" for i in range(19))
PRIOR = np.array([1 / (i + 1) for i in range(19)]) / sum(1 / (i + 1) for i in range(19))
SELECT = SelectSettings(classes=CLASSES, policy={"name": "dars"}, portion=0.5)
LABEL = LabelSettings(seed=0, round=1, select=SELECT)


def writer(path: Path, count: int, shape: tuple[int, int]) -> PredictionWriter:
    names = [f"image_{i}" for i in range(count)]
    about = {"names": names, "shapes": [shape] * count, "canvas": shape, "classes": CLASSES}
    return PredictionWriter(path, **about, attributes={"model": "0" * 16})


def finish(folder: Path, shards: int = 1) -> dict[str, Callable[[], None]]:
    """The stages after predict, over the shards p0.h5, p1.h5, ... in `folder`."""
    known = pd.DataFrame({"class": CLASSES, "share": PRIOR, "mean_size": PRIOR})
    known.to_csv(folder / "classes.csv", index=False)
    predictions, labels = ([folder / f"{kind}{i}.h5" for i in range(shards)] for kind in "pl")
    cut, output, table = (folder / name for name in ("cut.csv", "out.h5", "out.csv"))

    def label_all() -> None:
        for prediction, one in zip(predictions, labels, strict=True):
            label(LABEL, prediction, cut, one)

    return {
        "select": lambda: select(SELECT, predictions, folder / "classes.csv", cut),
        "label": label_all,
        "merge": lambda: merge(LABEL, labels, predictions, cut, output, table),
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def log_odds_alone(logits: torch.Tensor) -> None:
    """Row-chunked max and sum of exp: the log-odds without a class, a store or a label."""
    for image in logits:
        for start in range(0, image.shape[1], 16):
            rows = image[:, start : start + 16]
            (rows - rows.amax(0)).exp_().sum(0).sub_(1).log_()


def time_once(logits: torch.Tensor, folder: Path) -> dict[str, float]:
    """CPU-seconds of each stage for all images."""
    from selftrain.predict.confidence import decide

    decided: list[tuple[torch.Tensor, torch.Tensor]] = []

    def store() -> None:
        with writer(folder / "p0.h5", len(logits), logits.shape[2:]) as file:
            for position, (classes, bins) in enumerate(decided):
                file.write(position, classes[0].numpy(), bins[0].numpy())

    def in_memory() -> None:
        """The arithmetic of store and label, without HDF5 and compression."""
        rule = Rule.of(read_cut(folder / "cut.csv"))
        for classes, bins in decided:
            histogram(classes[0].numpy(), bins[0].numpy(), len(CLASSES))
            rule.apply(classes[0].numpy(), bins[0].numpy().view(np.uint16), np.uint64(1))

    stages = {
        "log-odds alone": lambda: log_odds_alone(logits),
        "decide": lambda: decided.extend(decide(image[None]) for image in logits),
        "store": store,
        **finish(folder),
        "in memory": in_memory,
    }
    return {stage: cpu_seconds(work) for stage, work in stages.items()}


def time_stages(images: int = 8, repeats: int = 5) -> None:
    """Medians, per image of 512 x 1024 x 19, over-confident as DARS has them (a third at p = 1 in float16)."""
    import torch

    torch.set_num_threads(1)
    random, resize = torch.Generator().manual_seed(0), torch.nn.functional.interpolate
    scene = resize(torch.randn((images, 19, 16, 32), generator=random) * 20, scale_factor=4, mode="bicubic")
    detail = torch.randn((images, 19, 64, 128), generator=random) * 2
    logits = resize(scene + detail, scale_factor=8, mode="bilinear")
    with tempfile.TemporaryDirectory() as name:
        runs = [time_once(logits, Path(name)) for _ in range(repeats)]
        files = {"predictions": Path(name) / "p0.h5", "pseudo_labels.h5": Path(name) / "out.h5"}
        sizes = {what: file.stat().st_size / images / 1e6 for what, file in files.items()}
    medians = pd.DataFrame(runs).median() / images * 1e3
    medians["logits to labels, in memory"] = medians["decide"] + medians["select"] + medians.pop("in memory")
    medians["logits to labels, with files"] = medians[["decide", "store", "select", "label", "merge"]].sum()
    ratio = medians / medians["log-odds alone"]
    print(pd.DataFrame({"CPU-ms per image": medians, "ratio": ratio}).round(2).to_string())
    print(*(f"{what}: {size:.2f} MB per image" for what, size in sizes.items()), sep="\n")


def write_random(folder: Path, count: int, shards: int = 5) -> None:
    """Predictions of `count` images of 128 x 256, in shards."""
    random = np.random.default_rng(0)
    for shard in range(shards):
        mine = len(range(shard, count, shards))
        with writer(folder / f"p{shard}.h5", mine, (128, 256)) as file:
            for i in range(mine):
                classes = random.integers(0, 19, (128, 256), np.uint8)
                file.write(i, classes, random.integers(2048, BINS, (128, 256), np.uint16))


def peak_memory(count: int) -> float:
    """MiB at most in use by select, label and merge in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        write_random(Path(folder), count)
        run = subprocess.run([sys.executable, __file__, folder], check=True, capture_output=True, text=True)
    return float(run.stdout)


def main() -> None:
    import torch

    logging.disable()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch", end=" ")
    print(f"{torch.__version__}, numpy {np.__version__}, h5py {h5py.__version__}, one thread\n")
    time_stages()
    print("\nselect + label + merge, 128 x 256, 5 shards")
    for count in (64, 1000):
        print(f"{count:5d} images: peak {peak_memory(count):.0f} MiB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for work in finish(Path(sys.argv[1]), shards=5).values():
            work()
        # Not ru_maxrss: a child inherits its parent's, which holds torch.
        status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
        print(int(status.split()[0]) / 1024)
    else:
        main()
