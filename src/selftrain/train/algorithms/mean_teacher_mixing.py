"""Online training with mixed images: ClassMix (SSL), DACS (UDA) and what their thesis compares them with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selftrain.data.batches import Batch
from selftrain.errors import UserError
from selftrain.settings.data import IGNORE
from selftrain.settings.mixing import (
    MeanTeacherMixingSettings,
    PixelwiseSettings,
    SigmoidRampupSettings,
    ThresholdProportionalSettings,
)
from selftrain.train import processes
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.mixed import Mixed
from selftrain.train.alignment import align, run_on, shares_of
from selftrain.train.losses import at_size, soft_cross_entropy, squared_error
from selftrain.train.mixing import Pixels


class MeanTeacherMixing(Mixed[MeanTeacherMixingSettings]):
    """The student learns labels, and of mixed images what a mean teacher says of the images that were mixed."""

    unlabeled = "unlabeled"

    def __init__(self, settings: MeanTeacherMixingSettings, given: Given) -> None:
        super().__init__(settings, given)
        self.taught = 0.5
        self.by_probability = settings.pseudo_labels == "soft" or settings.loss == "squared_error"
        if settings.alignment is not None:
            if given.distribution is None:
                raise UserError("algorithm.alignment: needs the class shares to align with")
            self.state["average"] = given.distribution.clone()

    def teach(self, step: Step, unlabeled: Batch) -> tuple[Pixels, dict[str, Tensor]]:
        """What the teacher says of unlabeled images, and the share of all pixels it is sure of (above tau)."""
        valid = unlabeled.labels != IGNORE
        probabilities = at_size(step.teacher(unlabeled.images).float(), valid).softmax(1)
        probabilities = self._aligned(probabilities, valid)
        confidence, classes = probabilities.max(1)
        sure = (confidence > self.settings.threshold) & valid
        share = processes.total(sure.sum()) / processes.total(valid.sum()).clamp(min=1)
        labels = torch.where(valid, classes, IGNORE).to(torch.uint8)
        soft = self._as_taught(classes, probabilities) if self.by_probability else None
        taught = Pixels(unlabeled.images, labels, self._weights(step, sure, share), soft)
        return taught, {"share_above_threshold": share}

    def true(self, labeled: Batch, taught: Pixels) -> Pixels:
        """Labeled images as pixels to paste. Their truth is sure: where pixels count each for itself, it counts."""
        told = self.settings.weight
        full = isinstance(told, PixelwiseSettings) or (
            isinstance(told, ThresholdProportionalSettings) and told.pasted == "full"
        )
        factor = told.scale if full else taught.weights[0, 0, 0]
        weights = torch.ones_like(labeled.labels, dtype=torch.float32) * factor
        one_hot = self._one_hot(labeled.labels.clamp(max=self.given.classes - 1)) if self.by_probability else None
        return Pixels(labeled.images, labeled.labels, weights, one_hot)

    def mixed_loss(self, logits: Tensor, mixed: Pixels) -> Tensor:
        """The weighted loss of mixed images."""
        if mixed.probabilities is None:
            return self.given.cross_entropy(logits, mixed.labels, mixed.weights)
        valid = mixed.labels != IGNORE
        if self.settings.loss == "squared_error":
            return squared_error(logits, mixed.probabilities, valid, mixed.weights)
        return soft_cross_entropy(logits, mixed.probabilities, valid, mixed.weights, self.given.class_weights)

    def _aligned(self, probabilities: Tensor, valid: Tensor) -> Tensor:
        """Aligned with the wanted distribution; the running average moves on."""
        told, target = self.settings.alignment, self.given.distribution
        if told is None or target is None:
            return probabilities
        average = self.state["average"]
        aligned = align(probabilities, target, average)
        counted = self._as_taught(aligned.argmax(1), aligned) if told.average == "pseudo_labels" else probabilities
        run_on(average, shares_of(counted, valid), told.decay)
        return aligned

    def _as_taught(self, classes: Tensor, probabilities: Tensor) -> Tensor:
        """Pseudo-labels as probabilities: as they are, or one-hot (eq. 2.11)."""
        return probabilities if self.settings.pseudo_labels == "soft" else self._one_hot(classes)

    def _one_hot(self, classes: Tensor) -> Tensor:
        each = torch.arange(self.given.classes, device=classes.device)
        return (classes[:, None] == each[:, None, None]).float()

    def _weights(self, step: Step, sure: Tensor, share: Tensor) -> Tensor:
        """The factor lambda_u of each unlabeled pixel's loss (thesis section 2.5.4)."""
        told = self.settings.weight
        if isinstance(told, PixelwiseSettings):
            return told.scale * sure.float()
        factor: Tensor | float = 1.0
        if isinstance(told, ThresholdProportionalSettings):
            factor = share
        elif isinstance(told, SigmoidRampupSettings):
            factor = rampup(told, step.number, step.steps)
        return torch.ones_like(sure, dtype=torch.float32) * (told.scale * factor)


def rampup(settings: SigmoidRampupSettings, number: int, steps: int) -> float:
    """The factor at step `number` of `steps`: exp(−c (1 − k/k_max)²) up to k_max (Figure 2.9), then 1.

    >>> [round(rampup(SigmoidRampupSettings(until=0.5), k, 100), 4) for k in (0, 25, 50, 99)]
    [0.0067, 0.2865, 1.0, 1.0]
    """
    k_max = settings.until * steps
    return math.exp(-settings.c * max(0.0, 1 - number / k_max) ** 2)
