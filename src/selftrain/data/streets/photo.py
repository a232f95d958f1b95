"""Turns a flat drawing into something like a photograph: texture, light, lens and sensor."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from selftrain.data.streets.domains import IGNORE

ROUGHNESS = np.zeros(IGNORE + 1, np.float32)
ROUGHNESS[:11] = (0.01, 0.05, 0.03, 0.03, 0.05, 0.12, 0.03, 0.06, 0.03, 0.05, 0.05)
"""How strongly each class's surface varies."""


def photograph(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The drawing, float32 (H, W, 3) of 0 to 255, as a camera would have seen it.

    Some days are clear and some are bleak: what a model gets right on the first can teach it the others.
    """
    bleak, noise = rng.random(), partial(rng.standard_normal, dtype=np.float32)
    grain = texture(label.shape, rng) * ROUGHNESS[label]
    image = image * (1 + grain)[..., None] * _light(label.shape, bleak, rng)[..., None]
    image = blur(image, (0.3 + 0.3 * bleak) * label.shape[0] / 96)
    image = image * (1 + 0.07 * bleak * noise(3))
    gray = image.mean(axis=-1, keepdims=True)
    image = gray + (image - gray) * (1 - 0.2 * bleak)
    mean = rng.uniform(118, 142)
    image = mean + (image - image.mean()) * (1 - 0.3 * bleak)
    return image + (2 + 4 * bleak) * noise((*label.shape, 1)) + 1.5 * noise(image.shape)


def texture(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise of three scales, (H, W), of about unit deviation."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for cells in (12, 32, 96):
        coarse = rng.standard_normal((cells, max(1, cells * width // height)), np.float32)
        total += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    return total


def _light(shape: tuple[int, ...], bleak: float, rng: np.random.Generator) -> np.ndarray:
    """A slanted gradient of light and a darker rim, (H, W)."""
    height, width = shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    across, down = bleak * rng.uniform(-0.25, 0.25), bleak * rng.uniform(-0.15, 0.15)
    return (1 + across * x + down * y) * (1 - 0.1 * bleak * (x * x + y * y))


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """A Gaussian blur of float32 (H, W, 3), `radius` in pixels."""
    soft = Image.fromarray(image.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(soft, np.float32)
