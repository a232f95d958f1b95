"""What changed from one round's labels, or predictions, to another's: pixel by pixel, told by class or by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from selftrain.errors import UserError
from selftrain.inspection.artifact import kind_of
from selftrain.label import pseudo_labels
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.predict import store
from selftrain.predict.store import Predictions


class Labels(NamedTuple):
    """The classes of pixels, whatever file they are in."""

    classes: Sequence[str]
    names: Sequence[str]
    shapes: np.ndarray
    """Height and width of each image, (N, 2)."""
    read: Callable[[int], np.ndarray]
    """Of the image at a position, uint8 (h, w), 255 where there is none."""


def difference(before: Path, after: Path, *, images: bool = False) -> pd.DataFrame:
    """Which pixels changed their class.

    Args:
        before: pseudo_labels.h5 or a shard of predictions.
        after: the same of the same images.
        images: a row per image instead of one per class.

    Returns:
        Per class its pixels `before` and `after`, and of those before how many are the `same`, `dropped` (of no class
        now) and `left` for other classes, most of them for the class `mostly_to`; of those after how many were `added`
        (of no class before) or `came` from other classes. Per image the pixels that are the `same`, `changed` (another
        class), `added`, `dropped`, and `changed_share`, of all that have a class in both.

    Raises:
        UserError: files of other kinds, images, sizes or classes.
    """
    with ExitStack() as stack:
        one, two = (_read(path, stack) for path in (before, after))
        _compare(one, two, before, after)
        none = len(one.classes)
        total, rows = np.zeros((none + 1, none + 1), np.int64), []
        for position, name in enumerate(one.names):
            moved = transitions(one.read(position), two.read(position), none)
            total += moved
            rows.append({"image": name} | _of_image(moved))
    return pd.DataFrame(rows) if images else _by_class(one.classes, total)


def _compare(one: Labels, two: Labels, before: Path, after: Path) -> None:
    """Raise a UserError where there is nothing to compare pixel by pixel."""
    if list(one.classes) != list(two.classes):
        raise UserError(f"{after}: of the classes {list(two.classes)}, not {list(one.classes)} as {before}")
    if list(one.names) != list(two.names):
        raise UserError(f"{after}: its images are not those of {before}")
    others = np.flatnonzero((one.shapes != two.shapes).any(1))
    if len(others):
        sizes = [" × ".join(map(str, of.shapes[others[0]])) for of in (two, one)]
        raise UserError(f"{after}: '{one.names[others[0]]}' is {sizes[0]}, not {sizes[1]} as in {before}")


def transitions(before: np.ndarray, after: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by their class before and after, int64 (C + 1, C + 1); the last row and column are of no class."""
    pairs = np.minimum(before, classes).astype(np.intp) * (classes + 1) + np.minimum(after, classes)
    return np.bincount(pairs.ravel(), minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)


def _read(path: Path, stack: ExitStack) -> Labels:
    kind = kind_of(path)
    if kind == pseudo_labels.FORMAT.name:
        labels = PseudoLabels(path)
        return Labels(labels.class_names, labels.names, labels.shapes, labels.label)
    if kind == store.FORMAT.name:
        predictions = stack.enter_context(Predictions(path))
        return Labels(predictions.classes, predictions.images, predictions.shapes, predictions.read_classes)
    raise UserError(f"{path}: has no classes of pixels to compare; give pseudo_labels.h5 or shards of predictions")


def _of_image(moved: np.ndarray) -> dict[str, float]:
    both, same = int(moved[:-1, :-1].sum()), int(moved.diagonal()[:-1].sum())
    return {
        "same": same,
        "changed": both - same,
        "added": int(moved[-1, :-1].sum()),
        "dropped": int(moved[:-1, -1].sum()),
        "changed_share": (both - same) / max(1, both),
    }


def _by_class(classes: Sequence[str], moved: np.ndarray) -> pd.DataFrame:
    within, same = moved[:-1, :-1], moved.diagonal()[:-1]
    others = within - np.diag(same)
    names = np.array(classes, dtype=object)
    return pd.DataFrame(
        {
            "class": classes,
            "before": moved[:-1].sum(1),
            "after": moved[:, :-1].sum(0),
            "same": same,
            "dropped": moved[:-1, -1],
            "left": others.sum(1),
            "mostly_to": np.where(others.any(1), names[others.argmax(1)], ""),
            "added": moved[-1, :-1],
            "came": others.sum(0),
        }
    )
