"""Random changes of an image and its label together; every parameter is drawn by us, per image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from selftrain.settings.data import IGNORE, Size
from selftrain.settings.mixing import StrongAugmentationSettings
from selftrain.settings.training import AugmentationSettings


def augment(
    image: Tensor, label: Tensor, settings: AugmentationSettings, draw: np.random.Generator, fill: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Scale and crop, flip, rotate, blur, jitter.

    Args:
        image: uint8 (3, H, W).
        label: uint8 (H, W), 255 is ignore.
        settings: ranges and probabilities.
        draw: where all random numbers come from.
        fill: the color of what lies outside the image, 3 values from 0 to 255; its label is ignore.

    Returns:
        The image, uint8 (3, h, w), and its label, uint8 (h, w), of the crop's size (of the image's without a crop).
    """
    image, label = tv_tensors.Image(image), tv_tensors.Mask(label[None])
    fills = {tv_tensors.Image: list(fill), tv_tensors.Mask: IGNORE}
    image, label = _scaled_crop(image, label, settings, draw, fills)
    if draw.random() < settings.flip:
        image, label = F.horizontal_flip(image), F.horizontal_flip(label)
    if draw.random() < settings.rotation_probability and settings.rotation > 0:
        angle = draw.uniform(-settings.rotation, settings.rotation)
        image = F.rotate(image, angle, InterpolationMode.BILINEAR, fill=fills[tv_tensors.Image])
        label = F.rotate(label, angle, InterpolationMode.NEAREST, fill=IGNORE)
    return recolor(image.as_subclass(Tensor), settings, draw), label.as_subclass(Tensor)[0]


def recolor(
    images: Tensor, settings: AugmentationSettings | StrongAugmentationSettings, draw: np.random.Generator
) -> Tensor:
    """Blur and jitter, which leave labels as they are: uint8 (..., 3, h, w), all images alike, on any device."""
    if draw.random() < settings.blur_probability:
        sigma = draw.uniform(*settings.blur)
        radius = min(math.ceil(2 * sigma), min(images.shape[-2:]) - 1)  # the edge is mirrored, once at most
        images = F.gaussian_blur(images, kernel_size=2 * radius + 1, sigma=sigma)
    if draw.random() < settings.jitter_probability:
        images = _jittered(images, settings.jitter, draw)
    return images


def _scaled_crop(
    image: Tensor, label: Tensor, settings: AugmentationSettings, draw: np.random.Generator, fills: dict
) -> tuple[Tensor, Tensor]:
    """A crop of the scaled image, cut out before it is scaled: the same picture for a fraction of the work."""
    size: Size = settings.crop or (image.shape[-2], image.shape[-1])
    scale = draw.uniform(*settings.scale)
    window = [max(1, round(length / scale)) for length in size]
    missing = [max(0, length - have) for length, have in zip(window, image.shape[-2:], strict=True)]
    before = [int(draw.integers(0, lack + 1)) for lack in missing]
    if any(missing):
        padding = [before[1], before[0], missing[1] - before[1], missing[0] - before[0]]
        image = F.pad(image, padding, fill=fills[tv_tensors.Image])
        label = F.pad(label, padding, fill=IGNORE)
    corner = [int(draw.integers(0, have - w + 1)) for have, w in zip(image.shape[-2:], window, strict=True)]
    image, label = F.crop(image, *corner, *window), F.crop(label, *corner, *window)
    if tuple(window) != size:
        image = F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
        label = F.resize(label, list(size), InterpolationMode.NEAREST_EXACT)
    return image, label


def _jittered(images: Tensor, strength: float, draw: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, in random order, as `ColorJitter` does."""
    low, high = max(0.0, 1 - strength), 1 + strength
    hue = min(0.5, strength / 4)
    changes = [
        (F.adjust_brightness, draw.uniform(low, high)),
        (F.adjust_contrast, draw.uniform(low, high)),
        (F.adjust_saturation, draw.uniform(low, high)),
        (F.adjust_hue, draw.uniform(-hue, hue)),
    ]
    for position in draw.permutation(len(changes)):
        change, amount = changes[position]
        images = change(images, amount)
    return images


def fill_color(mean: tuple[float, float, float]) -> tuple[int, ...]:
    """The color that normalization turns into (almost) zero."""
    return tuple(round(255 * value) for value in mean)


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) to uint8 (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
