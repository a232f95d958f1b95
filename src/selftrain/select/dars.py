"""DARS: distribution alignment and random sampling."""

from dataclasses import replace

import numpy as np

from selftrain.select import da
from selftrain.select.cut import Counts, Cut, Shares
from selftrain.settings.selection import DarsSettings


def select(histograms: Counts, prior: Shares, settings: DarsSettings, portion: float) -> Cut:
    """DA, then of *all* selected pixels of a class keep a random s_j = n_j / n~_j (Algorithm 1, lines 5-6)."""
    aligned = da.select(histograms, prior, settings, portion)
    fraction = aligned.target / np.maximum(1, aligned.selected(histograms))
    return replace(aligned, kept_fraction=np.minimum(fraction, aligned.kept_fraction))
