"""The files of a training, and what an algorithm is given of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selftrain.data.tables import read_classes, read_images
from selftrain.errors import UserError
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.settings.training import TrainStageSettings
from selftrain.train.algorithms import Given
from selftrain.train.class_weights import class_weights

INPUTS = ("labeled", "start", "weights", "unlabeled", "pseudo_labels", "distribution", "statistics")
OUTPUTS = ("examples", "table", "manifest", "model")


@dataclass(frozen=True)
class TrainFiles:
    """What a training reads and writes."""

    labeled: Path
    """images.csv of the labeled split."""
    model: Path
    table: Path
    manifest: Path
    resume: Path
    """The folder of all resume states."""
    start: Path | None = None
    """Weights to start from."""
    weights: Path | None = None
    """The encoder's weights, where the settings name a file."""
    unlabeled: Path | None = None
    """images.csv of the unlabeled split."""
    pseudo_labels: Path | None = None
    distribution: Path | None = None
    """classes.csv, whose shares an algorithm aligns with."""
    statistics: Path | None = None
    """classes.csv of the labels that are learned, where a rule makes class weights of it."""
    examples: Path | None = None
    """Where the examples of an algorithm that learns from unlabeled images are written to."""
    finished: Path | None = None
    """The folder where results are kept until a run has ended well, if they are."""

    def inputs(self) -> dict[str, Path | None]:
        """Every file whose content the result depends on."""
        return {name: getattr(self, name) for name in INPUTS}

    def outputs(self) -> dict[str, Path]:
        """Every file that is written."""
        written = {name: getattr(self, name) for name in OUTPUTS}
        return {name: path for name, path in written.items() if path is not None}


def counted(paths: TrainFiles) -> dict[str, int]:
    """How many images there are in the splits that a training sees."""
    tables = {"labeled": paths.labeled, "unlabeled": paths.unlabeled}
    return {name: len(read_images(table)) for name, table in tables.items() if table is not None}


def given(
    settings: TrainStageSettings, paths: TrainFiles, pseudo_labels: PseudoLabels | None, device: torch.device
) -> Given:
    """What the algorithm is built from."""
    weights = _class_weights(settings, paths)
    mean_size = None if pseudo_labels is None else torch.tensor(pseudo_labels.cut["mean_size"].to_numpy(np.float32))
    return Given(
        len(settings.labeled.classes),
        class_weights=None if weights is None else torch.tensor(weights, device=device),
        focal=settings.train.focal,
        mean_size=None if mean_size is None else mean_size.to(device),
        distribution=_distribution(settings, paths, device),
        place=(settings.seed, settings.round),
        pseudo_labels=pseudo_labels,
    )


def _class_weights(settings: TrainStageSettings, paths: TrainFiles) -> list[float] | None:
    told, classes = settings.train.class_weights, settings.labeled.classes
    if told is None:
        return None
    statistics = None if paths.statistics is None else read_classes(paths.statistics, classes)
    return class_weights(told, classes, statistics, len(read_images(paths.labeled)))


def _distribution(settings: TrainStageSettings, paths: TrainFiles, device: torch.device) -> Tensor | None:
    """The class shares to align with: given as numbers, or those of a labeled split."""
    target = getattr(getattr(settings.algorithm, "alignment", None), "target", None)
    if target is None:
        return None
    if isinstance(target, str) and paths.distribution is None:
        raise UserError(f"algorithm.alignment.target: '{target}' needs the classes.csv of that split")
    if paths.distribution is not None:
        target = read_classes(paths.distribution, settings.labeled.classes).share
    shares = torch.tensor(target, dtype=torch.float32)
    return (shares / shares.sum()).to(device)
