"""The calibrate stage: a calibrator of one model, fitted on held-out labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from selftrain import artifacts, memory, registry
from selftrain.calibrate.calibrator import FORMAT, VERSION
from selftrain.calibrate.logits import Seen, labeled_logits
from selftrain.devices import leased_device
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.settings.calibration import CalibrateSettings
from selftrain.settings.data import IGNORE
from selftrain.settings.prediction import EvaluatedSplit

log = logging.getLogger(__name__)


@memory.telling(memory.IN_PREDICTION)
def calibrate(settings: CalibrateSettings, model: Path, images: Path, output: Path, *, threads: int = 1) -> None:
    """Write calibrator.json: name, settings, classes, the model's digest, labeled pixels and those used, parameters.

    Args:
        settings: which calibrator, and how to read the calibration split.
        model: a model file.
        images: images.csv of the calibration split.
        output: the calibrator.
        threads: CPU threads.

    Raises:
        UserError: the model is of other classes, or nothing is labeled.
    """
    torch.set_num_threads(threads)
    told, classes = settings.calibration, settings.read.classes
    with leased_device() as device:
        network, about = files.load(model)
        if tuple(about["classes"]) != classes:
            raise UserError(f"{model}: made for the classes {about['classes']}, not {list(classes)}")
        split = EvaluatedSplit(read=settings.read)
        seen = labeled_logits(network.to(device), device, images, split, settings.batch_size)
        shown = np.zeros(len(classes), np.int64)
        kind = registry.load(registry.CALIBRATORS, told.name)
        calibrator, pixels = kind.fitted(told, _counted(seen, shown), len(classes), settings.seed)
    absent = [name for name, count in zip(classes, shown, strict=True) if not count]
    if absent:
        log.warning("the calibration split shows no %s; what is said of it is a guess", ", ".join(absent))
    artifacts.write_json(
        output,
        {
            "format": FORMAT,
            "version": VERSION,
            "name": told.name,
            "settings": told.model_dump(mode="json"),
            "classes": classes,
            "model": artifacts.digest_file(model),
            "labeled_pixels": int(shown.sum()),
            "pixels": pixels,
            "parameters": calibrator.parameters(),
        },
    )


def _counted(images: Iterable[Seen], shown: np.ndarray) -> Iterator[Seen]:
    """The images, their labeled pixels added to those `shown` of each class, int64 (C,)."""
    for image in images:
        shown += np.bincount(image.label.ravel(), minlength=IGNORE + 1)[: len(shown)]
        yield image
