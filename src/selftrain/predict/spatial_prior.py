"""Spatial priors: how much more often than elsewhere the labeled set shows a class in a place (CBST-SP)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from selftrain.data.tables import STATISTICS
from selftrain.errors import UserError
from selftrain.settings.data import Size
from selftrain.settings.prediction import SpatialPriorSettings

LEAST = 1e-6
"""The lowest factor: no class is ruled out."""


def read_spatial_prior(statistics: Path, settings: SpatialPriorSettings, classes: Sequence[str]) -> Tensor:
    """Factors for the probabilities, float32 (C, h, w) on the map's grid, with a mean of 1 over all places per class.

    Frequencies are smoothed by a Gaussian, then normalized per class over places, as CBST-SP does: a class is not
    favored for being frequent, only moved to where it belongs. What is unlabeled counts as the average place, so where
    nothing is labeled all factors are 1. A class that the labeled set does not show has the lowest one everywhere.
    """
    with STATISTICS.read(statistics) as file:
        known, frequency = json.loads(file.attrs["classes"]), torch.from_numpy(file["frequency"][:])
    if known != list(classes):
        raise UserError(f"{statistics}: is about {known}, not {list(classes)}; {STATISTICS.remedy}")
    labeled, least = frequency.sum(0), torch.finfo().tiny
    share = frequency.mean((1, 2), keepdim=True) / labeled.mean().clamp(min=least)
    smooth = _smoothed(frequency + (1 - labeled).clamp(min=0) * share, settings.smoothing)
    factors = smooth / smooth.mean((1, 2), keepdim=True).clamp(min=least)
    return factors.mul(settings.weight).add(1 - settings.weight).clamp(min=LEAST)


def _smoothed(maps: Tensor, smoothing: float) -> Tensor:
    """Blurred by a Gaussian, mirrored at the borders."""
    sigmas = [smoothing * length for length in maps.shape[1:]]
    if not all(sigmas):
        return maps
    radii = [min(math.ceil(3 * sigma), length - 1) for sigma, length in zip(sigmas, maps.shape[1:], strict=True)]
    kernel = [2 * radius + 1 for radius in radii]
    return transforms.gaussian_blur(maps, kernel_size=kernel[::-1], sigma=sigmas[::-1])


def at_size(factors: Tensor, size: Size) -> Tensor:
    """The factors at an image's size, (C, H, W)."""
    return F.interpolate(factors[None], size=size, mode="bilinear", align_corners=False)[0]
