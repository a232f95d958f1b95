"""Loss terms: each is the mean over its own valid pixels, so that every weight refers to one scale."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from selftrain.settings.data import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, mean over pixels that are not ignored (by their classes' weights); 0 where all are.

    Args:
        logits: float32 (B, C, h, w), brought to the labels' size here.
        labels: uint8 (B, H, W), 255 is ignore.
        class_weights: float32 (C,).
    """
    labels = labels.long()
    logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    # Summed here, since CUDA's own sum over pixels has no deterministic form.
    total = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="none").sum()
    valid = labels != IGNORE
    weight = valid.sum() if class_weights is None else class_weights[labels[valid]].sum()
    return total / weight.clamp(min=1e-6)


def image_classification(logits: Tensor, shown: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy, mean over classes (MLSL eq. 5) and over the images that are known; 0 where none is.

    Args:
        logits: (B, C), before the sigmoid.
        shown: float32 (B, C), 1 where the image shows the class.
        known: bool (B,).
    """
    of_images = F.binary_cross_entropy_with_logits(logits.float(), shown, reduction="none").mean(1)
    return (of_images * known).sum() / known.sum().clamp(min=1)
