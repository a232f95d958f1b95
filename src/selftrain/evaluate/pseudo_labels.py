"""Scores of pseudo-labels against hidden truth: for the reader of the summary, never for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from selftrain import artifacts
from selftrain.data.reading import read_label
from selftrain.data.tables import read_images
from selftrain.errors import UserError
from selftrain.evaluate.scores import confusion
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.progress import followed
from selftrain.settings.data import IGNORE
from selftrain.settings.prediction import ScoreSettings


def score(settings: ScoreSettings, pseudo_labels: Path, truth: Path, output: Path) -> None:
    """Write per class how right the pseudo-labels are, the first row, without a class, over all.

    Columns: `class`; `pixels`, the pseudo-labeled ones that have a truth; `correct` of them, and their share,
    `accuracy`; where there are weak labels their `weak_precision` and `weak_recall`, an image showing every class that
    its truth has a pixel of. A share of nothing is empty.
    """
    classes = settings.truth.classes
    table = read_images(truth)
    labels = PseudoLabels(pseudo_labels)
    if list(labels.names) != table.image.to_list():
        raise UserError(f"{pseudo_labels}: its images are not those of {truth}; make it again")
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    shown = np.zeros((len(labels), len(classes)), bool)
    for position, file in enumerate(followed(table.label_file, "score", len(table))):
        predicted = labels.label(position)
        true = read_label(file, settings.truth, predicted.shape)
        matrix += confusion(true, predicted, len(classes))
        shown[position] = np.bincount(true.ravel(), minlength=IGNORE + 1)[: len(classes)] > 0
    pixels, correct = matrix.sum(0), np.diag(matrix)
    rows = pd.DataFrame(
        {
            "class": ["", *classes],
            "pixels": [pixels.sum(), *pixels],
            "correct": [correct.sum(), *correct],
        }
    )
    rows["accuracy"] = rows.correct / rows.pixels.where(rows.pixels > 0)
    weak = np.full_like(shown, False) if labels.weak_labels is None else labels.weak_labels > 0
    right = _over_all_and_each(weak & shown)
    for column, of in (("weak_precision", weak), ("weak_recall", shown)):
        total = _over_all_and_each(of)
        rows[column] = np.nan if labels.weak_labels is None else right / np.where(total > 0, total, np.nan)
    artifacts.write_csv(output, rows)


def _over_all_and_each(marks: np.ndarray) -> np.ndarray:
    """How many of (N, C) are marked: in all, then per class."""
    return np.array([marks.sum(), *marks.sum(0)])
