"""What all algorithms have in common whose student learns from mixtures of images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from selftrain import randomness
from selftrain.data.augmentation import recolor
from selftrain.data.batches import Batch
from selftrain.errors import UserError
from selftrain.models.segmenter import Outputs
from selftrain.settings.data import IGNORE
from selftrain.settings.mixing import MixtureSettings
from selftrain.train import processes
from selftrain.train.algorithms import Algorithm, Given, Loss, Step
from selftrain.train.losses import of_outputs
from selftrain.train.mixing import Pixels, Place, paste_mask

Told = TypeVar("Told", bound=MixtureSettings)


@dataclass(frozen=True, eq=False)
class Mixture:
    """What was pasted onto what, and what came of it."""

    pasted: Pixels
    below: Pixels
    mask: Tensor
    """bool (B, h, w), where the pasted pixels are."""
    mixed: Pixels
    """Before strong augmentation."""


class Mixed(Algorithm, Generic[Told]):
    """The student learns labels, and of mixed images what is known of the images that were mixed.

    Thesis section 3.2: L = L_l + lambda_u L_u. Pasting goes from unlabeled image to unlabeled image (ClassMix), or from
    labeled to unlabeled (DACS). Each term is the mean over its valid pixels; what lies outside an image is not one.
    """

    unlabeled: str
    """The stream whose images are pasted onto."""
    favor: npt.NDArray[np.float64] | None = None
    """The logarithm of each class's chance to be pasted, (classes,), where they differ."""

    def __init__(self, settings: Told, given: Given) -> None:
        super().__init__(given)
        self.settings = settings
        self.streams = {"labeled": 0.5, self.unlabeled: 0.5}
        self.one_size = settings.pastes_labeled or settings.forwards == "joint"

    @abstractmethod
    def teach(self, step: Step, unlabeled: Batch) -> tuple[Pixels, dict[str, Tensor]]:
        """What the student is to learn of unlabeled images, and facts about it."""

    @abstractmethod
    def true(self, labeled: Batch, taught: Pixels) -> Pixels:
        """Labeled images as pixels to paste onto those that are `taught`."""

    @abstractmethod
    def mixed_loss(self, logits: Tensor, mixed: Pixels) -> Tensor:
        """The weighted loss of mixed images."""

    def parts(self, mixture: Mixture) -> dict[str, Pixels]:
        """What each term of mixed images is the mean over; one of them is `mixed`, here of all pixels."""
        return {"mixed": mixture.mixed}

    def loss(self, step: Step) -> Loss:
        """One term of labeled images, and those of mixed ones."""
        labeled, unlabeled = step.batches["labeled"], step.batches[self.unlabeled]
        taught, facts = self.teach(step, unlabeled)
        mixture = self.mix(taught, labeled, step.number)
        seen = self.augment(processes.own(mixture.mixed.images), step.number)
        of_labeled, of_mixed = self.ask(step.student, labeled.images, seen)
        labeled_loss = partial(self.given.cross_entropy, labels=labeled.labels)
        terms = {"labeled": of_outputs(labeled_loss, of_labeled)}
        parts = self.parts(mixture)
        for name, part in parts.items():
            terms[name] = of_outputs(partial(self.mixed_loss, mixed=part.each(processes.own)), of_mixed)
        valid = parts["mixed"].labels != IGNORE
        weight = (parts["mixed"].weights * valid).sum() / valid.sum().clamp(min=1)
        return Loss(terms, facts | {"mixed_weight": weight}, _example(mixture, seen))

    def mix(self, taught: Pixels, labeled: Batch, number: int) -> Mixture:
        """Paste onto unlabeled images: other unlabeled ones, or labeled ones.

        The images are those of all processes, since the next one may be another's.
        """
        taught = taught.each(processes.gathered)
        count, device = len(taught.images), taught.images.device
        pasted = below = taught
        if self.settings.pastes_labeled:
            true = self.true(labeled, taught).each(processes.gathered)
            pasted = true.at(torch.arange(count, device=device) % len(true.images))
        elif self.settings.mixing.name != "none":
            if count == 1:
                raise UserError(
                    "train.batch_size: one unlabeled image a step cannot be pasted onto another; double it, or mix "
                    "`across: source_to_target`"
                )
            below = taught.at((torch.arange(count, device=device) + 1) % count)  # the next one (Algorithm 1)
        place: Place = (*self.given.place, "mixing", number)
        mask = paste_mask(pasted.labels, self.given.classes, self.settings.mixing, place, self.favor)
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


def _example(mixture: Mixture, seen: Tensor) -> dict[str, Tensor]:
    """The first item: what was pasted onto what, by which mask, and what the student saw and was taught of it."""
    return {
        "pasted": mixture.pasted.images[0],
        "below": mixture.below.images[0],
        "mask": mixture.mask[0].to(torch.uint8),
        "mixed": seen[0],
        "label": mixture.mixed.labels[0],
    }
