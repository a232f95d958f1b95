"""Random changes of an image and its label together; every parameter is drawn by us, per image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from selftrain.settings.data import IGNORE, Size
from selftrain.settings.mixing import StrongAugmentationSettings
from selftrain.settings.training import AugmentationSettings


def augment(
    image: Tensor, label: Tensor, settings: AugmentationSettings, draw: np.random.Generator, fill: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Scale and crop, flip, rotate, blur, jitter.

    Args:
        image: (channels, H, W), uint8, or float from 0 to 1.
        label: uint8 (H, W), 255 is ignore.
        settings: ranges and probabilities.
        draw: where all random numbers come from.
        fill: the color of what lies outside the image, a value per channel of the image's own type; its label is
            ignore.

    Returns:
        The image (channels, h, w) and its label, uint8 (h, w), of the crop's size (of the image's without a crop).
    """
    image, label = _scaled_crop(image, label[None], settings, draw, fill)
    if draw.random() < settings.flip:
        image, label = image.flip(-1), label.flip(-1)
    if draw.random() < settings.rotation_probability and settings.rotation > 0:
        angle = draw.uniform(-settings.rotation, settings.rotation)
        image = F.rotate_image(image, angle, InterpolationMode.BILINEAR, fill=list(fill))
        label = F.rotate_mask(label, angle, fill=IGNORE)
    return recolor(image, settings, draw), label[0]


def recolor(
    images: Tensor, settings: AugmentationSettings | StrongAugmentationSettings, draw: np.random.Generator
) -> Tensor:
    """Blur and jitter, which leave labels as they are: (..., channels, h, w), all images alike, on any device."""
    if draw.random() < settings.blur_probability:
        sigma = draw.uniform(*settings.blur)
        radius = min(math.ceil(2 * sigma), min(images.shape[-2:]) - 1)  # the edge is mirrored, once at most
        images = F.gaussian_blur(images, kernel_size=2 * radius + 1, sigma=sigma)
    if draw.random() < settings.jitter_probability:
        images = _jittered(images, settings.jitter, draw)
    return images


def _scaled_crop(
    image: Tensor, label: Tensor, settings: AugmentationSettings, draw: np.random.Generator, fill: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """A crop of the scaled image, cut out before it is scaled: the same picture for a fraction of the work."""
    size: Size = settings.crop or (image.shape[-2], image.shape[-1])
    scale = draw.uniform(*settings.scale)
    window = [max(1, round(length / scale)) for length in size]
    missing = [max(0, length - have) for length, have in zip(window, image.shape[-2:], strict=True)]
    before = [int(draw.integers(0, lack + 1)) for lack in missing]
    if any(missing):
        padding = [before[1], before[0], missing[1] - before[1], missing[0] - before[0]]
        image = F.pad_image(image, padding, fill=list(fill))
        label = F.pad_mask(label, padding, fill=IGNORE)
    top, left = (int(draw.integers(0, have - w + 1)) for have, w in zip(image.shape[-2:], window, strict=True))
    image, label = (whole[:, top : top + window[0], left : left + window[1]] for whole in (image, label))
    if tuple(window) != size:
        image = F.resize_image(image, list(size), InterpolationMode.BILINEAR, antialias=True)
        label = F.resize_image(label, list(size), InterpolationMode.NEAREST_EXACT)
    return image, label


def _jittered(images: Tensor, strength: float, draw: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, in random order, as `ColorJitter` does."""
    low, high = max(0.0, 1 - strength), 1 + strength
    hue = min(0.5, strength / 4)
    amounts = [draw.uniform(low, high) for _ in range(3)] + [draw.uniform(-hue, hue)]
    # Other channels than red, green and blue have no saturation and no hue; what is drawn is the same.
    of_colors = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    changes = of_colors if images.shape[-3] == 3 else [_brightened, _contrasted, None, None]
    for position in draw.permutation(len(changes)):
        change = changes[position]
        images = images if change is None else change(images, amounts[position])
    return images


def _brightened(images: Tensor, factor: float) -> Tensor:
    return _clipped(images * factor, images)


def _contrasted(images: Tensor, factor: float) -> Tensor:
    """Each image blended with the mean of all its pixels and channels."""
    floats = images.float()
    return _clipped(factor * floats + (1 - factor) * floats.mean((-3, -2, -1), keepdim=True), images)


def _clipped(values: Tensor, like: Tensor) -> Tensor:
    """As torchvision does: within the type's range, and bytes cut off, not rounded."""
    return values.clamp(0, 255 if like.dtype == torch.uint8 else 1).to(like.dtype)


def fill_color(mean: Sequence[float], bits: int = 8) -> tuple[float, ...]:
    """The color that normalization turns into (almost) zero: of 8 bits from 0 to 255, of 16 from 0 to 1."""
    return tuple(round(255 * value) for value in mean) if bits == 8 else tuple(mean)


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, channels) to (channels, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
