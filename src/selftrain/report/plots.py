"""The report's figures. Each is a matplotlib Figure, for a page, for Snakemake's report, or for a file."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

INK, MUTED, RULE = "#1a1a1b", "#6b6b6c", "#d8d8d9"
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
SERIES = ["#0072b2", "#d55e00", "#009e73", "#b0609a", "#a67c00", "#3a9bd0"]
"""Colors that the color-blind tell apart (after Okabe and Ito)."""
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {c: f"--series-{i}" for i, c in enumerate(SERIES)}
"""The page's own names of these colors, so that figures turn dark with it."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}


def scores_figure(summary: pd.DataFrame) -> Figure:
    """MIoU over rounds on one split, a line of dots per experiment: hollow is round 0, filled the last round."""
    means = summary.groupby(["experiment", "round"], sort=False).miou.mean() * 100
    names = list(summary.experiment.unique())
    with mpl.rc_context(STYLE):
        figure, axes = _figure(0.5 + 0.26 * len(names))
        for row, name in enumerate(names):
            values = means[name].sort_index().to_numpy()
            axes.plot(values, np.full(len(values), row), color=SERIES[0], linewidth=1.2, zorder=1)
            _dots(axes, values, row, SERIES[0], first=True)
        _rows(axes, names)
        axes.set_xlabel("mIoU, %")
        return figure


def gains_figure(gains: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Gain of each class's IoU over round 0: a bar, and as an outline what labels of the target would give
    (strategic curriculum, Figure 3)."""
    means = gains.groupby("class")[["gain", "possible"]].mean().reindex(list(classes)) * 100
    rows = np.arange(len(classes))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(0.7 + 0.24 * len(classes))
        axes.barh(rows, means.possible, 0.74, facecolor="none", edgecolor=MUTED, linewidth=1, label="target labels")
        axes.barh(rows, means.gain, 0.46, color=SERIES[0], label=str(gains.experiment.iloc[0]))
        axes.axvline(0, color=INK, linewidth=0.8)
        _rows(axes, classes)
        axes.set_xlabel("gain over round 0, points of IoU")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=1.2)
        return figure


def sizes_figure(objects: pd.DataFrame) -> Figure:
    """Share of right pixels by the size of objects on one split, a line per model (DARS Figure 5b); round 0 is dotted.

    A dot stands in the middle of an octave of sizes; pixels count over all classes and seeds.
    """
    with mpl.rc_context(STYLE):
        models = list(objects.model.unique())
        figure, axes = _figure(2.4 + 0.16 * -(-len(models) // 3))
        later = 0
        for model in models:
            of = objects[objects.model == model].sort_values("lower")
            starts = model.endswith(", round 0")
            style = ":" if starts else "-" if later < len(SERIES) else "--"
            color = INK if starts else SERIES[later % len(SERIES)]
            middle, right = np.sqrt(of.lower * of.upper), 100 * of.correct / of.pixels
            axes.plot(middle, right, style, color=color, marker="o", markersize=2.5, linewidth=1.2, label=model)
            later += not starts
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(LogLocator(base=4, numticks=9))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_ylim(0, 100)
        axes.grid()
        axes.set_xlabel("size of the object, pixels")
        axes.set_ylabel("right, % of its pixels")
        figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=1.6)
        return figure


def shares_figure(labels: pd.DataFrame, classes: Sequence[str], lowest: float) -> Figure:
    """Class shares of one experiment's pseudo-labels against the prior, on a log axis that begins at `lowest`.

    A bar is the prior, a dot a round, filled in the last one, a cross a class without pixels.
    """
    means = labels.groupby(["class", "round"])[["share", "prior"]].mean()
    with mpl.rc_context(STYLE):
        figure, axes = _figure(0.5 + 0.2 * len(classes))
        axes.set_xscale("log")
        axes.set_xlim(lowest, 1)
        _plain_log(axes.xaxis, "{:g} %", 100)
        axes.tick_params(axis="y", pad=9)
        for row, name in enumerate(classes):
            of = means.loc[name].sort_index()
            axes.plot(max(of.prior.iloc[-1], lowest), row, "|", color=INK, markersize=13, markeredgewidth=1.6)
            shares = of.share.to_numpy()
            _dots(axes, np.where(shares > 0, shares, np.nan), row, SERIES[1], first=False)
            if shares[-1] == 0:
                axes.plot(lowest, row, "x", color=SERIES[1], markersize=6, clip_on=False)
        _rows(axes, classes)
        axes.set_xlabel("share of pixels")
        return figure


def training_figure(curves: pd.DataFrame, terms: Sequence[str], limits: tuple[float, float]) -> Figure:
    """Losses of one experiment through all its rounds, below them shares (where there are any) and the learning rate;
    lines mark where a round begins."""
    shares = [name for name in SHARES if name in curves and curves[name].notna().any()]
    heights = [4, *([1.6] if shares else []), 1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 0.54 * sum(heights)), layout="constrained")
        losses, *between, rate = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        _lines(losses, curves, terms)
        losses.set_yscale("log")
        losses.set_ylim(*limits)
        _plain_log(losses.yaxis, "{:g}")
        losses.set_ylabel("loss")
        for axes in between:
            _lines(axes, curves, shares, SERIES[len(terms) % len(SERIES) :] + SERIES)
            axes.set_ylim(min(0.0, *curves[shares].min()), max(1.0, *curves[shares].max()))
            axes.set_ylabel("share")
        _lines(rate, curves, ["learning_rate"], [MUTED])
        rate.set_ylim(0)
        rate.set_ylabel("rate")
        rate.set_yticks([0, float(f"{curves.learning_rate.max():.1g}")])
        rate.set_xlabel("step, counted through all rounds")
        _mark_rounds(losses, [*between, rate], curves)
        named = _by_term([losses, *between])
        columns = 2 if shares else 4  # their names are long
        figure.legend(*named, loc="outside upper left", ncols=columns, frameon=False, handlelength=1.2)
        return figure


def inline(figure: Figure, label: str) -> Markup:
    """A figure as an SVG element for a page, in the page's own font and colors, with `label` for who cannot see it."""
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-z]+[a-z0-9]*(?:\.[a-z]+)?_\d+"', "", text)
    text = re.sub(r"font-family: [^;\"]*;", "", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    box = re.search(r'viewBox="([^"]*)"', text)
    head = Markup('<svg role="img" aria-label="{}" viewBox="{}">').format(label, box.group(1) if box else "")
    return head + Markup(re.sub(r"^<svg[^>]*>", "", text))


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, height), layout="constrained")
    return figure, figure.subplots()


def _dots(axes: Axes, values: np.ndarray, row: int, color: str, *, first: bool) -> None:
    """Small dots for rounds in between, a filled one for the last, and a hollow one where the first is round 0."""
    last = len(values) - 1
    for position, value in enumerate(values):
        hollow = position < last and (position == 0 or not first)
        axes.plot(
            value,
            row,
            "o",
            color=color,
            markersize=6 if position == last else 4.5 if hollow else 3.5,
            markerfacecolor="none" if hollow else color,
            zorder=2 + (position == last),
        )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def _lines(axes: Axes, curves: pd.DataFrame, terms: Sequence[str], colors: Sequence[str] = SERIES) -> None:
    """A line per term, seed and round: nothing joins the rounds, so a jump is seen."""
    seeds = curves.seed.nunique()
    for _, of in curves.groupby(["seed", "round"], sort=False):
        for position, term in enumerate(terms):
            if term in of and of[term].notna().any():
                color, alpha = colors[position % len(colors)], 1 if seeds == 1 else 0.6
                known = of.dropna(subset=[term])  # where batches alternate, a row may lack one
                axes.plot(
                    known["at"], known[term], color=color, linewidth=1.1, alpha=alpha, label=term.replace("_", " ")
                )


def _mark_rounds(losses: Axes, below: Sequence[Axes], curves: pd.DataFrame) -> None:
    starts = (curves["at"] - curves.step).groupby(curves["round"]).min()
    for number, start in starts.items():
        for axes in (losses, *below):
            axes.axvline(start, color=MUTED, linewidth=0.7, linestyle=(0, (3, 3)), zorder=0)
        title = f"{number}" if number else "round 0"
        losses.annotate(title, (start, 1.01), xycoords=("data", "axes fraction"), va="bottom", color=MUTED)


def _plain_log(axis: Axis, form: str, scale: float = 1) -> None:
    """Decades as plain numbers; matplotlib's own labels are mathtext, which a page cannot show."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value * scale)))
    axis.set_minor_formatter(NullFormatter())


def _by_term(panels: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    once: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            once.setdefault(name, handle)
    return list(once.values()), list(once)
