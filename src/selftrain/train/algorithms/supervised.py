"""Training on labels alone: round 0."""

from __future__ import annotations

from functools import partial

from selftrain.settings.training import SupervisedSettings
from selftrain.train.algorithms import Algorithm, Given, Loss, Step
from selftrain.train.losses import of_outputs


class Supervised(Algorithm):
    """Cross-entropy on labeled images (DARS eq. 1)."""

    def __init__(self, settings: SupervisedSettings, given: Given) -> None:
        super().__init__(given)
        self.streams = {"labeled": 1.0}

    def loss(self, step: Step) -> Loss:
        """One term."""
        labeled = step.batches["labeled"]
        outputs = step.student(labeled.images, apart=True)
        loss = partial(self.given.cross_entropy, labels=labeled.labels)
        return Loss({"labeled": of_outputs(loss, outputs)})
