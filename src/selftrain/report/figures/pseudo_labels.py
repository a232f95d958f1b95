"""Figures of data and pseudo-labels: class shares, places of classes, confidence and where it was cut."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from selftrain.confidence import BINS, COARSE_SHIFT, LOW, STEPS, log_odds_of
from selftrain.report.figures.style import INK, MUTED, RULE, SERIES, STYLE, dots, named_rows, panels, plain_log, single

PLACES = LinearSegmentedColormap.from_list("places", ["#0072b200", "#0072b2"])
"""From clear to a color that light and dark pages show."""
MOST = 60
"""Classes that have a panel of their own: of more, the most frequent have."""
PROBABILITIES = {0.01: "1", 0.5: "50", 0.99: "99", 0.9999: "99.99", 0.999999: "99.9999"}
"""That an axis of log-odds names, in percent; between them is a factor of a hundred in odds."""


def shares_figure(
    labels: pd.DataFrame, classes: Sequence[str], lowest: float, truth: Mapping[str, float] | None = None
) -> Figure:
    """Class shares of one experiment's pseudo-labels against the labeled set's, on a log axis that begins at `lowest`.

    A bar is the labeled set's share, the prior; a diamond that of the hidden truth, where it is given; a dot a round,
    filled in the last one; a cross a class without pixels.
    """
    means = labels.groupby(["class", "round"])[["share", "prior"]].mean()
    with mpl.rc_context(STYLE):
        figure, axes = single(0.5 + 0.2 * len(classes))
        axes.set_xscale("log")
        axes.set_xlim(lowest, 1)
        plain_log(axes.xaxis, "{:g} %", 100)
        axes.tick_params(axis="y", pad=9)
        for row, name in enumerate(classes):
            of = means.loc[name].sort_index()
            axes.plot(max(of.prior.iloc[-1], lowest), row, "|", color=INK, markersize=13, markeredgewidth=1.6)
            if truth is not None and truth[name] > 0:
                axes.plot(max(truth[name], lowest), row, "D", color=SERIES[2], markersize=4.5, zorder=4)
            shares = of.share.to_numpy()
            dots(axes, np.where(shares > 0, shares, np.nan), row, SERIES[1])
            if shares[-1] == 0:
                axes.plot(lowest, row, "x", color=SERIES[1], markersize=6, clip_on=False)
        named_rows(axes, classes)
        axes.set_xlabel("share of pixels")
        return figure


@dataclass(frozen=True, eq=False)
class Confidence:
    """Of each class the pixels predicted as it by confidence, and where a round cut them.

    Attributes:
        pixels: by class and quarter of a unit of log-odds, int64 (C, BINS >> COARSE_SHIFT).
        threshold: the lowest log-odds that is kept, (C,); infinite where nothing is.
        kept_fraction: of the pixels that reach it, (C,).
    """

    pixels: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    kept_fraction: npt.NDArray[np.float64]

    @classmethod
    def of(cls, histogram: npt.NDArray[np.int64], cut: pd.DataFrame) -> Confidence:
        """Of pixels by class and bin, (C, BINS), and the table that select wrote."""
        bins = cut.threshold_bin.to_numpy()
        return cls(
            histogram.reshape(len(histogram), -1, 1 << COARSE_SHIFT).sum(2),
            np.where(bins < BINS, log_odds_of(bins), np.inf),
            cut.kept_fraction.to_numpy(float),
        )


def confidence_figure(of: Confidence, classes: Sequence[str]) -> Figure:
    """Histograms of confidence, one per class, filled where it was kept, the cut drawn in (DARS Figure 3).

    The axis is log-odds, on which the top of the scale does not collapse into p = 1, named by probabilities. Each
    class has its own height; what is kept only in part is paler.
    """
    edges = LOW + np.arange(of.pixels.shape[1] + 1) * (1 << COARSE_SHIFT) / STEPS
    low, high = _range(of.pixels.sum(0), edges)
    with mpl.rc_context(STYLE):
        rows = _most(of.pixels.sum(1))
        figure, grid = panels(len(rows), 3, 0.78)
        for axes, row in zip(grid, rows, strict=True):
            pixels, threshold, kept = of.pixels[row], of.threshold[row], of.kept_fraction[row]
            heights = pixels / max(1, pixels.max())
            _fill(axes, heights, edges, color=RULE)
            if np.isfinite(threshold):
                above = np.where(edges[1:] > threshold, heights, 0)
                _fill(axes, above, edges, color=SERIES[0], alpha=0.35 + 0.65 * kept)
                axes.axvline(threshold, color=SERIES[1], linewidth=1)
            axes.set_title(classes[row], loc="left", fontsize=8, color=INK, pad=2)
            told = "never predicted" if not pixels.any() else "none kept" if not np.isfinite(threshold) else ""
            axes.text(0.5, 0.4, told, transform=axes.transAxes, ha="center", color=MUTED, fontsize=8)
            axes.spines["left"].set_visible(False)
            axes.set_yticks([])
            axes.set_ylim(0, 1.05)
        _name_probabilities(grid, low, high)
        of_all = f"; {len(rows)} of {len(classes)} classes" if len(rows) < len(classes) else ""
        label = f"probability of the predicted class, %, on an axis of log-odds{of_all}"
        figure.supxlabel(label, fontsize=8, color=MUTED)
        return figure


def _fill(axes: Axes, heights: npt.NDArray[np.number], edges: npt.NDArray[np.float64], **style: Any) -> None:
    """Fill a histogram, as `Axes.stairs` does, which also looks, slowly, for limits of the axes that are set here."""
    axes.add_artist(StepPatch(heights, edges, fill=True, linewidth=0, **style))


def _most(amounts: npt.NDArray[np.number]) -> list[int]:
    """The classes with the largest amounts, `MOST` of them, in their own order."""
    return sorted(np.argsort(-amounts, kind="stable")[:MOST].tolist())


def _range(pixels: npt.NDArray[np.int64], edges: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Log-odds between which nearly all pixels are."""
    total = pixels.cumsum()
    if not total[-1]:
        return LOW, -LOW
    first, last = np.searchsorted(total, [total[-1] * 0.001, total[-1] * 0.999])
    return float(edges[first]), float(edges[min(last + 1, len(pixels))])


def _name_probabilities(grid: Sequence[Axes], low: float, high: float) -> None:
    places = {math.log(p / (1 - p)): text for p, text in PROBABILITIES.items()}
    seen = {place: text for place, text in places.items() if low <= place <= high}
    if len(seen) < 2:
        seen = {place: f"{100 / (1 + math.exp(-place)):.3g}" for place in (low, high)}
    for axes in grid:
        axes.set_xlim(low, high)
        axes.set_xticks(list(seen), list(seen.values()), fontsize=7)


def places_figure(frequency: npt.NDArray[np.float32], classes: Sequence[str]) -> Figure:
    """How often each place of an image shows each class, (C, h, w): a map per class, the stronger, the more often
    (thesis Figures 5.1 to 5.4). Each map has its own scale, whose end is named."""
    with mpl.rc_context(STYLE):
        rows = _most(frequency.sum((1, 2)))
        figure, grid = panels(len(rows), 4, 0.78)
        for axes, row in zip(grid, rows, strict=True):
            of, most = frequency[row], float(frequency[row].max())
            axes.imshow(of / most if most else of, cmap=PLACES, vmin=0, vmax=1, interpolation="bilinear")
            axes.set_title(classes[row], loc="left", fontsize=8, color=INK, pad=2)
            axes.set_xlabel(f"to {most:.0%}" if most else "nowhere", fontsize=7, labelpad=1)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(True)
        if len(rows) < len(classes):
            figure.supxlabel(f"{len(rows)} of {len(classes)} classes", fontsize=8, color=MUTED)
        return figure
