"""Scores from a confusion matrix: everything that can be computed again without the model."""

from __future__ import annotations

import numpy as np


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true class (rows) and predicted class (columns), int64 (C, C); no pixel counts that has no class.

    Args:
        truth: uint8, any shape, 255 is ignore.
        predicted: uint8, the same shape.
        classes: how many there are.
    """
    valid = (truth < classes) & (predicted < classes)
    pairs = truth[valid].astype(np.int64) * classes + predicted[valid]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union per class; NaN for a class that is neither there nor predicted."""
    hits = np.diag(matrix).astype(float)
    union = matrix.sum(0) + matrix.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(matrix), np.nan), where=union > 0)


def miou(matrix: np.ndarray, chosen: np.ndarray | None = None) -> float:
    """Mean IoU over the classes that have one; of the chosen ones, bool (C,), where they are given."""
    values = iou(matrix) if chosen is None else iou(matrix)[chosen]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def subset_miou(matrix: np.ndarray, chosen: np.ndarray, *, others: bool = True) -> float:
    """Mean IoU over the chosen classes, bool (C,).

    Args:
        matrix: the confusion matrix.
        chosen: which classes.
        others: whether pixels whose true class is another count, for the union of what they are taken for.
    """
    return miou(matrix if others else matrix * chosen[:, None], chosen)


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Share of the pixels with a true class that were given it."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else float("nan")
