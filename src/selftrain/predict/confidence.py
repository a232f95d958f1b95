"""From logits, or summed probabilities, to the top class and its log-odds in bins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from selftrain.confidence import BINS, LOW, STEPS
from selftrain.models.top import each_class, lowest_equal, lowest_top, parts
from selftrain.settings.data import Size

UNDEFINED = -1
"""The bin of a pixel whose logits are NaN or infinite."""


def decide(logits: Tensor, thresholds: Tensor | None = None, size: Size | None = None) -> tuple[Tensor, Tensor]:
    """The top class of each pixel and its confidence; with thresholds, the class with the highest p_c / t_c.

    The log-odds are log p_c - log(sum of the other p): the chosen class is zeroed after exp(z - max) and the rest
    summed, so nothing is lost to 1 - p. Equals go to the lowest class id.

    Args:
        logits: (B, C, h, w).
        thresholds: t_c > 0, float32 (C,); infinite for a class that is never to be chosen.
        size: H and W, to which logits are enlarged; their own unless given.

    Returns:
        uint8 (B, H, W) class ids and int32 (B, H, W) bins, as `selftrain.confidence` counts them,
        `UNDEFINED` where logits are not finite. Nobody looks at that here, since the look would make a GPU wait.
    """
    return _by_parts(logits, partial(_from_logits, thresholds=thresholds), size)


def decide_probabilities(means: Tensor, thresholds: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As `decide`, from mean probabilities over several predictions: float32 (B, C, H, W), on any common scale."""
    return _by_parts(means, partial(_from_probabilities, thresholds=thresholds))


def _from_logits(logits: Tensor, scratch: Tensor, thresholds: Tensor | None) -> tuple[Tensor, Tensor]:
    """Classes (long) and log-odds, (..., W), of float32 (C, ..., W)."""
    top = logits.amax(0)
    if thresholds is None:
        classes, lead = lowest_equal(logits, top, scratch), top - top  # NaN where the top is infinite, else 0
    else:
        classes = lowest_top(torch.sub(logits, each_class(thresholds.log(), logits), out=scratch), scratch)
        lead = logits.gather(0, classes[None])[0] - top
    others = torch.sub(logits, top, out=scratch).exp_().scatter_(0, classes[None], 0.0).sum(0)
    return classes, lead - others.log_()


def _from_probabilities(means: Tensor, scratch: Tensor, thresholds: Tensor | None) -> tuple[Tensor, Tensor]:
    """Classes (long) and log-odds, (..., W), of float32 (C, ..., W)."""
    scores = means
    if thresholds is not None:
        limits = each_class(thresholds, means)
        scores = (means / limits).masked_fill_(limits.isinf(), -1)  # below a probability that is exactly 0
    classes = lowest_top(scores, scratch)
    chosen = means.gather(0, classes[None])[0]
    others = scratch.copy_(means).scatter_(0, classes[None], 0.0).sum(0)
    return classes, chosen.log_() - others.log_()


def _by_parts(
    values: Tensor, rule: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], size: Size | None = None
) -> tuple[Tensor, Tensor]:
    """Apply `rule` to part after part, and to a scratch of its shape."""
    classes = torch.empty((len(values), *(size or values.shape[2:])), dtype=torch.uint8, device=values.device)
    log_odds = torch.empty(classes.shape, device=values.device)
    for where, part, scratch in parts(values, size):
        classes[where], log_odds[where] = rule(part, scratch)
    return classes, _quantize(log_odds)


def _quantize(log_odds: Tensor) -> Tensor:
    """The nearest bin of each, in place; what lies beyond the scale goes to its ends."""
    return log_odds.sub_(LOW).mul_(STEPS).round_().clamp_(0, BINS - 1).nan_to_num_(UNDEFINED).int()
