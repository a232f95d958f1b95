"""How far a model's probabilities can be trusted, before and after calibration: ECE and reliability by bin."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from selftrain import artifacts, memory
from selftrain.calibrate import CALIBRATION_COLUMNS, RELIABILITY_COLUMNS
from selftrain.calibrate.calibrator import Calibrator, read_calibrator
from selftrain.calibrate.logits import labeled_logits
from selftrain.devices import leased_device
from selftrain.models import files
from selftrain.models.top import top_classes
from selftrain.settings.data import IGNORE
from selftrain.settings.prediction import ReliabilitySettings

BINS = 15
"""Of equal width, of the top class's probability (Guo et al. 2017, section 2)."""


@memory.telling(memory.IN_PREDICTION)
def measure(
    settings: ReliabilitySettings,
    model: Path,
    calibrator: Path,
    images: dict[str, Path],
    reliability_csv: Path,
    calibration_csv: Path,
    *,
    threads: int = 1,
) -> None:
    """Write how reliable a model's probabilities are on each split, without its calibrator and with it.

    Args:
        settings: how to read each split.
        model: a model file.
        calibrator: what was fitted to it.
        images: images.csv per split.
        reliability_csv: a row per split, `calibrated` (before, after) and bin of the top class's probability: its
            `pixels`, and their mean `accuracy` and `confidence`.
        calibration_csv: a row per split and `calibrated`: `ece`, `nll` (nats a pixel), `accuracy`, `pixels`.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    bins, scores = [], []
    with leased_device() as device:
        network, about = files.load(model)
        network.to(device)
        fitted = read_calibrator(calibrator, settings.calibration, artifacts.digest_file(model), about["classes"])
        for name, split in settings.splits.items():
            counts = {"before": Reliability(), "after": Reliability()}
            for seen in labeled_logits(network, device, images[name], split, settings.batch_size):
                counts["before"].see(seen.logits.log_softmax(0), seen.label)
                counts["after"].see(log_probabilities(fitted, seen.logits), seen.label)
            for calibrated, count in counts.items():
                bins.append(count.table().assign(split=name, calibrated=calibrated))
                scores.append({"split": name, "calibrated": calibrated, **count.scores()})
    artifacts.write_csv(reliability_csv, pd.concat(bins)[RELIABILITY_COLUMNS])
    artifacts.write_csv(calibration_csv, pd.DataFrame(scores)[CALIBRATION_COLUMNS])


def log_probabilities(calibrator: Calibrator, logits: Tensor) -> Tensor:
    """Logarithms of calibrated probabilities, of logits (C, H, W)."""
    calibrated = calibrator.logits(logits[None])
    if calibrator.of_probabilities:
        return calibrator.probabilities(calibrated.softmax(1))[0].log()
    return calibrated[0].log_softmax(0)


class Reliability:
    """Counts labeled pixels by the probability of their top class, an image at a time."""

    def __init__(self) -> None:
        self.pixels, self.correct = np.zeros((2, BINS), np.int64)
        self.confidence, self.loss = np.zeros(BINS), 0.0

    def see(self, logs: Tensor, label: np.ndarray) -> None:
        """Count an image: float32 (C, H, W), logarithms of probabilities; uint8 (H, W), 255 is ignore."""
        valid, classes = label != IGNORE, top_classes(logs[None])[0]
        truth = torch.from_numpy(label).to(logs.device).long().clamp(max=len(logs) - 1)
        of_truth = logs.gather(0, truth[None])[0].cpu().numpy()[valid].astype(float)
        top = np.exp(logs.amax(0).cpu().numpy()[valid].astype(float))
        correct = classes.cpu().numpy()[valid] == label[valid]
        bins = np.minimum((top * BINS).astype(int), BINS - 1)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.correct += np.bincount(bins[correct], minlength=BINS)
        self.confidence += np.bincount(bins, top, minlength=BINS)
        self.loss -= float(of_truth.sum())

    def table(self) -> pd.DataFrame:
        """A row per bin: lower, upper, pixels, accuracy, confidence; of a bin without pixels the last two are empty."""
        edges = np.arange(BINS + 1) / BINS
        some = np.where(self.pixels > 0, self.pixels, np.nan)
        return pd.DataFrame(
            {
                "lower": edges[:-1],
                "upper": edges[1:],
                "pixels": self.pixels,
                "accuracy": self.correct / some,
                "confidence": self.confidence / some,
            }
        )

    def scores(self) -> dict[str, float]:
        """ECE (Guo et al. 2017, eq. 3), negative log-likelihood in nats a pixel, accuracy, pixels."""
        total = int(self.pixels.sum())
        some = total or math.nan
        gaps = np.abs(self.correct - self.confidence).sum()
        return {
            "ece": float(gaps / some),
            "nll": self.loss / some,
            "accuracy": float(self.correct.sum() / some),
            "pixels": total,
        }
