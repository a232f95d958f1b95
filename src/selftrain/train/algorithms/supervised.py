"""Training on labels alone: round 0."""

from __future__ import annotations

from torch import Tensor, nn

from selftrain.data.batches import Batch
from selftrain.settings.training import SupervisedSettings
from selftrain.train.algorithms import Algorithm, Given
from selftrain.train.losses import cross_entropy


class Supervised(Algorithm):
    """Cross-entropy on labeled images (DARS eq. 1)."""

    def __init__(self, settings: SupervisedSettings, given: Given) -> None:
        self.given = given
        self.streams = {"labeled": 1.0}

    def terms(self, model: nn.Module, batches: dict[str, Batch], step: int) -> dict[str, Tensor]:
        """One term."""
        labeled = batches["labeled"]
        return {"labeled": cross_entropy(model(labeled.images), labeled.labels, self.given.class_weights)}
