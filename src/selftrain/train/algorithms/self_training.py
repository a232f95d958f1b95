"""Training on labels and pseudo-labels: an offline round."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftrain.data.batches import Batch
from selftrain.settings.training import PseudoLabeledSettings
from selftrain.train.algorithms import Algorithm, Given
from selftrain.train.losses import cross_entropy

Outputs = dict[str, tuple[Tensor, dict[str, Tensor]]]
"""Per stream the logits, and what each head says."""


class SelfTraining(Algorithm):
    """Half of each batch labeled, half pseudo-labeled, one term each (DARS eq. 2)."""

    def __init__(self, settings: PseudoLabeledSettings, given: Given) -> None:
        self.settings, self.given = settings, given
        self.streams = {"labeled": 0.5, "pseudo_labeled": 0.5}
        self.weights = {"labeled": 1.0, "pseudo_labeled": settings.weight}

    def terms(self, model: nn.Module, batches: dict[str, Batch], step: int) -> dict[str, Tensor]:
        """One term per stream."""
        return self.segmentation_terms(self.outputs(model, batches), batches)

    def outputs(self, model: nn.Module, batches: dict[str, Batch]) -> Outputs:
        """What the network says of each stream; in joint forwards batch-norm sees all of them together."""
        if self.settings.forwards == "separate":
            return {stream: model(batch.images, heads=True) for stream, batch in batches.items()}
        sizes = [len(batch.images) for batch in batches.values()]
        logits, heads = model(torch.cat([batch.images for batch in batches.values()]), heads=True)
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
