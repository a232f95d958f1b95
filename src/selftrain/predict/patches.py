"""SISC: an image's class probabilities as the mean over random overlapping patches (MLSL section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selftrain.settings.data import Size
from selftrain.settings.prediction import PatchSettings

MIB = 2**20

CACHED = 2**26
"""Bytes of class scores that a CPU works on at a time: more patches a forward are no faster there."""

Corners = npt.NDArray[np.int64]
"""Top and left of each patch, (K, 2); negative where a patch is larger than the image and hangs over."""


def place(image: Size, patch: Size, count: int, draw: np.random.Generator, *, cover: bool = False) -> Corners:
    """Random corners of `count` patches, from top to bottom; of as many as a tiling has, if `cover` and that is more.

    The first patches are a random tiling that covers every pixel, the others lie anywhere; of fewer patches than a
    tiling has, each is a random one of its tiles. A patch larger than the image holds all of it, at a random place.
    """
    tiling = [(top, left) for top in _cover(image[0], patch[0], draw) for left in _cover(image[1], patch[1], draw)]
    tiles = np.array(tiling, np.int64)
    count = max(count, len(tiles)) if cover else count
    if count < len(tiles):
        corners = draw.choice(tiles, count, replace=False)
    else:
        room = np.array(image) - patch
        anywhere = draw.integers(np.minimum(0, room), np.maximum(0, room), (count - len(tiles), 2), endpoint=True)
        corners = np.concatenate([tiles, anywhere])
    return corners[np.lexsort((corners[:, 1], corners[:, 0]))]


def tiles(image: Size, patch: Size) -> int:
    """How many patches a tiling has that covers the image."""
    return math.prod(-(-length // of_patch) for length, of_patch in zip(image, patch, strict=True))


def _cover(length: int, patch: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
    """Starts of the fewest patches that cover a line, their overlaps random."""
    if length <= patch:
        return draw.integers(length - patch, 0, 1, endpoint=True)
    patches = -(-length // patch)
    spare = patches * patch - length
    overlapped = np.sort(draw.integers(0, spare, patches - 2, endpoint=True))
    return np.arange(patches) * patch - np.concatenate([[0], overlapped, [spare]])


def coverage(image: Size, patch: Size, corners: Corners) -> npt.NDArray[np.int32]:
    """How many patches hold each pixel, (H, W)."""
    counts = np.zeros(image, np.int32)
    for top, left in corners:
        counts[max(0, top) : top + patch[0], max(0, left) : left + patch[1]] += 1
    return counts


def bands_over_patches(
    probabilities: Callable[[Tensor], Tensor],
    image: Tensor,
    settings: PatchSettings,
    draw: np.random.Generator,
    *,
    classes: int,
    fill: tuple[float, ...],
    sets: int = 1,
    enlarged: float = 1.0,
) -> Iterator[Tensor]:
    """Mean class probabilities, float32 (sets · classes, rows, W), from top to bottom.

    They come all at once, on the image's device, unless that exceeds the memory; then in bands of rows, each as soon as
    no patch is left that reaches it.

    Args:
        probabilities: of a batch of views, (B, channels, h, w) to float32 (B, sets · classes, h, w).
        image: (channels, H, W).
        settings: how many patches of which size.
        draw: where the corners come from.
        classes: how many.
        sets: how many predictions there are of each patch, one behind the other: of a network and of its branches.
        fill: color, of the image's own type, of what a patch larger than the image has around it.
        enlarged: area that the network's largest view has over a patch, for the memory.
    """
    size: Size = (image.shape[1], image.shape[2])
    height, width = settings.size
    corners = place(size, settings.size, settings.count, draw, cover=settings.cover)
    counts = torch.from_numpy(coverage(size, settings.size, corners))
    canvas, margins = _padded(image, settings.size, fill)
    corners = corners + margins
    budget = settings.memory * MIB
    channels = sets * classes
    at_once = min(budget, CACHED) if image.device.type == "cpu" else budget
    # Three planes of scores live at once for each patch: the logits at full size, what softmax makes of them, a copy.
    together = max(1, int(at_once / (3 * 4 * channels * height * width * max(1.0, enlarged))))
    a_row = 4 * channels * canvas.shape[2]
    in_bands = a_row * canvas.shape[1] > budget
    held = 2 * height if in_bands else canvas.shape[1]
    device = image.device if a_row * held <= budget else torch.device("cpu")
    whole, weight = None, torch.zeros((), dtype=torch.int32)
    if settings.whole_image or (counts == 0).any():
        weight = torch.ones_like(counts) if settings.whole_image else (counts == 0).int()
        whole = _decided(probabilities(image[None]), settings, sets)[0].to(device)
        counts += weight

    def mean(sums: Tensor, first: int) -> Tensor:
        """Of the sums of rows of the canvas that begin at `first`, without margins."""
        rows = slice(max(0, first - margins[0]), min(size[0], first + sums.shape[1] - margins[0]))
        cut = sums[:, rows.start + margins[0] - first : rows.stop + margins[0] - first]
        cut = cut[:, :, margins[1] : margins[1] + size[1]]
        if whole is not None:
            cut = cut.add_(whole[:, rows] * weight[rows].to(device))
        return cut.div_(counts[rows].to(device))

    def reaching(sums: Tensor, rows: int) -> Tensor:
        """The sums with so many rows at least."""
        lacking = torch.zeros((channels, max(0, rows - sums.shape[1]), canvas.shape[2]), device=device)
        return torch.cat([sums, lacking], 1) if lacking.shape[1] else sums

    first = 0
    sums = torch.zeros((channels, 0 if in_bands else canvas.shape[1], canvas.shape[2]), device=device)
    for start in range(0, len(corners), together):
        top, last = (int(corners[at, 0]) for at in (start, min(start + together, len(corners)) - 1))
        if in_bands and top > max(first, margins[0]):  # patches come from top to bottom, so all above is done
            sums = reaching(sums, top - first)
            yield mean(sums[:, : top - first], first)
            sums, first = sums[:, top - first :].clone(), top
        sums = reaching(sums, last + height - first)
        windows = [
            (slice(top, top + height), slice(left, left + width))
            for top, left in corners[start : start + together].tolist()
        ]
        patches = torch.stack([canvas[:, rows, columns] for rows, columns in windows])
        for (rows, columns), part in zip(windows, _decided(probabilities(patches), settings, sets), strict=True):
            sums[:, rows.start - first : rows.stop - first, columns] += part.to(device)
    yield mean(reaching(sums, canvas.shape[1] - first), first)


def _padded(image: Tensor, patch: Size, fill: tuple[float, ...]) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """The image with room for patches that hang over, and how far it lies from the top and the left."""
    size = np.array(image.shape[1:])
    margins = np.maximum(0, np.array(patch) - size)
    if not margins.any():
        return image, margins
    height, width = size + 2 * margins
    canvas = torch.tensor(fill, dtype=image.dtype, device=image.device)[:, None, None].repeat(1, height, width)
    canvas[:, margins[0] : margins[0] + size[0], margins[1] : margins[1] + size[1]] = image
    return canvas, margins


def _decided(probabilities: Tensor, settings: PatchSettings, sets: int) -> Tensor:
    """The probabilities, or of each set 1 for the top class and 0 for the others where decisions are counted."""
    if settings.combine == "probabilities":
        return probabilities
    apart = probabilities.unflatten(1, (sets, -1))
    top = apart.argmax(2, keepdim=True)
    return (apart * 0).scatter_add_(2, top, torch.ones_like(apart[:, :, :1])).flatten(1, 2)  # NaN stays NaN
