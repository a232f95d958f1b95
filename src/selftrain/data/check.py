"""Verifies every file of a task and tells all problems at once, before anything is trained."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from selftrain import artifacts
from selftrain.ahead import mapped
from selftrain.data import datasets
from selftrain.data.listing import Item, find
from selftrain.data.reading import check_ids, read_image, read_raw_label
from selftrain.errors import UserError, by_problem
from selftrain.progress import followed
from selftrain.settings.data import CheckSettings, ListSettings, ReadSettings

log = logging.getLogger(__name__)


Contents = dict[bytes, str]
"""An image file by the digest of its pixels."""


@dataclass(frozen=True)
class Seen:
    """What decoding one image and its label has shown."""

    pixels: bytes | None
    """A digest of the decoded pixels, the same whatever the file's name, format or metadata."""
    problems: list[str]


def check(settings: CheckSettings, output: Path | None = None, threads: int = 2) -> pd.DataFrame:
    """Decode every image and label of a task; return (and write) how many images each split has.

    Raises:
        UserError: naming every file that is missing, broken, of the wrong kind, size or ids, every stem that is
            there twice, every image that is trained on with labels and evaluated on, every empty split, and every
            evaluation split that is the unlabeled one, unless that is meant.
    """
    told: list[tuple[str, str]] = []
    counts: dict[str, int] = {}
    splits: dict[str, Contents] = {}
    for name, split in settings.splits.items():
        items, wrong = find(split.list)
        _warn_of_count(split.list, len(items))
        counts[name], splits[name] = len(items), {}
        looked = zip(items, mapped(partial(look, settings=split.read), items, threads), strict=True)
        for item, seen in followed(looked, f"check {name}", len(items)):
            wrong += seen.problems
            if seen.pixels is not None:
                splits[name][seen.pixels] = str(item.image)
        told += [(name, problem) for problem in wrong]
    problems = by_problem(told) + _leaks(splits) + ([] if settings.transductive else _same(splits))
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UserError("\n  ".join([f"task '{settings.task}': {count} with the data", *problems]))
    table = pd.DataFrame([{"split": name, "images": count} for name, count in counts.items()])
    if output is not None:
        artifacts.write_csv(output, table)
    return table


def _warn_of_count(settings: ListSettings, images: int) -> None:
    """A data set that is not whole: parts drawn of it are others than of the published one."""
    if settings.dataset is None:
        return
    published = datasets.published_count(settings.dataset)
    drawn = settings.draw.of(published) if settings.draw is not None else published
    wanted = published - drawn if settings.draw is not None and settings.draw.rest else drawn
    if images not in (0, wanted):
        split = f"{settings.dataset.name} {settings.dataset.split or ''}".strip()
        log.warning("%s: %d images, where %d are published", split, images, wanted)


def look(item: Item, settings: ReadSettings) -> Seen:
    """Decode an image and its label and tell everything that keeps them from being read."""
    problems: list[str] = []
    pixels = None
    with _telling(problems):
        image = read_image(item.image, pixels=settings.pixels)
        pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()[:16]
    if item.label is not None:
        with _telling(problems):
            label = read_raw_label(item.label, settings.label_channel, settings.pixels)
            if pixels is not None and label.shape != image.shape[:2] and not settings.stretch_labels:
                problems.append(f"{item.label}: label of {_size(label)}, its image is {_size(image)}")
            check_ids(item.label, label, settings)
    return Seen(pixels, problems)


@contextmanager
def _telling(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        problems.append(str(error))


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]}×{array.shape[1]}"


def _leaks(splits: dict[str, Contents]) -> list[str]:
    """Images of the labeled split that are evaluated or calibrated on too, by content; unlabeled ones only warn."""
    _warn_of_calibration(splits)
    trained = {name: splits.get(name, {}) for name in ("labeled", "unlabeled")}
    found: dict[str, list[str]] = {name: [] for name in trained}
    for name in splits.keys() - {*trained, "truth"}:
        for pixels, image in splits[name].items():
            for split in trained:
                if pixels in trained[split] and (split, name) != ("unlabeled", "calibration"):
                    found[split].append(f"{name}: {image} is in the {split} split too ({trained[split][pixels]})")
    if found["unlabeled"]:
        log.warning(
            "%d images are both unlabeled and evaluated on (a transductive setting), such as %s",
            len(found["unlabeled"]),
            min(found["unlabeled"]),
        )
    return sorted(found["labeled"])


def _same(splits: dict[str, Contents]) -> list[str]:
    """Evaluation splits with the very images of the unlabeled one."""
    unlabeled = set(splits.get("unlabeled", ()))
    names = splits.keys() - {"labeled", "unlabeled", "truth", "calibration"}
    told = (
        "has the images of the unlabeled split, all of them and no others; give images that nothing is learned from, "
    )
    return [
        f"{name}: {told}or say `transductive: true` in the task"
        for name in sorted(names)
        if unlabeled and set(splits[name]) == unlabeled
    ]


def _warn_of_calibration(splits: dict[str, Contents]) -> None:
    """Labels that calibrators are fitted on are no test of them, and those of unlabeled images are not held out."""
    fitted = splits.get("calibration", {})
    for name in [name for name in splits if name not in ("calibration", "labeled", "truth")]:
        both = sorted(image for pixels, image in splits[name].items() if pixels in fitted)
        if both and name == "unlabeled":
            log.warning("%d unlabeled images are in the calibration split with labels, such as %s", len(both), both[0])
        elif both:
            told = "%s: %d images are in the calibration split too, such as %s: it is measured on what it was fitted to"
            log.warning(told, name, len(both), both[0])
