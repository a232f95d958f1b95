"""What several test modules use."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FIRST = (
    "processes",  # it forks trainings, which PyTorch refuses to a process that has compiled some
    *("graph", "signature", "export", "plan", "compiling", "train", "report", "faults", "odd_data", "figures"),
)
"""Modules of tests; the slowest, by the time that they take."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Some modules first, the slowest so that two workers end together."""
    places = {f"test_{name}": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Writes a small noisy image, told apart by `seed`, and returns its path."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (6, 8), **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def mask() -> Callable[..., Path]:
    """Writes an array of ids as a gray label file and returns its path."""

    def write(path: Path, ids: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(ids)).save(path)
        return path

    return write


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the next training end after so many steps of its own; without a number, lets it live."""
    import tiny  # not above: it brings torch

    from selftrain.train import stage

    advance = stage._Run.advance

    def after(steps: int | None = None) -> None:
        left = iter(range(steps or 0))

        def dying(self: Any, batches: Any) -> Any:
            if next(left, None) is None:
                raise tiny.Killed
            return advance(self, batches)

        monkeypatch.setattr(stage._Run, "advance", dying if steps is not None else advance)

    return after


@pytest.fixture
def folder_task(tmp_path: Path, picture: Callable[..., Path], mask: Callable[..., Path]) -> dict[str, Any]:
    """A config (as a mapping) with one task `tiny` of three classes, and its files: 3 labeled, 4 unlabeled, 2 val."""
    seed = 0
    for split, count in (("labeled", 3), ("unlabeled", 4), ("val", 2)):
        for number in range(count):
            seed += 1
            name = f"{split}-{number}"
            picture(tmp_path / split / "images" / f"{name}.png", seed)
            ids = np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (6, 8))
            mask(tmp_path / split / "labels" / f"{name}.png", ids)
    labeled, val = ({"images": f"{split}/images/*", "labels": f"{split}/labels/*"} for split in ("labeled", "val"))
    return {
        "data_root": str(tmp_path),
        "results": str(tmp_path / "results"),
        "tasks": {
            "tiny": {
                "classes": ["sky", "road", "car"],
                "labeled": labeled,
                "unlabeled": {"images": "unlabeled/images/*"},
                "evaluation": {"val": val},
            }
        },
        "pretrain": {"base": {"train": {"steps": 2}}},
        "experiments": {"dars": {"policy": "dars", "rounds": [{"portion": 0.2}, {"portion": 0.5}]}},
    }


@pytest.fixture
def run(tmp_path: Path, data: dict[str, Path]) -> Callable[..., Any]:
    """Trains on the files of a module's `data`, in a folder of its own below `tmp_path`, and returns its files."""
    import tiny  # not above: it brings torch

    from selftrain.train.stage import train

    def train_in(name: str, settings: Any, **inputs: Any) -> Any:
        paths = tiny.outputs(tmp_path / name, **data | inputs)
        train(settings, paths, tiny.NOW)
        return paths

    return train_in


@pytest.fixture
def refused(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that is to fail; returns its one message, in which all of `told` must be."""
    from refusals import refusing  # not above: it brings torch

    return partial(refusing, caplog, tmp_path)


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder in which the whole graph has run on tiny data, and its jobs."""
    from finished_run import run_all  # not above: it brings torch

    return run_all(tmp_path_factory.mktemp("ran"))


@pytest.fixture
def results(ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which a case runs."""
    shutil.copytree(ran[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".finished"))
    monkeypatch.chdir(tmp_path / "copy")
    return Path("results/toy")
