"""From images to the class and the confidence of every pixel: one pass, or the average of several."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain.predict.confidence import decide, decide_probabilities
from selftrain.settings.data import Size
from selftrain.settings.prediction import PredictionSettings


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, settings: PredictionSettings, size: Size) -> tuple[Tensor, Tensor]:
    """Class uint8 (B, H, W) and confidence bin (B, H, W) of a batch.

    Args:
        model: images to logits (B, C, h, w) of any size.
        images: (B, 3, h, w), uint8 or float from 0 to 1.
        settings: what is averaged.
        size: height and width of the result.
    """
    views = list(product(settings.scales, (False, True) if settings.flip else (False,)))
    if views == [(1.0, False)]:
        return decide(_upsampled(model(images), size))
    sums = sum(_probabilities(model, images, views, size), start=torch.zeros((), device=images.device))
    return decide_probabilities(sums)


def _probabilities(model: nn.Module, images: Tensor, views: list[tuple[float, bool]], size: Size) -> Iterator[Tensor]:
    """Softmax of each view, float32 (B, C, H, W), turned back to the image's own geometry."""
    for scale, flip in views:
        view = images
        if scale != 1:
            scaled = [max(1, round(length * scale)) for length in images.shape[-2:]]
            view = F.interpolate(_as_float(images), size=scaled, mode="bilinear", align_corners=False, antialias=True)
        logits = model(view.flip(-1)).flip(-1) if flip else model(view)
        yield _upsampled(logits, size).softmax(1)


def _as_float(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _upsampled(logits: Tensor, size: Size) -> Tensor:
    """Float32 logits at the wanted size."""
    return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
