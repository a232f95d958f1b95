"""Online training with mixed images: a step of ours against the thesis's order of work, and what ours is spent on.

    python benchmarks/mixing.py [--quick] [--steps 5 --repeats 4 --threads 1]

The thesis's order of work is written from its text: float32, three forward passes at full size, classes of each image
counted on the host, one parameter averaged after the other, losses looked at in every step. Ours is the train stage's
loop with one forward pass of the student; on a GPU with autocast and channels_last as well.
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

import numpy as np
import torch
from drawn import Ready, Training, finished, split, training
from measures import NOT_MEASURED, Line, medians, show
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain import randomness
from selftrain.data.augmentation import recolor
from selftrain.data.batches import Batch
from selftrain.settings.data import IGNORE
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.settings.model import ModelSettings
from selftrain.train.teacher import Teacher

METHODS = {"ClassMix": "target_to_target", "DACS": "source_to_target"}
PARTS = {"teach": "teacher", "mix": "mixing", "augment": "mixing", "ask": "student's forward"}
"""Parts of a step by the algorithm's methods."""
OPTIMIZER = {"name": "sgd", "lr": 2.5e-4, "momentum": 0.9, "weight_decay": 5e-4}
SMALL = ModelSettings()
DEEPLAB = ModelSettings(encoder="resnet101", decoder="aspp", output_stride=8)


@dataclass(frozen=True)
class Case:
    """What is trained, and where."""

    method: str
    model: ModelSettings
    batch: int
    size: tuple[int, int]
    on_gpu: bool = False

    def __str__(self) -> str:
        where = "GPU" if self.on_gpu else "CPU, float32"
        return f"{self.method}, {self.model.encoder}, {self.batch} × {self.size[0]}×{self.size[1]}, {where}"


def measure(arguments: Sequence[str]) -> list[Line]:
    told = _arguments(arguments)
    torch.set_num_threads(told.threads)
    batch, size = (4, (64, 64)) if told.quick else (8, (96, 192))
    cases = [Case(method, SMALL, batch, size) for method in METHODS]
    # Batches and crops of the papers.
    cases += [Case("ClassMix", DEEPLAB, 20, (321, 321), True), Case("DACS", DEEPLAB, 4, (512, 512), True)]
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            if case.on_gpu and not torch.cuda.is_available():
                lines.append(Line(f"an online step, {case}", NOT_MEASURED, "≥ 1.8×"))
            elif case.on_gpu == torch.cuda.is_available():
                lines += _lines(Path(folder) / str(number), case, told)
    return lines


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args(arguments)
    if told.quick:
        told.steps, told.repeats = 1, 1
    return told


def _lines(folder: Path, case: Case, told: argparse.Namespace) -> list[Line]:
    """The ratio, and the parts of ours."""
    domains = {"labeled": "synthetic", "unlabeled": "real"}
    tables = {name: split(folder / name, domain, case.batch, case.size) for name, domain in domains.items()}
    fast = {"precision": "bf16-mixed", "channels_last": True} if case.on_gpu else {}

    def made(forwards: str, **train: Any) -> Training:
        algorithm = {"name": "mean_teacher_mixing", "across": METHODS[case.method], "forwards": forwards}
        augmentation = {"crop": case.size, "scale": (0.75, 1.5)}
        common = {"batch_size": case.batch, "augmentation": augmentation, "optimizer": OPTIMIZER, "teacher": {}}
        return training(folder, tables, case.model, algorithm, **common, **train)

    ours, theirs = made("joint", **fast), made("separate")
    ready = Ready(ours.batches)
    thesis = ThesisOrder(theirs, MeanTeacherMixingSettings(across=METHODS[case.method]))
    steps = told.steps * (4 if case.on_gpu else 1)  # a step on a GPU is short beside a loop's start
    works = {"ours": lambda: ours.steps(steps, ready), "thesis": lambda: thesis.steps(steps, ready)}
    clock, unit = (time.perf_counter, "ms") if case.on_gpu else (time.process_time, "CPU-ms")
    spent = medians({name: finished(work) for name, work in works.items()}, told.repeats, clock)
    each = {name: 1e3 * seconds / steps for name, seconds in spent.items()}
    against = f"{each['thesis']:.1f} {unit}, the thesis's order of work"
    to_reach = "≥ 1.8×" if case.on_gpu else ""
    ratio = f"{each['thesis'] / each['ours']:.2f}×"
    whole = Line(f"an online step, {case}", f"{each['ours']:.1f} {unit}", to_reach, against, ratio)
    parts = _parts(ours, ready, max(2, 2 * told.steps), clock)
    of = f"of {sum(parts.values()):.1f} {unit}, each part awaited"
    shares = {part: f"{one / sum(parts.values()):.0%}" for part, one in parts.items()}
    return [whole, *(Line(f"  its {part}", f"{one:.1f} {unit}", "", of, shares[part]) for part, one in parts.items())]


def _parts(made: Training, ready: Ready, steps: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds of each part of a step."""
    spent = dict.fromkeys(PARTS.values(), 0.0)

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            finished(int)()
            start = clock()
            said = method(*arguments)
            finished(int)()
            spent[part] += clock() - start
            return said

        return measured

    for method, part in PARTS.items():
        setattr(made.run.algorithm, method, timed(part, getattr(made.run.algorithm, method)))
    start = clock()
    finished(lambda: made.steps(steps, ready))()
    spent["losses, backward, optimizer"] = clock() - start - sum(spent.values())
    reading = medians({"reading": lambda: made.batches[0]}, 4, clock)["reading"]
    return {part: 1e3 * seconds / steps for part, seconds in spent.items()} | {"reading": 1e3 * reading}


class ThesisOrder:
    """A step in the order of thesis Algorithm 1 and section 3.2, nothing joined, fused, or left to the device."""

    def __init__(self, made: Training, settings: MeanTeacherMixingSettings) -> None:
        self.device, self.settings = made.run.fabric.device, settings
        self.student: nn.Module = made.run.segmenter.train()
        assert made.run.teacher is not None
        self.teacher: Teacher = made.run.teacher
        told = {key: value for key, value in OPTIMIZER.items() if key != "name"}
        self.optimizer = torch.optim.SGD(self.student.parameters(), foreach=False, **told)  # type: ignore[arg-type]

    def steps(self, count: int, ready: Ready) -> None:
        """Losses are looked at in every step."""
        for number in range(count):
            loaded = ready[number]
            for term in self.step(number, loaded["labeled"], loaded["unlabeled"]):
                assert np.isfinite(term.item())

    def step(self, number: int, labeled: Batch, unlabeled: Batch) -> tuple[Tensor, Tensor]:
        images, labels = labeled.images.to(self.device), labeled.labels.to(self.device).long()
        target = unlabeled.images.to(self.device)
        of_labels = F.cross_entropy(self.logits(self.student, images), labels, ignore_index=IGNORE)
        with torch.no_grad():
            confidence, classes = self.logits(self.teacher, target).softmax(1).max(1)
        weight = (confidence >= self.settings.threshold).sum().item() / confidence.numel()
        if self.settings.across == "target_to_target":
            images, labels = target.roll(1, 0), classes.roll(1, 0)
        mixed, taught = self.mixed(number, images, labels, target, classes)
        seen = recolor(mixed, self.settings.strong, randomness.generator(0, "strong", number))
        losses = F.cross_entropy(self.logits(self.student, seen), taught, ignore_index=IGNORE, reduction="none")
        of_mixed = weight * losses.mean()
        self.optimizer.zero_grad()
        (of_labels + of_mixed).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.average(number)
        return of_labels, of_mixed

    def logits(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """At full size."""
        return F.interpolate(network(images), size=images.shape[-2:], mode="bilinear", align_corners=False)

    def mixed(
        self, number: int, images: Tensor, labels: Tensor, below: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Image by image: half the classes of one, chosen on the host, pasted onto the other."""
        mixed, taught = [], []
        for item in range(len(below)):
            present = labels[item].unique().cpu().numpy()
            chosen = randomness.generator(number, item).permutation(present)[: (len(present) + 1) // 2]
            mask = torch.isin(labels[item], torch.tensor(chosen, device=self.device))
            mixed.append(torch.where(mask, images[item], below[item]))
            taught.append(torch.where(mask, labels[item], classes[item]))
        return torch.stack(mixed), torch.stack(taught)

    @torch.no_grad()
    def average(self, number: int) -> None:
        """The teacher's parameters, one after the other."""
        decay = min(1 - 1 / (number + 1), 0.99)
        for own, other in zip(self.teacher.model.parameters(), self.student.parameters(), strict=True):
            own.copy_(decay * own + (1 - decay) * other)


if __name__ == "__main__":
    show(measure(sys.argv[1:]))
