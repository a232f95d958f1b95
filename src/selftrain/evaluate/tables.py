"""confusion.csv and metrics.csv: the matrices of a model's splits as a table, and all scores that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from selftrain.errors import UserError
from selftrain.evaluate.groups import Groups
from selftrain.evaluate.scores import iou, miou, pixel_accuracy, subset_miou
from selftrain.settings.data import SubsetSettings
from selftrain.written import read_table

CONFUSION = ["split", "truth", "prediction", "pixels"]
METRICS = ["split", "metric", "class", "value", "pixels"]
SIZES = ["split", "class", "lower", "upper", "objects", "pixels", "correct"]
SCORES = ["class", "pixels", "correct", "accuracy", "weak_precision", "weak_recall"]
"""Columns of what evaluation writes; `SCORES` of pseudo-labels."""


def confusion_table(split: str, classes: Sequence[str], matrix: np.ndarray) -> pd.DataFrame:
    """One row per pair of classes, also those without pixels: split, truth, prediction, pixels."""
    truth, predicted = np.indices(matrix.shape).reshape(2, -1)
    names = np.array(classes)
    return pd.DataFrame(
        {"split": split, "truth": names[truth], "prediction": names[predicted], "pixels": matrix.ravel()}
    )


def read_confusion(path: Path | str) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The classes of a confusion.csv, and the matrix of each split, int64 (C, C), rows are the truth.

    Raises:
        UserError: it is missing, another table, or not whole.
    """
    table = read_table(path, CONFUSION, "give a confusion.csv, or evaluate the model again")
    classes = tuple(table.truth.unique())
    matrices = {}
    for split, of in table.groupby("split", sort=False):
        pairs = [(truth, predicted) for truth in classes for predicted in classes]
        if list(zip(of.truth, of.prediction, strict=True)) != pairs:
            raise UserError(f"{path}: split '{split}' has not every pair of classes once; evaluate the model again")
        matrices[str(split)] = of.pixels.to_numpy().reshape(len(classes), -1)
    return classes, matrices


def metrics_table(
    split: str,
    classes: Sequence[str],
    matrix: np.ndarray,
    subsets: Mapping[str, SubsetSettings],
    groups: Groups,
) -> pd.DataFrame:
    """One row per mean and one per class: split, metric, class, value, pixels of the truth.

    The metrics are `miou`, `pixel_accuracy`, an `iou` per class, a `subset_miou` per subset and a `group_miou` per
    group of classes, the name of either standing as the class.
    """
    total = matrix.sum()
    rows = [("miou", "", miou(matrix), total), ("pixel_accuracy", "", pixel_accuracy(matrix), total)]
    rows += [
        ("iou", name, value, pixels) for name, value, pixels in zip(classes, iou(matrix), matrix.sum(1), strict=True)
    ]
    for name, subset in subsets.items():
        chosen = np.isin(classes, subset.classes)
        value = subset_miou(matrix, chosen, others=subset.others == "counted")
        rows.append(("subset_miou", name, value, matrix[chosen].sum()))
    for name, members in groups.items():
        chosen = np.isin(classes, members)
        rows.append(("group_miou", name, subset_miou(matrix, chosen), matrix[chosen].sum()))
    table = pd.DataFrame(rows, columns=METRICS[1:])
    table.insert(0, "split", split)
    return table
