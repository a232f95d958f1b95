"""Training on labels alone: round 0."""

from __future__ import annotations

from torch import Tensor, nn

from selftrain.data.batches import Batch
from selftrain.settings.training import SupervisedSettings
from selftrain.train.losses import cross_entropy


class Supervised:
    """Cross-entropy on labeled images (DARS eq. 1)."""

    def __init__(self, settings: SupervisedSettings, class_weights: Tensor | None) -> None:
        self.class_weights = class_weights
        self.streams = {"labeled": 1.0}

    def terms(self, model: nn.Module, batches: dict[str, Batch], step: int) -> dict[str, Tensor]:
        """One term."""
        labeled = batches["labeled"]
        return {"labeled": cross_entropy(model(labeled.images), labeled.labels, self.class_weights)}
