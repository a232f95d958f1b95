"""The scale of confidence: log-odds of the top class in 2**16 steps, a byte for people, and the papers' overlap.

log-odds = log p_top - log(sum of the other classes' p), from -8 to 56 in steps of 1/1024. The ends hold all that lies
beyond them. A bin and the log-odds it stands for are exact in float32, so every machine rounds alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LOW = -8.0
BINS = 2**16
STEPS = 1024
"""Bins per unit of log-odds."""

COARSE_SHIFT = 8
"""The byte in pseudo_labels.h5 is `bin >> 8`: steps of a quarter, so byte b holds log-odds from b / 4 - 8 on."""

Bins = npt.NDArray[np.integer]


def log_odds_of(bins: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The log-odds in the middle of each bin."""
    return np.asarray(bins) / STEPS + LOW


def probability_of(bins: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The probability of the top class at the middle of each bin: the sigmoid of its log-odds."""
    return 1 / (1 + np.exp(-log_odds_of(bins)))


def coarse(bins: Bins) -> npt.NDArray[np.uint8]:
    """The byte that pseudo_labels.h5 stores for each bin."""
    return (bins >> COARSE_SHIFT).astype(np.uint8)


def log_odds_of_coarse(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The lowest log-odds that a byte of pseudo_labels.h5 stands for."""
    return (values / (STEPS >> COARSE_SHIFT) + LOW).astype(np.float32)


def stored_probability(resolution: str | None) -> npt.NDArray[np.float64]:
    """Per bin the probability as `resolution` (float16, float32; None: float64) would store it, never falling."""
    return probability_of(np.arange(BINS)).astype(resolution or np.float64).astype(np.float64)


def groups(resolution: str | None) -> npt.NDArray[np.int64]:
    """Per bin the lowest bin of its group: the bins that a probability stored at `resolution` cannot tell apart.

    None: every bin is a group of its own. float16 puts all from log-odds 8.3 on into one group: the confidence
    overlap of DARS section 3.2.
    """
    if resolution is None:
        return np.arange(BINS)
    _, lowest, member = np.unique(stored_probability(resolution), return_index=True, return_inverse=True)
    return lowest[member]
