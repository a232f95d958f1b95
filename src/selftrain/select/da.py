"""DA: distribution alignment, the first half of DARS."""

import numpy as np

from selftrain.select.cut import Counts, Cut, Shares, nth_largest, whole
from selftrain.settings.selection import PolicySettings


def select(histograms: Counts, prior: Shares, settings: PolicySettings, portion: float) -> Cut:
    """Of each class its share r_j of `portion` of all pixels: n_j = alpha * N * H * W * r_j (DARS eq. 4).

    The group of equal confidence at the threshold is kept whole (Algorithm 1, lines 2-3).
    """
    target = np.rint(portion * histograms.sum() * prior).astype(np.int64)
    return whole(histograms, nth_largest(histograms, target, settings.resolution), target)
