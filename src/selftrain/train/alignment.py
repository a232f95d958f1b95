"""Distribution alignment: pushing predicted classes towards given shares (thesis section 2.5.6)."""

from __future__ import annotations

import torch
from torch import Tensor

from selftrain.train.processes import total


def align(probabilities: Tensor, target: Tensor, average: Tensor) -> Tensor:
    """Probabilities times target / average, normalized again (ReMixMatch, thesis section 2.5.6).

    Args:
        probabilities: float32 (B, C, h, w).
        target: (C,), the shares that classes should have; a class of share 0 is never predicted.
        average: (C,), the shares that they had lately.
    """
    ratio = target / average.clamp(min=1e-12)
    # As logarithms, so that classes too improbable for float32 still share what a class of share 0 leaves.
    odds = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log() + ratio.log()[:, None, None]
    return odds.softmax(1)


def shares_of(probabilities: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels, of all processes, (C,); NaN if there is none.

    Args:
        probabilities: (B, C, h, w).
        valid: bool (B, h, w).
    """
    return total((probabilities * valid[:, None]).sum((0, 2, 3))) / total(valid.sum())


def run_on(average: Tensor, shares: Tensor, decay: float) -> None:
    """Move a running average towards a batch's shares, in place; NaN (no valid pixel) moves nothing."""
    average.lerp_(torch.where(shares.isnan(), average, shares), 1 - decay)
