"""A cut: what a selection policy decides. Every policy is a few lines over the functions here.

A policy is a pure function from per-class histograms of confidence and the prior to a cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from selftrain.confidence import BINS, groups, log_odds_of
from selftrain.errors import UserError
from selftrain.written import read_table

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

COLUMNS = {
    "class": str,
    "predicted": np.int64,
    "predicted_share": float,
    "prior": float,
    "mean_size": float,
    "target": np.int64,
    "threshold_bin": np.int64,
    "threshold_log_odds": float,
    "threshold_probability": float,
    "selected": np.int64,
    "kept_fraction": float,
}


@dataclass(frozen=True, eq=False)
class Cut:
    """Per class: the lowest bin that is kept (BINS: none is), the fraction of those kept, the pixels aimed at."""

    threshold: Counts
    kept_fraction: Shares
    target: Counts

    def selected(self, histograms: Counts) -> Counts:
        """How many pixels of each class reach the threshold, (C,)."""
        return selected(histograms, self.threshold)

    def kept(self, histograms: Counts) -> Counts:
        """How many of them are expected to be kept, (C,)."""
        return np.rint(self.selected(histograms) * self.kept_fraction).astype(np.int64)


def at_or_above(histograms: Counts) -> Counts:
    """Pixels of each class in each bin and all higher ones, (C, BINS)."""
    return histograms[:, ::-1].cumsum(1)[:, ::-1]


def selected(histograms: Counts, threshold: Counts) -> Counts:
    """Pixels of each class that reach its threshold, (C,)."""
    none_at_the_end = np.pad(at_or_above(histograms), ((0, 0), (0, 1)))
    return np.take_along_axis(none_at_the_end, threshold[:, None], 1)[:, 0]


def nth_largest(histograms: Counts, n: Counts, resolution: str | None) -> Counts:
    """Per class the n-th largest confidence, as the lowest bin of its group at `resolution`, (C,).

    All pixels from that bin on are selected, so ties are kept (DARS section 3.2: "not smaller than the threshold").
    n <= 0: BINS, nothing is selected. n beyond the pixels that exist: the smallest confidence, all are.
    """
    counts = at_or_above(histograms)
    n = np.clip(n, 0, counts[:, 0])
    bins = (counts >= n[:, None]).sum(1) - 1
    return np.where(n > 0, groups(resolution)[bins], BINS)


def whole(histograms: Counts, threshold: Counts, target: Counts) -> Cut:
    """The cut that keeps every pixel which reaches the threshold."""
    return Cut(threshold, (selected(histograms, threshold) > 0).astype(float), target)


def kl_divergence(prior: Shares, counts: Counts, classes: Sequence[str]) -> tuple[float, list[str]]:
    """KL(prior || shares of counts), in nats, over the classes that have pixels (DARS Table 5).

    Both are scaled to sum to 1 over those classes. Returns it with the names of the classes left out: those with a
    prior and no pixels. NaN where nothing has both.
    """
    present = counts > 0
    left_out = [name for name, out in zip(classes, ~present & (prior > 0), strict=True) if out]
    p, q = prior[present], counts[present]
    if not p.sum() > 0:
        return float("nan"), left_out
    p, q = p / p.sum(), q / q.sum()
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0)
    return float(terms.sum()), left_out


def read_cut(path: Path | str, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """The table that select wrote, one row per class.

    Raises:
        UserError: it is missing, no cut, or not about `classes`.
    """
    table = read_table(path, list(COLUMNS), "run select again").astype(COLUMNS)
    if classes is not None and tuple(table["class"]) != tuple(classes):
        raise UserError(f"{path}: is about {tuple(table['class'])}, not {tuple(classes)}; run select again")
    given = table[table.threshold_bin.lt(BINS) & table.threshold_log_odds.notna()]
    if not np.allclose(given.threshold_log_odds, log_odds_of(given.threshold_bin)):
        raise UserError(f"{path}: its bins are not those of this version; run select again")
    return table
