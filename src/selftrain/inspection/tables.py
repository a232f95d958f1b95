"""Tables among the artifacts, told by their columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from selftrain.alarms import kinds, signs
from selftrain.calibrate import CALIBRATION_COLUMNS, RELIABILITY_COLUMNS
from selftrain.data.review import CHECKED
from selftrain.data.tables import CLASS_COLUMNS as CLASSES
from selftrain.data.tables import COLUMNS as IMAGES
from selftrain.evaluate.scores import iou
from selftrain.evaluate.tables import CONFUSION, METRICS, SCORES, SIZES, read_confusion
from selftrain.label.pseudo_labels import CLASS_COLUMNS
from selftrain.report import summary
from selftrain.select import cut

BY_NAME = {
    "classes": CLASSES,
    "images": IMAGES,
    "checked": ["split", "images"],
    "review": list(CHECKED),
    "cut": list(cut.COLUMNS),
    "signs": signs.COLUMNS,
    "alarms": kinds.COLUMNS,
    "pseudo_labels": CLASS_COLUMNS,
    "pseudo_label_scores": SCORES,
    "calibration": CALIBRATION_COLUMNS,
    "reliability": RELIABILITY_COLUMNS,
    "confusion": CONFUSION,
    "metrics": METRICS,
    "sizes": SIZES,
    "summary": summary.COLUMNS,
}


def kind_of(path: Path) -> str | None:
    """Which table a file is, by its first line: a name of `BY_NAME`, 'train', whose columns differ, or none."""
    with path.open("rb") as file:
        columns = file.readline(10_000).decode(errors="replace").strip().split(",")
    if columns[0] == "step" and "images_per_second" in columns:
        return "train"
    return next((name for name, known in BY_NAME.items() if columns == known), None)


def of_confusion(path: Path) -> pd.DataFrame:
    """Per split and class: pixels of the truth, IoU, recall, precision, and the class that it is most taken for, with
    the share of its pixels that this takes."""
    classes, matrices = read_confusion(path)
    return pd.concat([_of_matrix(split, classes, matrix) for split, matrix in matrices.items()], ignore_index=True)


def _of_matrix(split: str, classes: tuple[str, ...], matrix: np.ndarray) -> pd.DataFrame:
    right, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    wrong = matrix - np.diag(right)
    some = np.where(truth > 0, truth, np.nan)
    names = np.array(classes, dtype=object)
    return pd.DataFrame(
        {
            "split": split,
            "class": classes,
            "pixels": truth,
            "iou": iou(matrix),
            "recall": right / some,
            "precision": right / np.where(predicted > 0, predicted, np.nan),
            "taken_for": np.where(wrong.any(1), names[wrong.argmax(1)], ""),
            "taken_for_share": wrong.max(1) / some,
        }
    )
