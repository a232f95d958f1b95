"""A figure of the models that were trained, and which started from which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from selftrain.report.figures.style import INK, MUTED, RULE, SERIES, STYLE, WIDTH


@dataclass(frozen=True)
class Node:
    """A training: where it stands, how it was selected for, what it took."""

    name: str
    """Of the experiment, or of the pretraining."""
    round: int
    before: str
    """The pretraining that the experiment starts from or is compared with; of a pretraining its own name."""
    continues: bool
    """Whether it starts from the weights of the model before it."""
    note: str


def models_figure(nodes: Sequence[Node]) -> Figure:
    """The models of a task as a graph, a column per round: from a pretraining to the experiments that share it.

    A solid line: the training starts from those weights; a dotted one: it starts anew and is only compared with them.
    """
    rows = {name: row for row, name in enumerate(dict.fromkeys(node.name for node in nodes if node.round))}
    starts = {node.name: node for node in nodes if node.round == 0}
    sharing = {name: [rows[n.name] for n in nodes if n.round == 1 and n.before == name] for name in starts}
    alone = [name for name, of in sharing.items() if not of]
    place = {name: sum(of) / len(of) if of else len(rows) + alone.index(name) for name, of in sharing.items()}
    depth, last = len(rows) + len(alone), max(node.round for node in nodes)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.6 * WIDTH, 0.4 + 0.3 * depth), layout="constrained")
        axes = figure.subplots()
        at: dict[tuple[str, int], tuple[float, float]] = {(name, 0): (0, place[name]) for name in starts}
        at |= {(node.name, node.round): (node.round, rows[node.name]) for node in nodes if node.round}
        for node in nodes:
            x, y = at[node.name, node.round]
            if node.round:
                x0, y0 = at[node.before, 0] if node.round == 1 else at[node.name, node.round - 1]
                style = "-" if node.continues else ":"
                axes.plot([x0, x - 0.5, x], [y0, y, y], style, color=MUTED, linewidth=0.9, zorder=0)
            axes.plot(x, y, "o", color=SERIES[0] if node.round else INK, markersize=5)
            if node.round:
                axes.annotate(node.note, (x, y), (0, 4), textcoords="offset points", ha="center", fontsize=7.5)
            else:
                text = f"{node.name}, {node.note}" if node.note else node.name
                axes.annotate(text, (x, y), (-7, 0), textcoords="offset points", ha="right", va="center")
        for name, row in rows.items():
            axes.annotate(name, (last, row), (12, 0), textcoords="offset points", va="center", color=INK)
        axes.set_xlim(-0.1, last + 0.1)
        axes.set_ylim(depth - 0.5, -0.9)
        axes.set_xticks(range(last + 1), ["round 0", *map(str, range(1, last + 1))])
        axes.set_yticks([])
        axes.xaxis.tick_top()
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.grid(axis="x", color=RULE)
        return figure
