"""CBST: class-balanced self-training."""

import numpy as np

from selftrain.select.cut import Counts, Cut, Shares, nth_largest, whole
from selftrain.settings.selection import CbstSettings


def select(histograms: Counts, prior: Shares, settings: CbstSettings, portion: float) -> Cut:
    """Of the pixels predicted as each class, the most confident `portion`."""
    target = np.rint(portion * histograms.sum(1)).astype(np.int64)
    return whole(histograms, nth_largest(histograms, target, settings.resolution), target)
