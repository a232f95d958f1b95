"""What the benchmarks of training share: drawn images in files, and trainings of them as the train stage has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning_fabric
import torch
from PIL import Image
from torch.utils.data import Dataset

from selftrain.data import streets
from selftrain.data.batches import Batch, Batches
from selftrain.data.tables import write_images
from selftrain.settings.config import MachineSettings
from selftrain.settings.data import ListSettings, ReadSettings
from selftrain.settings.training import TrainStageSettings
from selftrain.train import stage
from selftrain.train.inputs import TrainFiles
from selftrain.train.resume import Resume

READ = ReadSettings(classes=streets.CLASSES, ignore_index=255)
ENDLESS = 10**6
"""Steps, more than any benchmark takes."""


def split(folder: Path, domain: str, count: int, size: Sequence[int]) -> Path:
    """Draw images and labels, and return their images.csv."""
    streets.write(folder, domain=domain, count=count, seed=0, size=(size[0], size[1]))
    return _table(folder, "png")


def as_jpegs(folder: Path) -> Path:
    """The images of a split once more, as JPEGs; returns the images.csv of these."""
    for path in sorted((folder / "images").glob("*.png")):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
    return _table(folder, "jpg")


def _table(folder: Path, suffix: str) -> Path:
    images, labels, root = (f"images/*.{suffix}",), ("labels/*.png",), str(folder)
    listed = ListSettings(root=root, data_root=root, images=images, labels=labels, list=None, labeled=True)
    write_images(listed, table := folder / f"{suffix}.csv")
    return table


@dataclass(frozen=True)
class Training:
    """A training that goes on step by step, by the train stage's own loop."""

    run: stage._Run
    batches: Batches
    folder: Path

    def steps(self, count: int, batches: Dataset | None = None, workers: int = 0) -> None:
        """Train so many steps, the first of which is step 0 again; of other batches than those in files, if given."""
        self.run.step, self.run.steps = 0, count
        machine = MachineSettings(workers=workers, checkpoint_seconds=1e9)
        stage._steps(self.run, batches or self.batches, Resume(self.folder, 1e9), machine)  # type: ignore[arg-type]


def training(
    folder: Path, tables: dict[str, Path], model: Any, algorithm: Any = "supervised", **train: Any
) -> Training:
    """Set up as the train stage does, on a GPU where there is one."""
    settings = TrainStageSettings(
        model=model,
        train={"steps": ENDLESS} | train,
        algorithm=algorithm,
        seed=0,
        round=0,
        labeled=READ,
        unlabeled=READ,
    )
    outputs = {name: folder / name for name in ("model", "table", "manifest", "resume")}
    paths = TrainFiles(**tables, **outputs)  # type: ignore[arg-type]
    fabric = lightning_fabric.Fabric(accelerator="auto", devices=1, precision=settings.train.precision)
    run = stage._Run(settings, paths, fabric, None)
    return Training(run, stage._batches(settings, paths, run, None), folder)


class Ready(Dataset):
    """A few batches in memory, again and again, in place of `Batches`."""

    def __init__(self, batches: Batches, count: int = 4) -> None:
        self.loaded = [_loaded(batches, step) for step in range(count)]

    def __getitem__(self, step: int) -> dict[str, Batch]:
        return self.loaded[step % len(self.loaded)]


def _loaded(batches: Batches, step: int) -> dict[str, Batch]:
    loaded = batches[step]
    assert isinstance(loaded, dict)
    return loaded


def finished(work: Callable[[], object]) -> Callable[[], None]:
    """The work, and the GPU's part of it."""

    def whole() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return whole
