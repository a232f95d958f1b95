"""A figure of how far probabilities can be trusted."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from selftrain.report.figures.style import INK, MUTED, RULE, SERIES, STYLE, panels


def reliability_figure(reliability: pd.DataFrame) -> Figure:
    """Accuracy by the top class's probability, before calibration and after it, a panel per split (Guo et al. 2017,
    Figure 4). On the diagonal a probability is what it says; a larger dot has more pixels.

    Args:
        reliability: reliability.csv of a calibrator.
    """
    splits = list(reliability.split.unique())
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(splits), min(3, len(splits)), 4.2 / min(3, len(splits)))
        for axes, split in zip(grid, splits, strict=True):
            axes.plot([0, 100], [0, 100], color=RULE, linewidth=1, zorder=0)
            for calibrated, color in (("before", SERIES[1]), ("after", SERIES[0])):
                of = reliability[(reliability.split == split) & (reliability.calibrated == calibrated)]
                of = of[of.pixels > 0]
                sizes = 6 + 60 * of.pixels / max(1, of.pixels.max())
                axes.plot(100 * of.confidence, 100 * of.accuracy, color=color, linewidth=1.1, label=calibrated)
                axes.scatter(100 * of.confidence, 100 * of.accuracy, sizes, color=color, alpha=0.55, linewidths=0)
            axes.set_title(split, loc="left", fontsize=8, color=INK, pad=2)
            axes.set_xlim(0, 100)
            axes.set_ylim(0, 100)
            axes.set_aspect("equal")
        figure.supxlabel("probability of the top class, %", fontsize=8, color=MUTED)
        figure.supylabel("right, %", fontsize=8, color=MUTED)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
        return figure
