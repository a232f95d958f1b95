"""The top class of each pixel, in a fraction of the time that argmax over the first dimension takes on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from selftrain.settings.data import Size

CACHED = 2**18
"""Values that are worked on at a time on a CPU, so that each pass over them stays in the cache."""


def top_classes(scores: Tensor, size: Size | None = None) -> Tensor:
    """The class with the highest of scores (B, C, h, w), the lowest id among equals: uint8 (B, H, W).

    H and W are the scores' own or, where a size is given, that to which they are enlarged.
    """
    classes = torch.empty((len(scores), *(size or scores.shape[2:])), dtype=torch.uint8, device=scores.device)
    for where, part, scratch in parts(scores, size):
        classes[where] = lowest_top(part, scratch)
    return classes


def lowest_top(values: Tensor, scratch: Tensor) -> Tensor:
    """The lowest class with the top value, long (..., W) of float32 (C, ..., W)."""
    return lowest_equal(values, values.amax(0), scratch)


def lowest_equal(values: Tensor, top: Tensor, scratch: Tensor) -> Tensor:
    """The lowest class whose value is the top one, in a fourth of the time of argmax over the first dimension.

    Comparing into floats and not into booleans is what makes it fast on a CPU. Scratch may be the values themselves.
    """
    ranks = torch.arange(len(values), 0, -1, dtype=values.dtype, device=values.device)
    rank = torch.eq(values, top, out=scratch).mul_(each_class(ranks, values)).amax(0)
    return (len(values) - rank.clamp_(min=1)).long()  # NaN equals nothing: it has some class until it is reported


def each_class(of_classes: Tensor, values: Tensor) -> Tensor:
    """Numbers of the classes, (C,), in a shape that goes with values (C, ..., W)."""
    return of_classes.view(-1, *[1] * (values.dim() - 1))


def resized(scores: Tensor, size: Size) -> Tensor:
    """Float32 scores at a size, one class behind the other, which is how all here is fast on a CPU."""
    scores = scores.float().contiguous()
    if scores.shape[-2:] == size:
        return scores
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def parts(scores: Tensor, size: Size | None = None) -> Iterator[tuple[tuple[int | slice, ...], Tensor, Tensor]]:
    """Scores (B, C, h, w) in float32 parts (C, ..., W): of each image rows that stay in the cache, on a GPU all.

    With each part comes where in (B, H, W) it is, and a scratch of its shape, which is the same memory for all parts:
    allocating it anew costs a CPU as much as a pass over the scores. Given a size, they are enlarged to it on the way,
    an image's columns first and then the rows of each part, in two thirds of the time, deciding included, that
    enlarging whole images takes.
    """
    batch, channels, *own = scores.shape
    height, width = size or own
    if scores.is_cuda:
        whole = resized(scores, (height, width)).movedim(1, 0)
        yield (slice(None),), whole, torch.empty_like(whole)
        return
    between = own[0] != height
    rows = max(1, CACHED // (channels * width * (2 if between else 1)))
    scratch, enlarged = (scores.new_empty((channels, min(rows, height), width), dtype=torch.float32) for _ in range(2))
    above, below, weight = _neighbors(own[0], height)
    for image in range(batch):
        wide = resized(scores[image : image + 1], (own[0], width))[0]
        for start in range(0, height, rows):
            part = slice(start, start + rows)
            beside = scratch[:, : height - start]
            if between:
                values = torch.index_select(wide, 1, above[part], out=enlarged[:, : height - start])
                values.lerp_(torch.index_select(wide, 1, below[part], out=beside), weight[part, None])
            else:
                values = wide[:, part]
            yield (image, part), values, beside


def _neighbors(rows: int, enlarged: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each enlarged row the rows above and below it, and the weight of the latter, as in bilinear interpolation."""
    at_row = ((torch.arange(enlarged) + 0.5) * (rows / max(1, enlarged)) - 0.5).clamp_(min=0)
    above = at_row.long()
    return above, (above + 1).clamp_(max=rows - 1), at_row - above
