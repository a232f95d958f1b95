"""ST: self-training with one threshold for all classes."""

import numpy as np

from selftrain.confidence import stored_probability
from selftrain.select.cut import Counts, Cut, Shares, nth_largest, selected, whole
from selftrain.settings.selection import StSettings


def select(histograms: Counts, prior: Shares, settings: StSettings, portion: float) -> Cut:
    """The most confident `portion` of all pixels, or all whose probability reaches the fixed threshold.

    No class has a target of its own: its target is what the threshold selects.
    """
    if settings.threshold is None:
        together = histograms.sum(0, keepdims=True)
        n = np.rint([portion * together.sum()]).astype(np.int64)
        threshold = nth_largest(together, n, settings.resolution)
    else:
        threshold = np.searchsorted(stored_probability(settings.resolution), [settings.threshold])
    threshold = np.broadcast_to(threshold, len(histograms))
    return whole(histograms, threshold, selected(histograms, threshold))
