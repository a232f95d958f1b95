"""Training on labels and pseudo-labels: an offline round."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftrain.data.batches import Batch
from selftrain.settings.training import PseudoLabeledSettings
from selftrain.train.algorithms import Algorithm, Given, Loss, Step
from selftrain.train.losses import cross_entropy

Outputs = dict[str, tuple[Tensor, dict[str, Tensor]]]
"""Per stream the logits, and what each head says."""


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

    def outputs(self, student: nn.Module, batches: dict[str, Batch]) -> Outputs:
        """What the network says of each stream; in joint forwards batch-norm sees all of them together."""
        if self.settings.forwards == "separate":
            return {stream: student(batch.images, heads=True) for stream, batch in batches.items()}
        sizes = [len(batch.images) for batch in batches.values()]
        logits, heads = student(torch.cat([batch.images for batch in batches.values()]), heads=True)
        parts = {name: said.split(sizes) for name, said in heads.items()}
        of_heads = [{name: parts[name][position] for name in parts} for position in range(len(sizes))]
        return dict(zip(batches, zip(logits.split(sizes), of_heads, strict=True), strict=True))

    def segmentation_terms(self, outputs: Outputs, batches: dict[str, Batch]) -> dict[str, Tensor]:
        """Cross-entropy per stream, weighted."""
        return {
            stream: self.weights[stream]
            * cross_entropy(outputs[stream][0], batches[stream].labels, self.given.class_weights)
            for stream in self.streams
        }
