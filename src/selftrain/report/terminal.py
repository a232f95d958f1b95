"""summary.csv in a terminal: rounds as columns."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from selftrain.report.results import read_summary
from selftrain.report.tables import over_seeds, tone_of

TONES = {"up": "green", "down": "red", "": ""}
WIDE = 10_000
"""A width that nothing is cut or folded at."""


def print_summary(path: Path, console: Console | None = None) -> None:
    """Print mIoU in percent per round; of the last its gain, pixel accuracy, and what is known of pseudo-labels.

    One row per task, experiment and split; several seeds as mean ± standard deviation. Plain text when piped.
    """
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    table = read_summary(path)
    rounds = sorted(table["round"].unique())
    shown = Table(box=SIMPLE if console.is_terminal else None, pad_edge=False)
    for title in ("task", "experiment", "split"):
        shown.add_column(title, overflow="fold")
    for title in [*[f"round {number}" for number in rounds], "gain", "acc.", "labeled", "right"]:
        shown.add_column(title, justify="right", no_wrap=True)
    for names, of in table.groupby(["task", "experiment", "split"], sort=False):
        scores = [over_seeds(of[of["round"] == number].miou) for number in rounds]
        last = of[of["round"] == of["round"].max()]
        gains = last.gain[last["round"] > 0]
        gain = Text(over_seeds(gains, sign=True), style=TONES[tone_of(gains)])
        shares = [
            over_seeds(last.pixel_accuracy),
            over_seeds(last.labeled_share),
            over_seeds(last.pseudo_label_accuracy),
        ]
        shown.add_row(*map(Text, [*map(str, names), *scores]), gain, *shares)
    console.print(shown)
