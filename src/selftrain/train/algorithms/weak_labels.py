"""MLSL's multi-task training: pixels from labels and pseudo-labels, whole images from weak labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftrain.data.batches import Batch
from selftrain.errors import UserError
from selftrain.models.heads import ImageClassifier
from selftrain.models.segmenter import Outputs, Segmenter
from selftrain.settings.training import WeakLabelSettings
from selftrain.train.algorithms import Given, Loss, Step
from selftrain.train.algorithms.self_training import SelfTraining
from selftrain.train.losses import image_classification

HEAD = "image_classifier"


class WeakLabels(SelfTraining):
    """Self-training with an image classifier beside it, on both halves of the batch (MLSL eqs. 6 and 7)."""

    settings: WeakLabelSettings

    def __init__(self, settings: WeakLabelSettings, given: Given) -> None:
        super().__init__(settings, given)
        if given.mean_size is None:
            raise UserError("algorithm 'weak_labels' needs pseudo-labels, and the mean size of each class with them")
        # A label is in view with its first pixel; a pseudo-label only above a share of what is usual for the class.
        self.least = {"labeled": torch.zeros_like(given.mean_size), "pseudo_labeled": settings.eta * given.mean_size}

    def heads(self, network: Segmenter) -> dict[str, nn.Module]:
        """The image classifier."""
        told = self.settings
        return {HEAD: ImageClassifier(network.feature_channels.last, told.channels, told.hidden, self.given.classes)}

    def loss(self, step: Step) -> Loss:
        """Two terms per stream."""
        outputs = self.outputs(step.student, step.batches)
        return Loss(self.segmentation_terms(outputs, step.batches) | self.classification_terms(outputs, step.batches))

    def classification_terms(self, outputs: dict[str, Outputs], batches: dict[str, Batch]) -> dict[str, Tensor]:
        """Binary cross-entropy per stream, weighted."""
        terms = {}
        for stream in self.streams:
            in_view, known = weak_labels_in_view(batches[stream].labels, self.least[stream])
            weight = self.weights[stream] * self.settings.classification_weight
            terms[f"{stream}_classes"] = weight * image_classification(outputs[stream].heads[HEAD], in_view, known)
        return terms


def weak_labels_in_view(labels: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """The weak labels of crops, taken from what is in view, so that no class is asked for that is not.

    Args:
        labels: uint8 (B, h, w), 255 is ignore.
        least: share of the crop's area that each class must exceed, (C,).

    Returns:
        float32 (B, C), 1 where a class is in view, and bool (B,), whether anything of the crop is labeled: one that
        is ignored as a whole says nothing about what it shows.
    """
    counts = torch.stack([(labels == index).sum((1, 2)) for index in range(len(least))], 1)
    area = labels.shape[1] * labels.shape[2]
    return (counts > least * area).float(), counts.sum(1) > 0
