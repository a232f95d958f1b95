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
from selftrain.settings.prediction import ScoreSettings


def score(settings: ScoreSettings, pseudo_labels: Path, truth: Path, output: Path) -> None:
    """Write per class how many pseudo-labeled pixels have a truth, and what share of them is right.

    Columns: `class`, `pixels`, `correct`, `accuracy`; the first row, without a class, is over all.
    """
    classes = settings.truth.classes
    table = read_images(truth)
    labels = PseudoLabels(pseudo_labels)
    if list(labels.names) != table.image.to_list():
        raise UserError(f"{pseudo_labels}: its images are not those of {truth}; make it again")
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for position, file in enumerate(table.label_file):
        predicted = labels.label(position)
        matrix += confusion(read_label(file, settings.truth, predicted.shape), predicted, len(classes))
    pixels, correct = matrix.sum(0), np.diag(matrix)
    rows = pd.DataFrame(
        {
            "class": ["", *classes],
            "pixels": [pixels.sum(), *pixels],
            "correct": [correct.sum(), *correct],
        }
    )
    rows["accuracy"] = rows.correct / rows.pixels.where(rows.pixels > 0)
    artifacts.write_csv(output, rows)
