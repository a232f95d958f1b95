"""A figure of training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selftrain.report.figures.style import LINES, MUTED, STYLE, WIDTH, by_name, plain_log

SHARES = [
    "share_above_threshold",
    "mixed_weight",
    "labeled_agreement",
    "unlabeled_agreement",
    "labeled_retained",
    "unlabeled_retained",
    "branch_similarity",
]
"""Columns of train.csv that are no losses but numbers from 0 to (about) 1, the cosine of branches from -1."""


def training_figure(curves: pd.DataFrame, terms: Sequence[str], limits: tuple[float, float]) -> Figure:
    """Losses of one experiment through all its rounds, below them shares (where there are any) and the learning rate;
    lines mark where a round begins."""
    shares = [name for name in SHARES if name in curves and curves[name].notna().any()]
    heights = [4, *([1.6] if shares else []), 1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.54 * sum(heights)), layout="constrained")
        losses, *between, rate = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        _lines(losses, curves, terms)
        losses.set_yscale("log")
        losses.set_ylim(*limits)
        plain_log(losses.yaxis, "{:g}")
        losses.set_ylabel("loss")
        for axes in between:
            _lines(axes, curves, shares, LINES[len(terms) % len(LINES) :] + LINES)
            axes.set_ylim(min(0.0, *curves[shares].min()), max(1.0, *curves[shares].max()))
            axes.set_ylabel("share")
        _lines(rate, curves, ["learning_rate"], [(MUTED, "-")])
        rate.set_ylim(0)
        rate.set_ylabel("rate")
        rate.set_yticks([0, float(f"{curves.learning_rate.max():.1g}")])
        rate.set_xlabel("step, counted through all rounds")
        _mark_rounds(losses, [*between, rate], curves)
        named = by_name([losses, *between])
        columns = 2 if max(map(len, named[1])) > 12 else 4
        figure.legend(*named, loc="outside upper left", ncols=columns, frameon=False, handlelength=1.2)
        return figure


def _lines(axes: Axes, curves: pd.DataFrame, terms: Sequence[str], lines: Sequence[tuple[str, Any]] = LINES) -> None:
    """A line per term, seed and round: nothing joins the rounds, so a jump is seen."""
    seeds = curves.seed.nunique()
    for _, of in curves.groupby(["seed", "round"], sort=False):
        for position, term in enumerate(terms):
            if term in of and of[term].notna().any():
                color, dash = lines[position % len(lines)]
                how = {"color": color, "linestyle": dash, "linewidth": 1.1, "alpha": 1 if seeds == 1 else 0.6}
                known = of.dropna(subset=[term])  # where batches alternate, a row may lack one
                axes.plot(known["at"], known[term], label=term.replace("_", " "), **how)


def _mark_rounds(losses: Axes, below: Sequence[Axes], curves: pd.DataFrame) -> None:
    starts = (curves["at"] - curves.step).groupby(curves["round"]).min()
    for number, start in starts.items():
        for axes in (losses, *below):
            axes.axvline(start, color=MUTED, linewidth=0.7, linestyle=(0, (3, 3)), zorder=0)
        title = f"{number}" if number else "round 0"
        losses.annotate(title, (start, 1.01), xycoords=("data", "axes fraction"), va="bottom", color=MUTED)
