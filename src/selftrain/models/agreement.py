"""How far the branches of a network agree (strategic curriculum, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def agreement(decisions: Sequence[Tensor]) -> Tensor:
    """How many branches name the most frequent class of each pixel: f_m of eqs. 1 and 2, uint8 (..., h, w).

    The variation ratio of eq. 3 is 1 - f_m / E.

    Args:
        decisions: of each of the E branches the top class of each pixel, integers (..., h, w).
    """
    votes = torch.stack(list(decisions))
    most = torch.zeros_like(votes[0], dtype=torch.uint8)
    for one in votes:
        most = torch.maximum(most, (votes == one).sum(0, dtype=torch.uint8))
    return most
