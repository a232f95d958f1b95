"""Training on labels and pseudo-labels: an offline round."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from selftrain.data.batches import Batch
from selftrain.models.segmenter import Outputs
from selftrain.settings.training import PseudoLabeledSettings
from selftrain.train.algorithms import Algorithm, Given, Loss, Step
from selftrain.train.losses import of_outputs


class SelfTraining(Algorithm):
    """Half of each batch labeled, half pseudo-labeled, one term each (DARS eq. 2)."""

    def __init__(self, settings: PseudoLabeledSettings, given: Given) -> None:
        super().__init__(given)
        self.settings, self.one_size = settings, settings.forwards == "joint"
        self.streams = {"labeled": 0.5, "pseudo_labeled": 0.5}
        self.weights = {"labeled": 1.0, "pseudo_labeled": settings.weight}

    def loss(self, step: Step) -> Loss:
        """One term per stream."""
        return Loss(self.segmentation_terms(self.outputs(step.student, step.batches), step.batches))

    def outputs(self, student: nn.Module, batches: dict[str, Batch]) -> dict[str, Outputs]:
        """What the network says of each stream; in joint forwards batch-norm sees all of them together."""
        if self.settings.forwards == "separate":
            return {stream: student(batch.images, apart=True) for stream, batch in batches.items()}
        sizes = [len(batch.images) for batch in batches.values()]
        together: Outputs = student(torch.cat([batch.images for batch in batches.values()]), apart=True)
        return dict(zip(batches, together.split(sizes), strict=True))

    def segmentation_terms(self, outputs: dict[str, Outputs], batches: dict[str, Batch]) -> dict[str, Tensor]:
        """Cross-entropy per stream, weighted."""
        terms = {}
        for stream in self.streams:
            loss = partial(self.given.cross_entropy, labels=batches[stream].labels)
            terms[stream] = self.weights[stream] * of_outputs(loss, outputs[stream])
        return terms
