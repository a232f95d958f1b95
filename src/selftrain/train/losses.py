"""Loss terms: each is the mean over its own valid pixels, so that every weight refers to one scale.

Where several processes train, each computes its share of these means: see `processes.ratio`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from selftrain.models.segmenter import Outputs
from selftrain.settings.data import IGNORE
from selftrain.train.processes import ratio


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    pixel_weights: Tensor | None = None,
    focal: float = 0.0,
) -> Tensor:
    """Cross-entropy, mean over pixels that are not ignored (by their classes' weights); 0 where all are.

    Args:
        logits: float32 (B, C, h, w), brought to the labels' size here.
        labels: uint8 (B, H, W), 255 is ignore.
        class_weights: float32 (C,).
        pixel_weights: float32 (B, H, W), a factor of each pixel's loss; the mean stays that over all valid pixels.
        focal: gamma; each pixel's loss is multiplied by (1 - p)^gamma, p being the probability of its label (Lin et
            al., focal loss, eq. 4). 0 is plain cross-entropy.
    """
    labels = labels.long()
    logits = at_size(logits, labels)
    losses = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="none")
    losses = losses * _doubt(logits, labels) ** focal if focal else losses
    losses = losses if pixel_weights is None else losses * pixel_weights
    weight = (labels != IGNORE).sum() if class_weights is None else _weights_of(labels, class_weights).sum()
    # Summed here, since CUDA's own sum over pixels has no deterministic form.
    return ratio(losses.sum(), weight, 1e-6)


def _weights_of(labels: Tensor, class_weights: Tensor) -> Tensor:
    """The weight of each pixel's label, 0 where that is ignored; picking the valid pixels would make a GPU wait."""
    return F.pad(class_weights, (0, IGNORE + 1 - len(class_weights)))[labels]


def _doubt(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - p of each pixel's label (any number where that is ignored), (B, H, W), without what 1 - p would round off."""
    known = labels.where(labels != IGNORE, 0)
    logs = logits.log_softmax(1).gather(1, known[:, None])[:, 0]
    return -logs.expm1().clamp(max=-1e-9)  # a power of less than 1 has no slope at 0


def of_outputs(loss: Callable[[Tensor], Tensor], outputs: Outputs) -> Tensor:
    """The losses of all branches' logits, added (strategic curriculum eq. 4), and that of an auxiliary classifier, by
    its weight (PSPNet section 4); of one branch alone its loss."""
    return torch.stack([weight * loss(logits) for weight, logits in outputs.classified]).sum()


def soft_cross_entropy(
    logits: Tensor, targets: Tensor, valid: Tensor, pixel_weights: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy against probabilities (thesis eq. 2.2), mean over valid pixels; equals `cross_entropy` if one-hot.

    Args:
        logits: float32 (B, C, h, w), brought to the targets' size here.
        targets: float32 (B, C, H, W), probabilities.
        valid: bool (B, H, W).
        pixel_weights: float32 (B, H, W), a factor of each pixel's loss.
        class_weights: float32 (C,).
    """
    weighted = targets if class_weights is None else targets * class_weights[:, None, None]
    losses = -(weighted * at_size(logits, valid).log_softmax(1)).sum(1)
    weight = (weighted.sum(1) * valid).sum()
    return ratio((losses * pixel_weights * valid).sum(), weight, 1e-6)


def squared_error(logits: Tensor, targets: Tensor, valid: Tensor, pixel_weights: Tensor) -> Tensor:
    """Squared error of softmax against probabilities, summed over classes (thesis eq. 2.1), mean over valid pixels.

    Args:
        logits: float32 (B, C, h, w), brought to the targets' size here.
        targets: float32 (B, C, H, W), probabilities.
        valid: bool (B, H, W).
        pixel_weights: float32 (B, H, W), a factor of each pixel's loss.
    """
    losses = (at_size(logits, valid).softmax(1) - targets).square().sum(1)
    return ratio((losses * pixel_weights * valid).sum(), valid.sum())


def at_size(logits: Tensor, pixels: Tensor) -> Tensor:
    """Logits (B, C, h, w) at the size of `pixels` (..., H, W)."""
    if logits.shape[-2:] == pixels.shape[-2:]:
        return logits
    return F.interpolate(logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


def image_classification(logits: Tensor, shown: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy, mean over classes (MLSL eq. 5) and over the images that are known; 0 where none is.

    Args:
        logits: (B, C), before the sigmoid.
        shown: float32 (B, C), 1 where the image shows the class.
        known: bool (B,).
    """
    of_images = F.binary_cross_entropy_with_logits(logits.float(), shown, reduction="none").mean(1)
    return ratio((of_images * known).sum(), known.sum())
