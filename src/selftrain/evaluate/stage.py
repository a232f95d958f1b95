"""The evaluate stage: what a model gets right on every evaluation split, at the labels' own size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from selftrain import artifacts, memory
from selftrain.behind import Behind
from selftrain.data.images import MORE_READERS, batched
from selftrain.data.reading import read_label
from selftrain.data.tables import read_images, working_sizes
from selftrain.devices import leased_device
from selftrain.evaluate.groups import read_groups
from selftrain.evaluate.scores import confusion
from selftrain.evaluate.sizes import OCTAVES, by_size, size_table
from selftrain.evaluate.tables import confusion_table, metrics_table
from selftrain.predict.forward import Pending, Predictor, load_predictor
from selftrain.progress import followed
from selftrain.settings.prediction import EvaluatedSplit, EvaluateStageSettings


@memory.telling(memory.IN_PREDICTION)
def evaluate(
    settings: EvaluateStageSettings,
    model: Path,
    images: dict[str, Path],
    labeled: Path,
    confusion_csv: Path,
    metrics_csv: Path,
    sizes_csv: Path,
    *,
    threads: int = 1,
) -> None:
    """Write confusion.csv, metrics.csv, which follows from it, and sizes.csv.

    Args:
        settings: how to read each split and how to predict.
        model: a model file.
        images: images.csv per evaluation split.
        labeled: classes.csv of the labeled split, which tells frequent classes and large ones.
        confusion_csv: see `confusion_table`.
        metrics_csv: see `metrics_table`.
        sizes_csv: see `size_table`.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    classes = next(iter(settings.splits.values())).read.classes
    groups = read_groups(labeled, classes, settings.groups)
    with leased_device() as device:
        predictor = load_predictor(model, settings.evaluation, device, classes=classes, seed=settings.seed)
        counted = {
            name: evaluate_split(predictor, device, read_images(images[name]), split, settings.batch_size, threads)
            for name, split in settings.splits.items()
        }
    matrices = {name: matrix for name, (matrix, _) in counted.items()}
    pairs = [confusion_table(name, classes, matrix) for name, matrix in matrices.items()]
    scores = [metrics_table(name, classes, matrix, settings.subsets, groups) for name, matrix in matrices.items()]
    artifacts.write_csv(confusion_csv, pd.concat(pairs))
    artifacts.write_csv(metrics_csv, pd.concat(scores))
    artifacts.write_csv(sizes_csv, pd.concat([size_table(name, classes, of) for name, (_, of) in counted.items()]))


def evaluate_split(
    predictor: Predictor,
    device: torch.device,
    table: pd.DataFrame,
    split: EvaluatedSplit,
    batch_size: int,
    readers: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Of one split the confusion matrix, int64 (C, C), rows are the truth, and `by_size`, summed over images."""
    read, classes = split.read, len(split.read.classes)
    matrix = np.zeros((classes, classes), np.int64)
    objects = np.zeros((classes, OCTAVES, 3), np.int64)
    sizes = working_sizes(table, split.score_size)

    def score(positions: Sequence[int], names: Sequence[str], pending: Pending) -> None:
        with pending.awaited(names) as decided:
            masks = decided.classes.cpu().numpy()
        for mask, position in zip(masks, positions, strict=True):
            truth = read_label(table.label_file.iloc[position], read, sizes[position])
            matrix[:] += confusion(truth, mask, classes)
            objects[:] += by_size(truth, mask, classes)

    with Behind() as behind:
        batches = batched(table, read.size, batch_size, range(len(table)), read.pixels, readers)
        for batch in followed(batches, "evaluate", len(table), size=len, remedy=MORE_READERS):
            pixels = batch.on(device)
            for size, group in groupby(enumerate(batch.positions), key=lambda pair: sizes[pair[1]]):
                places, positions = zip(*group, strict=True)
                names = [table.image.iloc[position] for position in positions]
                behind(score, positions, names, predictor(pixels[list(places)], names, size))
    return matrix, objects
