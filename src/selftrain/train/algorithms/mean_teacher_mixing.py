"""Online training with mixed images: ClassMix (SSL), DACS (UDA) and what their thesis compares them with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from selftrain import randomness
from selftrain.data.augmentation import recolor
from selftrain.data.batches import Batch
from selftrain.errors import UserError
from selftrain.models.segmenter import Outputs
from selftrain.settings.data import IGNORE
from selftrain.settings.mixing import (
    MeanTeacherMixingSettings,
    PixelwiseSettings,
    SigmoidRampupSettings,
    ThresholdProportionalSettings,
)
from selftrain.train import processes
from selftrain.train.algorithms import Algorithm, Given, Loss, Step
from selftrain.train.alignment import align, run_on, shares_of
from selftrain.train.losses import at_size, of_outputs, soft_cross_entropy, squared_error
from selftrain.train.mixing import Pixels, Place, paste_mask


@dataclass(frozen=True, eq=False)
class Mixture:
    """What was pasted onto what, and what came of it."""

    pasted: Pixels
    below: Pixels
    mask: Tensor
    """bool (B, h, w), where the pasted pixels are."""
    mixed: Pixels
    """Before strong augmentation."""


class MeanTeacherMixing(Algorithm):
    """The student learns labels, and of mixed images what a mean teacher says of the images that were mixed.

    Thesis section 3.2: L = L_l + lambda_u L_u. Pasting goes from unlabeled image to unlabeled image (ClassMix), or from
    labeled to unlabeled (DACS). Each term is the mean over its valid pixels; what lies outside an image is not one.
    """

    def __init__(self, settings: MeanTeacherMixingSettings, given: Given) -> None:
        super().__init__(given)
        self.settings = settings
        self.streams = {"labeled": 0.5, "unlabeled": 0.5}
        self.from_source = settings.across == "source_to_target" and settings.mixing.name != "none"
        self.one_size = self.from_source or settings.forwards == "joint"
        self.by_probability = settings.pseudo_labels == "soft" or settings.loss == "squared_error"
        if settings.alignment is not None:
            if given.distribution is None:
                raise UserError("algorithm.alignment: needs the class shares to align with")
            self.state["average"] = given.distribution.clone()

    def loss(self, step: Step) -> Loss:
        """Two terms: labeled and mixed."""
        labeled, unlabeled = step.batches["labeled"], step.batches["unlabeled"]
        taught, share = self.teach(step, unlabeled)
        mixture = self.mix(taught, labeled, step.number)
        mixed = mixture.mixed.each(processes.own)
        seen = self.augment(mixed.images, step.number)
        of_labeled, of_mixed = self.ask(step.student, labeled.images, seen)
        labeled_loss = partial(self.given.cross_entropy, labels=labeled.labels)
        terms = {
            "labeled": of_outputs(labeled_loss, of_labeled),
            "mixed": of_outputs(partial(self.mixed_loss, mixed=mixed), of_mixed),
        }
        valid = mixture.mixed.labels != IGNORE
        weight = (mixture.mixed.weights * valid).sum() / valid.sum().clamp(min=1)
        return Loss(terms, {"share_above_threshold": share, "mixed_weight": weight}, _example(mixture, seen))

    def teach(self, step: Step, unlabeled: Batch) -> tuple[Pixels, Tensor]:
        """What the teacher says of unlabeled images, and the share of all pixels it is sure of (above tau)."""
        valid = unlabeled.labels != IGNORE
        probabilities = at_size(step.teacher(unlabeled.images).float(), valid).softmax(1)
        probabilities = self._aligned(probabilities, valid)
        confidence, classes = probabilities.max(1)
        sure = (confidence > self.settings.threshold) & valid
        share = processes.total(sure.sum()) / processes.total(valid.sum()).clamp(min=1)
        labels = torch.where(valid, classes, IGNORE).to(torch.uint8)
        soft = self._as_taught(classes, probabilities) if self.by_probability else None
        return Pixels(unlabeled.images, labels, self._weights(step, sure, share), soft), share

    def mix(self, taught: Pixels, labeled: Batch, number: int) -> Mixture:
        """Paste onto unlabeled images: other unlabeled ones, each onto the next (Algorithm 1), or labeled ones.

        The images are those of all processes, since the next one may be another's.
        """
        taught = taught.each(processes.gathered)
        count, device = len(taught.images), taught.images.device
        pasted = below = taught
        if self.from_source:
            true = self._true(labeled, taught).each(processes.gathered)
            pasted = true.at(torch.arange(count, device=device) % len(true.images))
        elif self.settings.mixing.name != "none":
            if count == 1:
                raise UserError(
                    "train.batch_size: one unlabeled image a step cannot be pasted onto another; double it, or mix "
                    "`across: source_to_target`"
                )
            below = taught.at((torch.arange(count, device=device) + 1) % count)
        place: Place = (*self.given.place, "mixing", number)
        mask = paste_mask(pasted.labels, self.given.classes, self.settings.mixing, place)
        return Mixture(pasted, below, mask, pasted.pasted_onto(below, mask))

    def augment(self, images: Tensor, number: int) -> Tensor:
        """Strong augmentation of mixed images, all of a step alike."""
        return recolor(images, self.settings.strong, randomness.generator(*self.given.place, "strong", number))

    def ask(self, student: nn.Module, labeled: Tensor, mixed: Tensor) -> tuple[Outputs, Outputs]:
        """What the student says of labeled and of mixed images."""
        if self.settings.forwards == "separate":
            return student(labeled, apart=True), student(mixed, apart=True)
        one, other = student(torch.cat([labeled, mixed]), apart=True).split([len(labeled), len(mixed)])
        return one, other

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

    def _true(self, labeled: Batch, taught: Pixels) -> Pixels:
        """Labeled images as pixels to paste. Their truth is sure: where pixels count each for itself, it counts."""
        told = self.settings.weight
        full = isinstance(told, PixelwiseSettings) or (
            isinstance(told, ThresholdProportionalSettings) and told.pasted == "full"
        )
        factor = told.scale if full else taught.weights[0, 0, 0]
        weights = torch.ones_like(labeled.labels, dtype=torch.float32) * factor
        one_hot = self._one_hot(labeled.labels.clamp(max=self.given.classes - 1)) if self.by_probability else None
        return Pixels(labeled.images, labeled.labels, weights, one_hot)


def rampup(settings: SigmoidRampupSettings, number: int, steps: int) -> float:
    """The factor at step `number` of `steps`: exp(−c (1 − k/k_max)²) up to k_max (Figure 2.9), then 1.

    >>> [round(rampup(SigmoidRampupSettings(until=0.5), k, 100), 4) for k in (0, 25, 50, 99)]
    [0.0067, 0.2865, 1.0, 1.0]
    """
    k_max = settings.until * steps
    return math.exp(-settings.c * max(0.0, 1 - number / k_max) ** 2)


def _example(mixture: Mixture, seen: Tensor) -> dict[str, Tensor]:
    """The first item: what was pasted onto what, by which mask, and what the student saw and was taught of it."""
    return {
        "pasted": mixture.pasted.images[0],
        "below": mixture.below.images[0],
        "mask": mixture.mask[0].to(torch.uint8),
        "mixed": seen[0],
        "label": mixture.mixed.labels[0],
    }
