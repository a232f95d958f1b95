"""Training on labels and pseudo-labels: an offline round."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftrain.data.batches import Batch
from selftrain.settings.training import SelfTrainingSettings
from selftrain.train.losses import cross_entropy


class SelfTraining:
    """Half of each batch labeled, half pseudo-labeled, one term each (DARS eq. 2)."""

    def __init__(self, settings: SelfTrainingSettings, class_weights: Tensor | None) -> None:
        self.settings, self.class_weights = settings, class_weights
        self.streams = {"labeled": 0.5, "pseudo_labeled": 0.5}

    def terms(self, model: nn.Module, batches: dict[str, Batch], step: int) -> dict[str, Tensor]:
        """Two terms; in joint forwards batch-norm sees both halves together."""
        labeled, pseudo = batches["labeled"], batches["pseudo_labeled"]
        if self.settings.forwards == "joint":
            logits = model(torch.cat([labeled.images, pseudo.images]))
            on_labeled, on_pseudo = logits.split([len(labeled.images), len(pseudo.images)])
        else:
            on_labeled, on_pseudo = model(labeled.images), model(pseudo.images)
        return {
            "labeled": cross_entropy(on_labeled, labeled.labels, self.class_weights),
            "pseudo_labeled": self.settings.weight * cross_entropy(on_pseudo, pseudo.labels, self.class_weights),
        }
