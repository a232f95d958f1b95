"""Mixing images and their labels: which pixels are pasted (ClassMix, CutMix, CowMix), and pasting them.

Masks are made for a whole batch on its device. What is random is drawn per item from its place, so the size of a batch
and the device change no draw; only CowMix's noise is drawn on the device itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selftrain import randomness
from selftrain.settings.data import IGNORE
from selftrain.settings.mixing import ClassMixSettings, CowMixSettings, CutMixSettings, Mixing

Place = tuple[int | str, ...]
"""What the draws of a batch depend on, for example (seed, round, "mixing", step)."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """A batch of images and what the student is to be taught of each pixel."""

    images: Tensor
    """(B, channels, h, w)."""
    labels: Tensor
    """uint8 (B, h, w), 255 is ignore."""
    weights: Tensor
    """float32 (B, h, w), the factor of the pixel's loss."""
    probabilities: Tensor | None = None
    """float32 (B, C, h, w), where soft labels are taught."""

    def at(self, positions: Tensor) -> Pixels:
        """Those of the batch's items, in this order."""
        return self.each(lambda tensor: tensor[positions])

    def each(self, change: Callable[[Tensor], Tensor]) -> Pixels:
        """With every tensor changed."""
        soft = None if self.probabilities is None else change(self.probabilities)
        return Pixels(change(self.images), change(self.labels), change(self.weights), soft)

    def only(self, where: Tensor) -> Pixels:
        """All others than those `where` (bool (B, h, w)) are ignored."""
        return replace(self, labels=torch.where(where, self.labels, IGNORE))

    def pasted_onto(self, below: Pixels, mask: Tensor) -> Pixels:
        """Item by item these pixels where `mask` (bool (B, h, w)) is set, those of `below` elsewhere (eq. 2.10)."""
        soft = None
        if self.probabilities is not None and below.probabilities is not None:
            soft = torch.where(mask[:, None], self.probabilities, below.probabilities)
        return Pixels(
            torch.where(mask[:, None], self.images, below.images),
            torch.where(mask, self.labels, below.labels),
            torch.where(mask, self.weights, below.weights),
            soft,
        )


def paste_mask(
    labels: Tensor, classes: int, settings: Mixing, place: Place, favor: npt.NDArray[np.float64] | None = None
) -> Tensor:
    """Which pixels of a batch are pasted onto others, bool (B, h, w).

    Args:
        labels: uint8 (B, h, w) of the images that are pasted, 255 is ignore.
        classes: how many there are.
        settings: the kind of mask.
        place: of the batch's draws.
        favor: of ClassMix, the logarithm of each class's chance, (classes,); none: all alike.
    """
    if isinstance(settings, ClassMixSettings):
        return class_mask(labels, classes, settings.proportion, place, favor)
    if isinstance(settings, CutMixSettings):
        return cut_mask(labels, settings.proportion, place)
    if isinstance(settings, CowMixSettings):
        return cow_mask(labels, settings, place)
    return torch.zeros_like(labels, dtype=torch.bool)


def class_mask(
    labels: Tensor, classes: int, proportion: float, place: Place, favor: npt.NDArray[np.float64] | None = None
) -> Tensor:
    """ClassMask: all pixels of ⌈proportion · n⌉ of the n classes that each item shows (thesis Algorithm 1).

    Ignored pixels are no class: they are neither counted nor pasted. With `favor`, the logarithms of chances, classes
    are drawn one after the other without being put back, each time by the chances of those left.
    """
    # Drawn for all classes, present or not, so that no draw has to wait for the device to count.
    drawn = np.stack([randomness.generator(*place, item).random(classes) for item in range(len(labels))])
    if favor is not None:
        # Waiting times of rate P, whose order is that of such draws; as logarithms, since P may be next to nothing.
        drawn = np.log(-np.log1p(-np.maximum(drawn, np.finfo(float).tiny))) - favor
    rank = _on(labels.device, drawn)
    index = labels.long().clamp(max=classes)  # ignored pixels fall into a column of their own
    present = torch.zeros(len(labels), classes + 1, dtype=torch.bool, device=labels.device)
    present = present.scatter(1, index.flatten(1), True)[:, :classes]
    # The classes present come first in the order of their draws; the others after them.
    order = torch.where(present, rank, torch.inf).argsort(1).argsort(1)
    wanted = _on(labels.device, np.array([chosen_of(count, proportion) for count in range(classes + 1)]))
    chosen = torch.zeros(len(labels), classes + 1, dtype=torch.bool, device=labels.device)
    chosen[:, :classes] = order < wanted[present.sum(1)][:, None]
    return chosen.gather(1, index.flatten(1)).view(labels.shape)


def _on(device: torch.device, drawn: np.ndarray) -> Tensor:
    """What was drawn on the host, copied to a device that does not have to wait for it."""
    return torch.from_numpy(drawn).to(device, non_blocking=True)


def chosen_of(present: int, proportion: float) -> int:
    """⌈proportion · present⌉ without the error of floats: .7 of 10 are 7.

    >>> chosen_of(5, 0.5), chosen_of(10, 0.7)
    (3, 7)
    """
    return math.ceil(round(proportion * present, 9))


def cut_mask(labels: Tensor, proportion: float, place: Place) -> Tensor:
    """CutMask: a rectangle of `proportion` of the area, its shape drawn evenly on a log scale, anywhere it fits."""
    height, width = labels.shape[-2:]
    corners = np.empty((len(labels), 4), np.int64)
    for item in range(len(labels)):
        draw = randomness.generator(*place, item)
        # From as high as the image to as wide as the image.
        share = proportion ** draw.random()
        rows, columns = (max(1, round(one)) for one in (height * share, width * proportion / share))
        top, left = draw.integers(0, height - rows + 1), draw.integers(0, width - columns + 1)
        corners[item] = top, top + rows, left, left + columns
    top, bottom, left, right = _on(labels.device, corners)[:, :, None].unbind(1)
    row, column = torch.arange(height, device=labels.device), torch.arange(width, device=labels.device)
    return ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]


def cow_mask(labels: Tensor, settings: CowMixSettings, place: Place) -> Tensor:
    """CowMask: where smoothed Gaussian noise is among its highest `proportion` (thesis section 2.5.2)."""
    (height, width), device = labels.shape[-2:], labels.device
    noise, sigma = torch.empty(len(labels), height, width, device=device), np.empty(len(labels), np.float32)
    low, high = np.log(settings.sigma)
    for item in range(len(labels)):
        sigma[item] = min(height, width) * np.exp(randomness.generator(*place, item).uniform(low, high))
        of_item = torch.Generator(device).manual_seed(randomness.key(*place, "noise", item))
        noise[item] = torch.randn(height, width, generator=of_item, device=device)
    noise -= noise.mean((1, 2), keepdim=True)  # which strong smoothing would leave alone, and drown the rest in
    smooth = _smoothed(noise, _on(device, sigma)).flatten(1)
    pasted = min(max(1, round(settings.proportion * height * width)), height * width - 1)
    below = smooth.sort(1).values[:, -pasted - 1, None]  # kthvalue has no deterministic form on CUDA
    return (smooth > below).view(labels.shape)


def _smoothed(fields: Tensor, sigma: Tensor) -> Tensor:
    """Fields (B, h, w), each under a Gaussian of its own sigma (B,) in pixels; edges meet the opposite ones."""
    height, width = fields.shape[-2:]
    rows = torch.fft.fftfreq(height, device=fields.device)
    columns = torch.fft.rfftfreq(width, device=fields.device)
    frequency = rows[:, None].square() + columns.square()
    passed = torch.exp(-2 * (math.pi * sigma[:, None, None]).square() * frequency)
    return torch.fft.irfft2(torch.fft.rfft2(fields) * passed, s=(height, width))
