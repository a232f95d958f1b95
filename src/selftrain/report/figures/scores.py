"""Figures of scores: mIoU over rounds, gains by class, accuracy by object size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from selftrain.report.figures.style import INK, LINES, MUTED, RULE, SERIES, STYLE, named_rows, single, spread

MARKERS = "os^Dv"
"""By which models of round 0 are told apart."""


def curves_figure(summary: pd.DataFrame) -> Figure:
    """MIoU over rounds on one split, a line per experiment from round 0 on, named at its end.

    Of several seeds the line is the mean, its bars the sample's standard deviation.
    """
    values = summary.assign(miou=summary.miou * 100).groupby(["experiment", "round"], sort=False).miou
    means, deviations = values.mean(), values.std()
    names, last = list(summary.experiment.unique()), int(summary["round"].max())
    ends = [means[name].sort_index().iloc[-1] for name in names]
    with mpl.rc_context(STYLE):
        height = max(2.4, 0.7 + 0.165 * len(names))
        figure, axes = single(height)
        bars = deviations.fillna(0)
        low, high = (means - bars).min(), (means + bars).max()
        room = max(high - low, 1) * 0.06
        axes.set_ylim(low - room, high + room)
        lines = (high - low + 2 * room) / (height - 0.6)  # points of mIoU an inch
        for position, (name, place) in enumerate(zip(names, spread(ends, 0.155 * lines, low, high), strict=True)):
            color, dash = LINES[position % len(LINES)]
            of, deviation = means[name].sort_index(), deviations[name].sort_index()
            axes.plot(of.index, of, color=color, linestyle=dash, linewidth=1.3, marker="o", markersize=3, clip_on=False)
            if deviation.notna().any():
                axes.errorbar(of.index, of, deviation, color=color, fmt="none", elinewidth=0.9, alpha=0.6)
            end = (of.index[-1], of.iloc[-1])
            axes.plot([end[0], last + 0.06], [end[1], place], color=RULE, linewidth=0.7, zorder=0, clip_on=False)
            text = f"{of.iloc[-1]:.1f}  {name}"
            axes.annotate(text, (last + 0.08, place), color=color, va="center", annotation_clip=False, fontsize=8.5)
        axes.set_xlim(0, max(last, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("round")
        axes.set_ylabel("mIoU, %")
        return figure


def seeds_figure(scores: pd.DataFrame, references: Sequence[str] = ()) -> Figure:
    """MIoU in the end, a row per experiment: a hollow dot per seed, a filled one and its value for their mean.

    Args:
        scores: experiment, seed, miou; of experiments without any score there is an empty row.
        references: experiments that the others are seen against, such as a start and an oracle: a line at their mean.
    """
    scores = scores.assign(miou=scores.miou.astype(float) * 100)
    means = scores.groupby("experiment", sort=False).miou.mean()
    with mpl.rc_context(STYLE):
        figure, axes = single(0.5 + 0.22 * len(means))
        for name in references:
            if name in means and np.isfinite(means[name]):
                axes.axvline(means[name], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
        for row, (name, mean) in enumerate(zip(map(str, means.index), means, strict=True)):
            seeds = scores[scores.experiment == name].miou.to_numpy()
            color = INK if name in references else SERIES[0]
            if len(seeds) > 1:
                axes.plot(seeds, np.full(len(seeds), row), "o", color=color, markersize=4, markerfacecolor="none")
            axes.plot(mean, row, "o", color=color, markersize=6)
            if np.isfinite(mean):
                axes.text(1.01, row, f"{mean:.1f}", transform=axes.get_yaxis_transform(), va="center", color=MUTED)
        named_rows(axes, list(map(str, means.index)))
        axes.set_xlabel("mIoU, %")
        return figure


def gains_figure(gains: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Gain of each class's IoU over round 0: a bar, and as an outline what labels of the target would give
    (strategic curriculum, Figure 3)."""
    means = gains.groupby("class")[["gain", "possible"]].mean().reindex(list(classes)) * 100
    rows = np.arange(len(classes))
    with mpl.rc_context(STYLE):
        figure, axes = single(0.7 + 0.24 * len(classes))
        axes.barh(rows, means.possible, 0.74, facecolor="none", edgecolor=MUTED, linewidth=1, label="target labels")
        axes.barh(rows, means.gain, 0.46, color=SERIES[0], label=str(gains.experiment.iloc[0]))
        axes.axvline(0, color=INK, linewidth=0.8)
        named_rows(axes, classes)
        axes.set_xlabel("gain over round 0, points of IoU")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=1.2)
        return figure


def sizes_figure(objects: pd.DataFrame) -> Figure:
    """Share of right pixels by the size of objects on one split, a line per model (DARS Figure 5b); round 0 is dotted.

    A dot stands in the middle of an octave of sizes; pixels count over all classes and seeds.
    """
    with mpl.rc_context(STYLE):
        models = list(objects.model.unique())
        figure, axes = single(2.4 + 0.16 * -(-len(models) // 3))
        starts = [model for model in models if model.endswith(", round 0")]
        others = [model for model in models if model not in starts]
        looks = {model: (INK, ":", MARKERS[at % len(MARKERS)]) for at, model in enumerate(starts)}
        looks |= {model: (*LINES[at % len(LINES)], "o") for at, model in enumerate(others)}
        for model in models:
            of = objects[objects.model == model].sort_values("lower")
            color, dash, marker = looks[model]
            how: dict[str, Any] = {
                "color": color,
                "linestyle": dash,
                "marker": marker,
                "markersize": 3,
                "linewidth": 1.2,
            }
            axes.plot(np.sqrt(of.lower * of.upper), 100 * of.correct / of.pixels, label=model, **how)
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
