"""Reading data: images per second of the loader against decoding alone, and what the training loop waits for it.

python benchmarks/reading.py [--quick] [--batch 8 --batches 16 --steps 40 --repeats 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from drawn import READ, as_jpegs, split, training
from measures import NOT_MEASURED, Line, medians, show
from torch.utils.data import DataLoader

from selftrain.data.batches import Batches, Stream
from selftrain.settings.model import ModelSettings
from selftrain.settings.training import AugmentationSettings
from selftrain.train import stage

WORKERS = (0, 1, 2, 4)
SMALL, LARGE = (96, 192), (512, 1024)
SCALE = (0.75, 1.5)


def measure(arguments: Sequence[str]) -> list[Line]:
    told = _arguments(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # four workers on fewer cores
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        root, large = Path(folder), (64, 128) if told.quick else LARGE
        small = split(root / "small", "real", told.images, SMALL)
        lines += _loading("96×192 PNG", small, SMALL, told, 2 * told.batches)
        pngs, jpgs = split(root / "large", "real", told.images // 2, large), as_jpegs(root / "large")
        for kind, table in (("PNG", pngs), ("JPG", jpgs)):
            lines += _loading(
                f"{large[0]}×{large[1]} {kind}", table, (large[0], large[1] // 2), told, told.batches // 2
            )
        lines += _waiting(root, small, told)
        lines.append(_waiting_for_the_gpu(root, jpgs, told))
    return lines


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=2)
    told = parser.parse_args(arguments)
    if told.quick:
        told.images, told.batch, told.batches, told.steps, told.repeats = 4, 4, 12, 4, 1
    return told


def _loading(name: str, table: Path, crop: tuple[int, int], told: argparse.Namespace, count: int) -> list[Line]:
    """Images a second: decoding in one process, and a loader as the train stage builds it, by its workers."""
    stream = Stream(table, READ)
    augmentation = AugmentationSettings(crop=crop, scale=SCALE)
    batches = Batches({"labeled": stream}, {"labeled": told.batch}, augmentation, ModelSettings().mean, (0, 0))
    images = told.batch * count

    def decoding() -> None:
        for position in range(images):
            stream.item(position % len(stream))

    def loading(workers: int) -> float:
        loader = stage._loader(batches, range(count), workers, torch.device("cpu"))
        return told.batch * _batches_per_second(loader)

    rates: dict[int | None, list[float]] = {None: [], **{workers: [] for workers in WORKERS}}
    for _ in range(told.repeats):  # taking turns
        rates[None].append(images / medians({"decoding": decoding}, 1, time.perf_counter)["decoding"])
        for workers in WORKERS:
            rates[workers].append(loading(workers))
    alone = statistics.median(rates.pop(None))
    lines = [
        Line(
            f"loader, {name}, {workers} workers",
            f"{statistics.median(each):.0f} images/s",
            against=f"{alone:.0f} images/s decoded in one process",
            ratio=f"{statistics.median(each) / alone:.2f}",
        )
        for workers, each in rates.items()
    ]
    spent = medians({"item": lambda: loading(0), "decoding": decoding}, told.repeats)
    item, decoded = (1e3 * seconds / images for seconds in spent.values())
    cost = Line(f"an item, {name}", f"{item:.2f} CPU-ms", "", f"{decoded:.2f} CPU-ms decoding", f"{decoded / item:.2f}")
    return [*lines, cost]


def _batches_per_second(loader: DataLoader) -> float:
    """Once all workers have started, that is from the first batch of the last of them on."""
    first, start = max(1, loader.num_workers), 0.0
    for number, _ in enumerate(loader, 1):
        if number == first:
            start = time.perf_counter()
    return (number - first) / (time.perf_counter() - start)


class _Timed(DataLoader):
    """A loader that knows how long its user waited."""

    waits: tuple[list[float], list[float]] = ([], [])
    """When each wait began and when it ended."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        began, ended = self.waits
        began.clear(), ended.clear()
        loader = super().__iter__()
        while True:
            began.append(time.perf_counter())
            loaded = next(loader, None)
            ended.append(time.perf_counter())
            if loaded is None:
                return
            yield loaded


def _waits(work: Callable[[], None]) -> float:
    """The share of a training's time that it waits for data, from the second step on."""
    with mock.patch.object(stage, "DataLoader", _Timed):
        work()
    began, ended = _Timed.waits
    waited = sum(end - begin for begin, end in zip(began[1:-1], ended[1:-1], strict=True))
    return waited / (began[-1] - began[1])


def _waiting(root: Path, table: Path, told: argparse.Namespace) -> list[Line]:
    """Of the train stage's own loop."""
    augmentation = {"crop": SMALL, "scale": SCALE}
    made = training(root, {"labeled": table}, ModelSettings(), batch_size=told.batch, augmentation=augmentation)
    lines = []
    for workers in (0, 1, 2):
        shares = [_waits(lambda: made.steps(told.steps, workers=workers)) for _ in range(told.repeats)]  # noqa: B023
        what = f"training {ModelSettings().encoder}, 96×192, {workers} workers: waits for data"
        lines.append(Line(what, f"{statistics.median(shares):.1%} of the time"))
    return lines


def _waiting_for_the_gpu(root: Path, table: Path, told: argparse.Namespace) -> Line:
    what = "training resnet50 on a GPU, 512×512 of 512×1024 JPG, 8 workers: waits for data"
    if not torch.cuda.is_available():
        return Line(what, NOT_MEASURED)
    model = ModelSettings(encoder="resnet50")
    crop = (64, 64) if told.quick else (512, 512)
    fast = {"precision": "bf16-mixed", "channels_last": True, "augmentation": {"crop": crop, "scale": SCALE}}
    made = training(root, {"labeled": table}, model, batch_size=told.batch, **fast)
    return Line(what, f"{_waits(lambda: made.steps(told.steps, workers=8)):.1%} of the time")


if __name__ == "__main__":
    show(measure(sys.argv[1:]))
