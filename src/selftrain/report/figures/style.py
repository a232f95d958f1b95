"""How all figures look, and how one becomes markup for a page or a file."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

INK, MUTED, RULE = "#1a1a1b", "#6b6b6c", "#d8d8d9"
SERIES = ["#0072b2", "#d55e00", "#009e73", "#b0609a", "#a67c00", "#3a9bd0"]
"""Colors that the color-blind tell apart (after Okabe and Ito)."""
DASHES = ["-", (0, (5, 2)), (0, (1.5, 1.5))]
"""Lines beyond as many as there are colors begin the colors anew, dashed."""
LINES = [(color, dash) for dash in DASHES for color in SERIES]
"""Color and dash of one line after the other."""
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {c: f"--series-{i}" for i, c in enumerate(SERIES)}
"""The page's own names of these colors, so that figures turn dark with it."""
WIDTH = 4.6
"""Of a figure, in inches."""
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


def svg(figure: Figure, label: str) -> str:
    """A figure as an SVG file, on white. Equal figures of one label give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": label}):
        FigureCanvasSVG(figure)
        if (
            engine := figure.get_layout_engine()
        ) is not None:  # else savefig draws twice, the first time for the layout
            engine.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue().replace("<svg ", '<svg style="background: white" ', 1)


def inline(svg: str, label: str) -> Markup:
    """The file as an element for a page, in the page's own font and colors, with `label` for who cannot see it."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-z]+[a-z0-9]*(?:\.[a-z]+)?_\d+"', "", text)
    text = re.sub(r"font-family: [^;\"]*;", "", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    box = re.search(r'viewBox="([^"]*)"', text)
    head = Markup('<svg role="img" aria-label="{}" viewBox="{}">').format(label, box.group(1) if box else "")
    return head + Markup(re.sub(r"^<svg[^>]*>", "", text))


def single(height: float) -> tuple[Figure, Axes]:
    """A figure of one panel, so many inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels side by side, each row `height` inches high, on common axes."""
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 0.3 + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for empty in grid[count:]:
        empty.set_visible(False)
    return figure, grid[:count]


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row per name, the first on top."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def dots(axes: Axes, values: np.ndarray, row: int, color: str) -> None:
    """Of a row the hollow dots of earlier rounds, and the filled one of the last."""
    last = len(values) - 1
    for position, value in enumerate(values):
        axes.plot(
            value,
            row,
            "o",
            color=color,
            markersize=6 if position == last else 4.5,
            markerfacecolor=color if position == last else "none",
            zorder=2 + (position == last),
        )


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels, each as near to its value as a distance of `gap` between any two allows, within bounds.

    >>> spread([1.0, 1.1, 5.0], 1.0, 0.0, 10.0)
    [0.55, 1.55, 5.0]
    """
    order = np.argsort(values, kind="stable")
    blocks: list[tuple[float, int]] = []  # of labels that touch: the mean of what their first one wants, how many
    for rank in order:
        blocks.append((float(values[rank]), 1))
        while len(blocks) > 1 and blocks[-1][0] < blocks[-2][0] + gap * blocks[-2][1]:
            (second, of_second), (first, of_first) = blocks.pop(), blocks.pop()
            together = of_first + of_second
            blocks.append(((first * of_first + (second - gap * of_first) * of_second) / together, together))
    placed = [first + gap * at for first, count in blocks for at in range(count)]
    ceiling = [min(place, high - gap * (len(placed) - 1 - at)) for at, place in enumerate(placed)]
    floored = [max(place, low + gap * at) for at, place in enumerate(ceiling)]
    found = [0.0] * len(placed)
    for rank, place in zip(order, floored, strict=True):
        found[rank] = round(place, 9)
    return found


def plain_log(axis: Axis, form: str, scale: float = 1) -> None:
    """Decades as plain numbers, or, where the limits leave fewer than two, round ones; matplotlib's own labels are
    mathtext, which a page cannot show."""
    low, high = np.log10(axis.get_view_interval())
    if np.floor(high) - np.ceil(low) < 1:
        axis.set_major_locator(MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value * scale)))
    axis.set_minor_formatter(NullFormatter())


def by_name(of: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """What a legend of several panels names, each name once."""
    once: dict[str, Any] = {}
    for axes in of:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            once.setdefault(name, handle)
    return list(once.values()), list(once)
