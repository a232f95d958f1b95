"""Temperature scaling: one number for all classes (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selftrain.calibrate.calibrator import Calibrator
from selftrain.calibrate.fitting import minimum
from selftrain.calibrate.logits import Seen
from selftrain.calibrate.sample import Sample, drawn
from selftrain.settings.calibration import TemperatureSettings

log = logging.getLogger(__name__)

LIMIT = 100.0
"""Temperatures beyond it, or below its inverse, say that probabilities mean nothing, or that no pixel is wrong."""


@dataclass(frozen=True)
class Temperature(Calibrator):
    """z / T: above 1 the network is less sure than it said; no pixel's class changes."""

    temperature: float

    def logits(self, logits: Tensor) -> Tensor:
        """Divided by the temperature."""
        return logits.float() / self.temperature

    def parameters(self) -> dict[str, Any]:
        """As the file holds them."""
        return {"temperature": self.temperature}

    @classmethod
    def fitted(
        cls, settings: TemperatureSettings, images: Iterable[Seen], classes: int, seed: int
    ) -> tuple[Temperature, int]:
        """The temperature of the lowest negative log-likelihood over a sample, and of how many pixels that is."""
        sample = drawn(images, classes, seed)
        return cls(best_temperature(sample)), len(sample.labels)


def best_temperature(sample: Sample) -> float:
    """Of a sample; within the limits, with a warning where it would lie beyond them."""
    for limit, beyond in ((LIMIT, _slope(sample, 1 / LIMIT) >= 0), (1 / LIMIT, _slope(sample, LIMIT) <= 0)):
        if beyond:
            log.warning("the temperature runs away; it was set to %g. Does the calibration split fit the model?", limit)
            return limit

    def loss(log_temperature: Tensor) -> Tensor:
        return F.cross_entropy(sample.logits / log_temperature.exp(), sample.labels)

    return math.exp(minimum(loss, torch.zeros(1), "temperature").item())


def _slope(sample: Sample, inverse: float) -> float:
    """Of the loss, by the inverse temperature, in which it is convex: its sign tells on which side the lowest lies."""
    expected = (sample.logits * (sample.logits * inverse).softmax(1)).sum(1)
    return (expected - sample.logits.gather(1, sample.labels[:, None])[:, 0]).mean().item()
