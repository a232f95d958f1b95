"""The evaluate stage: the confusion matrix of a model on every evaluation split, at the labels' own size."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from selftrain import artifacts
from selftrain.data.reading import read_label
from selftrain.data.tables import read_images, working_sizes
from selftrain.devices import leased_device
from selftrain.evaluate.scores import confusion, iou, miou, pixel_accuracy
from selftrain.predict.forward import Predictor, load_predictor
from selftrain.predict.images import batched
from selftrain.settings.prediction import EvaluatedSplit, EvaluateStageSettings


def evaluate(
    settings: EvaluateStageSettings,
    model: Path,
    images: dict[str, Path],
    confusion_csv: Path,
    metrics_csv: Path,
    *,
    threads: int = 1,
) -> None:
    """Write confusion.csv (split, truth, prediction, pixels) and metrics.csv (split, metric, class, value, pixels).

    Args:
        settings: how to read each split and how to predict.
        model: a model file.
        images: images.csv per evaluation split.
        confusion_csv: every pair of classes, also those without pixels.
        metrics_csv: `miou`, `pixel_accuracy`, one `iou` per class and one `subset_miou` per subset, whose name stands
            as the class.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    with leased_device():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        classes = next(iter(settings.splits.values())).read.classes
        predictor = load_predictor(model, settings.evaluation, device, classes=classes, seed=settings.seed)
        matrices = {
            name: evaluate_split(predictor, device, read_images(images[name]), split, settings.batch_size)
            for name, split in settings.splits.items()
        }
    artifacts.write_csv(confusion_csv, pd.concat([_long(name, settings, matrices[name]) for name in matrices]))
    artifacts.write_csv(metrics_csv, pd.concat([metrics(name, settings, matrices[name]) for name in matrices]))


def evaluate_split(
    predictor: Predictor, device: torch.device, table: pd.DataFrame, split: EvaluatedSplit, batch_size: int
) -> np.ndarray:
    """The confusion matrix of one split, int64 (C, C), rows are the truth."""
    read, classes = split.read, len(split.read.classes)
    matrix = np.zeros((classes, classes), np.int64)
    sizes = working_sizes(table, split.score_size)
    for batch in batched(table, read.size, batch_size, range(len(table)), read.pixels):
        pixels = batch.pixels.to(device)
        for size, group in groupby(enumerate(batch.positions), key=lambda pair: sizes[pair[1]]):
            members = list(group)
            chosen = pixels[[at for at, _ in members]]
            names = [table.image.iloc[position] for _, position in members]
            predicted = predictor(chosen, names, size).classes.cpu().numpy()
            for mask, (_, position) in zip(predicted, members, strict=True):
                truth = read_label(table.label_file.iloc[position], read, size)
                matrix += confusion(truth, mask, classes)
    return matrix


def _long(split: str, settings: EvaluateStageSettings, matrix: np.ndarray) -> pd.DataFrame:
    classes = settings.splits[split].read.classes
    truth, predicted = np.indices(matrix.shape).reshape(2, -1)
    names = np.array(classes)
    return pd.DataFrame(
        {"split": split, "truth": names[truth], "prediction": names[predicted], "pixels": matrix.ravel()}
    )


def metrics(split: str, settings: EvaluateStageSettings, matrix: np.ndarray) -> pd.DataFrame:
    """One row per class and one per mean: split, metric, class, value, pixels of the truth."""
    classes = settings.splits[split].read.classes
    rows = [("miou", "", miou(matrix), matrix.sum()), ("pixel_accuracy", "", pixel_accuracy(matrix), matrix.sum())]
    rows += [
        ("iou", name, value, pixels) for name, value, pixels in zip(classes, iou(matrix), matrix.sum(1), strict=True)
    ]
    for name, subset in settings.subsets.items():
        chosen = np.isin(classes, subset.classes)
        counted = matrix if subset.others == "counted" else matrix * chosen[:, None]
        rows.append(("subset_miou", name, miou(counted, chosen), matrix[chosen].sum()))
    table = pd.DataFrame(rows, columns=["metric", "class", "value", "pixels"])
    table.insert(0, "split", split)
    return table
