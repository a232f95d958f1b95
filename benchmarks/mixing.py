"""A step of `mean_teacher_mixing`, split into what it is spent on. Prints seconds and CPU-seconds a step.

python benchmarks/mixing.py [--encoder mobilenetv3_small_050 --size 96 192 --batch 8 --across source_to_target
    --mixing classmix --steps 20 --threads 1]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from selftrain.data import streets
from selftrain.data.batches import Batch, Batches, Stream, Unlabeled
from selftrain.data.tables import write_images
from selftrain.models.segmenter import Segmenter
from selftrain.settings.data import ListSettings, ReadSettings
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.settings.model import ModelSettings
from selftrain.settings.training import AugmentationSettings, TeacherSettings
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.mean_teacher_mixing import MeanTeacherMixing
from selftrain.train.losses import cross_entropy
from selftrain.train.teacher import Teacher

PARTS = ("data", "teacher", "mixing", "student", "backward")
WARM = 3
"""Steps before the clock runs."""


def main() -> None:
    """Measure on the CPU, and on a GPU where there is one."""
    told = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        batches = _batches(Path(folder), told)
        print(
            f"{told.encoder}, {told.batch} images of {told.size[0]}×{told.size[1]} a step, {told.mixing}, {told.across}"
        )
        for name in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
            described = torch.cuda.get_device_name() if name == "cuda" else f"cpu, {told.threads} thread(s)"
            torch.set_num_threads(told.threads)
            clock = _measure(batches, torch.device(name), told)
            print(f"{described}, torch {torch.__version__}")
            whole = [sum(clock[part][kind] for part in PARTS) for kind in (0, 1)]
            for part in PARTS:
                seconds, cpu = (value / told.steps for value in clock[part])
                print(f"  {part:9} {1e3 * seconds:7.1f} ms  {1e3 * cpu:7.1f} CPU-ms  {clock[part][0] / whole[0]:4.0%}")
            print(f"  {'step':9} {1e3 * whole[0] / told.steps:7.1f} ms  {1e3 * whole[1] / told.steps:7.1f} CPU-ms")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", default="mobilenetv3_small_050")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 192))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--across", default="source_to_target")
    parser.add_argument("--mixing", default="classmix")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _batches(folder: Path, told: argparse.Namespace) -> Batches:
    """Drawn images, half of each batch labeled, read and augmented as in a training."""
    tables = {}
    for name, domain in (("labeled", "synthetic"), ("unlabeled", "real")):
        root = folder / name
        streets.write(root, domain=domain, count=16, seed=0, size=tuple(told.size))
        images, labels = ("images/*.png",), ("labels/*.png",)
        listed = ListSettings(
            root=str(root), data_root=str(root), images=images, labels=labels, list=None, labeled=True
        )
        write_images(listed, tables.setdefault(name, folder / f"{name}.csv"))
    read = ReadSettings(classes=streets.CLASSES, ignore_index=255)
    found = {"labeled": Stream(tables["labeled"], read), "unlabeled": Unlabeled(tables["unlabeled"], read)}
    augmentation = AugmentationSettings(crop=tuple(told.size), scale=(0.75, 1.5))
    sizes = {"labeled": told.batch - told.batch // 2, "unlabeled": told.batch // 2}
    return Batches(found, sizes, augmentation, ModelSettings().mean, (0, 0))


def _measure(batches: Batches, device: torch.device, told: argparse.Namespace) -> dict[str, list[float]]:
    """Per part seconds and CPU-seconds, over all steps."""
    torch.manual_seed(0)
    student = Segmenter(ModelSettings(encoder=told.encoder), len(streets.CLASSES)).to(device).train()
    teacher = Teacher(student, TeacherSettings())
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    algorithm = MeanTeacherMixing(
        MeanTeacherMixingSettings(across=told.across, mixing=told.mixing), Given(len(streets.CLASSES))
    )
    clock: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for number in range(-WARM, told.steps):
        timed = clock if number >= 0 else defaultdict(lambda: [0.0, 0.0])
        with _timed(timed, "data", device):
            loaded = batches[number + WARM]
            assert isinstance(loaded, dict)
            of_step: dict[str, Batch] = {name: batch.to(device) for name, batch in loaded.items()}
        step = Step(number + WARM, told.steps + WARM, of_step, student, teacher)
        with _timed(timed, "teacher", device):
            taught, _ = algorithm.teach(step, of_step["unlabeled"])
        with _timed(timed, "mixing", device):
            mixed = algorithm.mix(taught, of_step["labeled"], step.number).mixed
            seen = algorithm.augment(mixed.images, step.number)
        with _timed(timed, "student", device):
            of_labeled, of_mixed = algorithm.ask(student, of_step["labeled"].images, seen)
            loss = cross_entropy(of_labeled.logits, of_step["labeled"].labels)
            loss = loss + algorithm.mixed_loss(of_mixed.logits, mixed)
        with _timed(timed, "backward", device):
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            teacher.update(student, step.number)
    return clock


@contextmanager
def _timed(clock: dict[str, list[float]], part: str, device: torch.device) -> Iterator[None]:
    seconds, cpu = time.perf_counter(), time.process_time()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock[part][0] += time.perf_counter() - seconds
    clock[part][1] += time.process_time() - cpu


if __name__ == "__main__":
    main()
