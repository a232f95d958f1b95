"""Training: a step of the train stage's loop against the bare forward, backward and optimizer of the same network.

    python benchmarks/training.py [--quick] [--steps 10 --repeats 4 --compile]

With --compile, what torch.compile gains as well: it takes minutes of compiling on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from drawn import Ready, Training, finished, split, training
from measures import NOT_MEASURED, Line, medians, show
from torch import nn
from torch.nn import functional as F

from selftrain.settings.data import IGNORE
from selftrain.settings.model import ModelSettings

SCALE = (0.75, 1.5)


@dataclass(frozen=True)
class Case:
    """What is trained."""

    encoder: str
    batch: int
    size: tuple[int, int]
    steps: int
    """A turn."""

    def __str__(self) -> str:
        return f"{self.encoder}, {self.batch} × {self.size[0]}×{self.size[1]}"


def measure(arguments: Sequence[str]) -> list[Line]:
    told = _arguments(arguments)
    torch.set_num_threads(1)
    small = Case("mobilenetv3_small_050", 2 if told.quick else 8, (96, 192), told.steps)
    bigger = Case("resnet18", 2 if told.quick else 4, (64, 64) if told.quick else (128, 256), max(1, told.steps // 5))
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in (small, bigger):
            lines += _against_bare(Path(folder) / case.encoder, case, told)
        lines += _compiled(Path(folder) / "compiled", small, told) if told.compile else []
        lines += _on_the_gpu(Path(folder) / "gpu", told)
    return lines


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    told = parser.parse_args(arguments)
    if told.quick:
        told.steps, told.repeats = 2, 1
    return told


def _made(folder: Path, case: Case, **train: Any) -> Training:
    table = folder / "drawn" / "png.csv"
    if not table.exists():
        folder.mkdir(parents=True)
        split(table.parent, "real", 2 * case.batch, case.size)
    augmentation = {"crop": case.size, "scale": SCALE}
    model = ModelSettings(encoder=case.encoder)
    return training(folder, {"labeled": table}, model, batch_size=case.batch, augmentation=augmentation, **train)


def bare(network: nn.Module, optimizer: torch.optim.Optimizer, ready: Ready, steps: int) -> Callable[[], None]:
    """Forward, cross-entropy at the labels' size, backward, optimizer, and nothing else."""
    device = next(network.parameters()).device
    loaded = [(one["labeled"].images.to(device), one["labeled"].labels.to(device).long()) for one in ready.loaded]

    def work() -> None:
        for step in range(steps):
            images, labels = loaded[step % len(loaded)]
            logits = F.interpolate(network(images), size=labels.shape[-2:], mode="bilinear", align_corners=False)
            loss = F.cross_entropy(logits, labels, ignore_index=IGNORE)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return work


def _against_bare(folder: Path, case: Case, told: argparse.Namespace) -> list[Line]:
    """On the device that the train stage takes; CPU-seconds, on a GPU seconds."""
    made, plain, fused = _made(folder, case), _made(folder, case), _made(folder, case)
    ready = Ready(made.batches)
    of = {name: one.run.segmenter.train() for name, one in (("bare", plain), ("bare, fused", fused))}
    optimizers = {
        "bare": torch.optim.AdamW(of["bare"].parameters(), lr=1e-3),
        "bare, fused": torch.optim.AdamW(of["bare, fused"].parameters(), lr=1e-3, fused=True),
    }
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: made.steps(case.steps, ready),
        "ours, reading": lambda: made.steps(case.steps),
    }
    works |= {name: bare(of[name], optimizers[name], ready, case.steps) for name in of}
    on_gpu = torch.cuda.is_available()
    seconds = medians({name: finished(work) for name, work in works.items()}, told.repeats, _clock())
    unit = "ms" if on_gpu else "CPU-ms"
    each = {name: 1e3 * spent / case.steps for name, spent in seconds.items()}

    def line(what: str, ours: str, other: str, to_reach: str = "") -> Line:
        ratio = f"{each[other] / each[ours]:.0%}"
        return Line(what, f"{each[ours]:.1f} {unit}", to_reach, f"{each[other]:.1f} {unit}, {other}", ratio)

    return [
        line(f"a step, {case}", "ours", "bare", "≥ 90%"),
        line(f"a step, {case}, against a fused optimizer", "ours", "bare, fused"),
        line(f"a step, {case}, read from files without workers", "ours, reading", "bare"),
    ]


def _clock() -> Callable[[], float]:
    return time.perf_counter if torch.cuda.is_available() else time.process_time


def _compiled(folder: Path, case: Case, told: argparse.Namespace, **train: Any) -> list[Line]:
    """What torch.compile gains a step, and the seconds of the first one."""
    plain, compiled = (_made(folder, case, compile=on, **train) for on in (False, True))
    ready = Ready(plain.batches)
    start = time.perf_counter()
    compiled.steps(1, ready)
    first = time.perf_counter() - start
    works = {
        name: finished(lambda one=one: one.steps(case.steps, ready))
        for name, one in (("plain", plain), ("compiled", compiled))  # type: ignore[misc]
    }
    each = {name: 1e3 * spent / case.steps for name, spent in medians(works, told.repeats, _clock()).items()}
    what = f"a step through torch.compile, {case}; the first takes {first:.0f} s"
    against = f"{each['plain']:.1f} ms uncompiled"
    return [Line(what, f"{each['compiled']:.1f} ms", "", against, f"{each['plain'] / each['compiled']:.2f}×")]


def _on_the_gpu(folder: Path, told: argparse.Namespace) -> list[Line]:
    """What a GPU is for: a large network, in half precision, compiled."""
    case = Case("resnet50", 2 if told.quick else 8, (64, 64) if told.quick else (512, 512), told.steps)
    if not torch.cuda.is_available():
        return [Line(f"a step on a GPU, {case}{how}", NOT_MEASURED) for how in ("", ", torch.compile")]
    fast = {"precision": "bf16-mixed", "channels_last": True}
    return _against_bare(folder, case, told) + _compiled(folder, case, told, **fast)


if __name__ == "__main__":
    show(measure(sys.argv[1:]))
