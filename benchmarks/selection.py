"""What selection costs, from logits to pseudo-labels: `python benchmarks/selection.py [--quick]`.

One thread. The fields that stand for logits are over-confident as DARS has them (a third of the pixels at p = 1 in
float16) and as smooth as what a network says of CamVid: their files have the same size per pixel.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from measures import Line, medians, peak_mebibytes, show

from selftrain.confidence import BINS, groups
from selftrain.label.merge import merge
from selftrain.label.stage import Rule, label
from selftrain.select.policies import decide as decide_cut
from selftrain.select.stage import describe, select
from selftrain.settings.selection import LabelSettings, SelectSettings

if TYPE_CHECKING:  # the memory of select, label and merge is measured without it
    from torch import Tensor

    from selftrain.predict.writer import PredictionWriter

CLASSES = tuple(f"class_{i}" for i in range(19))
PRIOR = np.array([1 / (i + 1) for i in range(19)]) / sum(1 / (i + 1) for i in range(19))
KNOWN = pd.DataFrame({"class": CLASSES, "share": PRIOR, "mean_size": PRIOR, "images": 1})
SELECT = SelectSettings(classes=CLASSES, policy={"name": "dars"}, portion=0.5)
LABEL = LabelSettings(seed=0, round=1, select=SELECT)
FULL = (512, 1024)
SHARDS = 5


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `quick` for a test that everything runs."""

    images: int = 8
    times: int = 8
    """How often the same logits count as further images."""
    shape: tuple[int, int] = FULL
    repeats: int = 3
    growing: tuple[int, ...] = (32, 256, 1024)
    memory: tuple[int, ...] = (64, 1000)
    small: tuple[int, int] = (128, 256)


QUICK = Sizes(2, 2, (64, 128), 1, (2, 4), (5, 10), (32, 64))


def measure(arguments: Sequence[str]) -> list[Line]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    sizes = QUICK if parser.parse_args(arguments).quick else Sizes()
    import torch

    torch.set_num_threads(1)
    logging.disable()
    logits = list(fields(sizes.images, sizes.shape))
    return [*speed(logits, sizes), *exactness(logits * sizes.times), *growth(sizes), *memory(sizes)]


def fields(images: int, shape: tuple[int, int]) -> Tensor:
    """What stands for logits, float32 (images, 19, H, W)."""
    import torch

    random, resize = torch.Generator().manual_seed(0), torch.nn.functional.interpolate
    scene = resize(torch.randn((images, 19, 4, 8), generator=random) * 16, scale_factor=16, mode="bicubic")
    detail = torch.randn((images, 19, 64, 128), generator=random) * 0.5
    return resize(scene + detail, size=shape, mode="bilinear")


def log_odds_alone(logits: Sequence[Tensor]) -> None:
    """Log-odds by their definition, a few rows at a time: the top class zeroed, the others summed. No class, no bin."""
    for image in logits:
        for start in range(0, image.shape[1], 16):
            rows = image[:, start : start + 16]
            top = rows.amax(0)
            (rows - top).exp_().masked_fill_(rows == top, 0).sum(0).log_().neg_()


def without_zeroing(logits: Sequence[Tensor]) -> None:
    """The least that any softmax does. Its sum - 1 is no log-odds: it is infinite where p is 1 in float32."""
    for image in logits:
        for start in range(0, image.shape[1], 16):
            rows = image[:, start : start + 16]
            (rows - rows.amax(0)).exp_().sum(0).sub_(1).log_()


def in_memory(logits: Sequence[Tensor]) -> tuple[np.ndarray, list[np.ndarray]]:
    """From logits to labels: decide, count, select, apply. The histograms, and the labels."""
    import torch

    from selftrain.predict.confidence import decide
    from selftrain.predict.writer import tally

    decided, counted = [], torch.zeros((len(CLASSES) + 1, BINS), dtype=torch.int64)
    for image in logits:
        classes, bins = (plane[0] for plane in decide(image[None]))
        tally(counted, classes, bins)
        decided.append((classes.numpy(), bins.numpy().astype(np.uint16)))
    histograms = counted[:-1].numpy()
    cut = decide_cut(SELECT, histograms, PRIOR)
    rule = Rule.of(describe(KNOWN, histograms, cut))
    return histograms, [rule.apply(*one, np.uint64(number)) for number, one in enumerate(decided)]


def with_files(logits: Sequence[Tensor], folder: Path) -> None:
    """The same through the stages and their files."""
    from selftrain.predict.confidence import decide

    with writer(folder / "p0.h5", len(logits), tuple(logits[0].shape[1:])) as file:
        for position, image in enumerate(logits):
            file.write(position, *(plane[0] for plane in decide(image[None])))
    for work in finish(folder):
        work()


def writer(path: Path, count: int, shape: tuple[int, int]) -> PredictionWriter:
    from selftrain.predict.writer import PredictionWriter

    names = [f"image_{i}" for i in range(count)]
    about = {"names": names, "shapes": [shape] * count, "canvas": shape, "classes": CLASSES}
    return PredictionWriter(path, **about, attributes={"model": "0" * 16})


def finish(folder: Path, shards: int = 1) -> Iterator[Callable[[], None]]:
    """The stages after predict, over the shards p0.h5, p1.h5, ... in `folder`."""
    KNOWN.to_csv(folder / "classes.csv", index=False)
    predictions, labels = ([folder / f"{kind}{i}.h5" for i in range(shards)] for kind in "pl")
    cut, output, table = (folder / name for name in ("cut.csv", "out.h5", "out.csv"))
    yield lambda: select(SELECT, predictions, folder / "classes.csv", cut)
    for prediction, one in zip(predictions, labels, strict=True):
        yield lambda prediction=prediction, one=one: label(LABEL, prediction, cut, one)
    yield lambda: merge(LABEL, labels, predictions, cut, output, table)


def speed(logits: Sequence[Tensor], sizes: Sizes) -> list[Line]:
    """CPU-seconds from logits to labels, beside those of log-odds alone and of the usual way."""
    repeated = sizes.images * sizes.times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spent = medians(
            {
                "log-odds alone": lambda: log_odds_alone(logits),
                "without zeroing": lambda: without_zeroing(logits),
                "in memory": lambda: in_memory(list(logits) * sizes.times),
                "with files": lambda: with_files(logits, folder),
                "usual": lambda: usual_way(logits),
            },
            sizes.repeats,
        )
        stored = {what: (folder / file).stat().st_size for what, file in (("p", "p0.h5"), ("out", "out.h5"))}
    each = {
        what: 1e3 * seconds / (repeated if what == "in memory" else sizes.images) for what, seconds in spent.items()
    }
    bound = f"log-odds alone: {each['log-odds alone']:.1f} CPU-ms"
    pixels = sizes.images * sizes.shape[0] * sizes.shape[1] / (FULL[0] * FULL[1])

    def line(what: str, one: str, against: str, ratio: float, to_reach: str = "") -> Line:
        return Line(f"logits to labels, {what}", f"{each[one]:.1f} CPU-ms an image", to_reach, against, f"{ratio:.2f}")

    own = each["in memory"]
    least = f"max, exp, sum: {each['without zeroing']:.1f} CPU-ms"
    return [
        line("in memory", "in memory", bound, own / each["log-odds alone"], "≤ 1.5"),
        line("in memory", "in memory", least, own / each["without zeroing"]),
        line("with all files", "with files", bound, each["with files"] / each["log-odds alone"]),
        line("the usual way, in memory", "usual", f"ours: {own:.1f} CPU-ms", each["usual"] / own),
        Line("predictions on disk", f"{stored['p'] / pixels / 1e6:.2f} MB per 512×1024 image", "≤ .9"),
        Line("pseudo_labels.h5", f"{stored['out'] / pixels / 1e6:.2f} MB per 512×1024 image"),
    ]


def exactness(logits: Sequence[Tensor]) -> list[Line]:
    """What ties decide, and how far counts are from their targets."""
    histograms, labels = in_memory(logits)
    cut = decide_cut(SELECT, histograms, PRIOR)
    inside = np.flatnonzero(cut.threshold < BINS)
    at_threshold = histograms[inside, cut.threshold[inside]]
    over = (cut.selected(histograms) - np.minimum(cut.target, histograms.sum(1)))[inside]
    kept = sum(np.bincount(one.ravel(), minlength=256)[: len(CLASSES)] for one in labels)[inside]
    wanted = cut.kept(histograms)[inside]
    coarse = groups("float16") == groups("float16")[-1]
    return [
        Line(
            "pixels decided by ties",
            f"{at_threshold.sum() / histograms.sum():.3%}",
            "< .1 %",
            f"p = 1 in float16: {histograms[:, coarse].sum() / histograms.sum():.1%}",
        ),
        Line("selected beyond the target", f"{(over / at_threshold).max():.2f} of the threshold's bin", "≤ 1"),
        Line("kept by DARS's draws", f"{abs(kept / wanted - 1).max():.1e} off the target, worst class"),
    ]


def usual_way(logits: Sequence[Tensor]) -> list[np.ndarray]:
    """DARS's Algorithm 1 as its text has it: store all confidences, sort those of each class, threshold, sample."""
    random, classes, confidences = np.random.default_rng(0), [], []
    for image in logits:
        top, ids = image.softmax(0).max(0)
        classes.append(ids.numpy().astype(np.uint8))
        confidences.append(top.numpy())
    all_classes, all_confidences = np.stack(classes), np.stack(confidences)
    labels = np.full_like(all_classes, 255)
    for one, share in enumerate(PRIOR):
        of_class = all_classes == one
        ordered = np.sort(all_confidences[of_class])[::-1]
        target = min(round(SELECT.portion * all_classes.size * share), len(ordered))
        if target == 0:
            continue
        chosen = of_class & (all_confidences >= ordered[target - 1])
        chosen &= random.random(chosen.shape, np.float32) < target / chosen.sum()
        labels[chosen] = one
    return list(labels)


def growth(sizes: Sizes) -> list[Line]:
    """CPU-seconds and traced memory of both ways over more and more images, ours with all its files."""
    pool = fields(8, sizes.small)
    return [_grown([pool[number % 8] for number in range(count)]) for count in sizes.growing]


def _grown(logits: Sequence[Tensor]) -> Line:
    with tempfile.TemporaryDirectory() as folder:
        ways = {"usual": lambda: usual_way(logits), "ours": lambda: with_files(logits, Path(folder))}
        spent, held = medians(ways, 1), {}
        for name, way in ways.items():
            tracemalloc.start()
            way()
            held[name] = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
    told = {name: f"{spent[name]:.2f} CPU-s, {held[name]:.0f} MiB" for name in ways}
    what = "{} images of {}×{}, with all files".format(len(logits), *logits[0].shape[1:])
    against = f"the usual way, in memory: {told['usual']}"
    return Line(what, told["ours"], "", against, f"{spent['ours'] / spent['usual']:.2f}")


def memory(sizes: Sizes) -> list[Line]:
    """Peak of select, label and merge, each count in a process of its own."""
    peaks = {}
    for count in sizes.memory:
        with tempfile.TemporaryDirectory() as folder:
            write_random(Path(folder), count, sizes.small)
            run = subprocess.run([sys.executable, __file__, "--finish", folder], check=True, capture_output=True)
        peaks[count] = float(run.stdout)
    (few, least), (many, most) = min(peaks.items()), max(peaks.items())
    against = f"{few} images: {least:.0f} MiB"
    return [
        Line(
            f"peak memory of select, label, merge, {many} images",
            f"{most:.0f} MiB",
            "1",
            against,
            f"{most / least:.2f}",
        )
    ]


def write_random(folder: Path, count: int, shape: tuple[int, int]) -> None:
    """Predictions of `count` images, in shards."""
    random = np.random.default_rng(0)
    for shard in range(SHARDS):
        mine = len(range(shard, count, SHARDS))
        with writer(folder / f"p{shard}.h5", mine, shape) as file:
            for i in range(mine):
                classes = random.integers(0, len(CLASSES), shape, np.uint8)
                file.write(i, classes, random.integers(BINS // 8, BINS, shape, np.uint16))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--finish"]:
        for work in finish(Path(sys.argv[2]), SHARDS):
            work()
        print(peak_mebibytes())
    else:
        show(measure(sys.argv[1:]))
