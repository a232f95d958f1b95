"""A pandas table for a person at a terminal, for a pipe, or for another program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 100_000
"""A width that nothing is cut or folded at."""


def print_table(table: pd.DataFrame, notes: Sequence[str] = (), *, csv: bool = False, json: bool = False) -> None:
    """Print a table, and notes below it: fit to a terminal, in plain columns when piped; or CSV, or JSON (rows)."""
    if csv:
        sys.stdout.write(table.to_csv(index=False))
    elif json:
        sys.stdout.write(table.to_json(orient="records", indent=2, force_ascii=False) + "\n")
    else:
        _draw(table, notes, Console(highlight=False, width=None if sys.stdout.isatty() else WIDE))


def _draw(table: pd.DataFrame, notes: Sequence[str], console: Console) -> None:
    drawn = Table(box=SIMPLE if console.is_terminal else None, pad_edge=False)
    for name in table:
        number = pd.api.types.is_numeric_dtype(table[name])
        drawn.add_column(str(name), justify="right" if number else "left", overflow="fold")
    for row in table.itertuples(index=False):
        drawn.add_row(*(Text(_told(value)) for value in row))
    console.print(drawn)
    for note in notes:
        console.print(Text(note))


def _told(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.6g}"
    return str(value)
