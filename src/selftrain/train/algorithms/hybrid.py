"""Offline rounds whose step is online: mixtures of images whose labels come from the round's file.

The thesis names it as future work (section 5.3.2): a file of pseudo-labels, with the selection that only a view of all
images allows, as anchors of a step that mixes images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from selftrain.data.batches import Batch
from selftrain.settings.hybrid import HybridSettings
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.mixed import Mixed, Mixture
from selftrain.train.mixing import Pixels


class Hybrid(Mixed[HybridSettings]):
    """The student learns labels, and of mixed images what the file says of them."""

    unlabeled = "pseudo_labeled"

    def __init__(self, settings: HybridSettings, given: Given) -> None:
        super().__init__(settings, given)
        if settings.rare_classes is not None and given.pseudo_labels is not None:
            column = "prior" if settings.pastes_labeled else "share"
            shares = given.pseudo_labels.classes[column].to_numpy(float)
            self.favor = rare_first(shares, settings.rare_classes.temperature)

    def teach(self, step: Step, unlabeled: Batch) -> tuple[Pixels, dict[str, Tensor]]:
        """Labels of the file."""
        weights = torch.full_like(unlabeled.labels, self.settings.weight, dtype=torch.float32)
        return Pixels(unlabeled.images, unlabeled.labels, weights), {}

    def true(self, labeled: Batch, taught: Pixels) -> Pixels:
        """Labeled images have a weight of their own where they are pasted."""
        weights = torch.full_like(labeled.labels, self.settings.pasted_weight, dtype=torch.float32)
        return Pixels(labeled.images, labeled.labels, weights)

    def parts(self, mixture: Mixture) -> dict[str, Pixels]:
        """What labeled images say has a term of its own: in one mean, labels that count already would take most of it,
        since they are whole and the file's are few."""
        if not self.settings.pastes_labeled:
            return super().parts(mixture)
        return {"mixed": mixture.mixed.only(~mixture.mask), "pasted": mixture.mixed.only(mixture.mask)}

    def mixed_loss(self, logits: Tensor, mixed: Pixels) -> Tensor:
        """Weighted cross-entropy."""
        return self.given.cross_entropy(logits, mixed.labels, mixed.weights)


def rare_first(shares: np.ndarray, temperature: float) -> np.ndarray:
    """The logarithm of each class's chance to be drawn, P(c) ∝ exp((1 − f_c) / T) (DAFormer eq. 6), (C,).

    Args:
        shares: f, of all pixels, (C,).
        temperature: T; the lower, the more only the rarest are drawn.

    >>> rare_first(np.array([0.5, 0.5]), 0.1).round(3)
    array([-0.693, -0.693])
    """
    logits = (1 - shares) / temperature
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
