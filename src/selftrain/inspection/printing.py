"""A pandas table for a person at a terminal, for a pipe, or for another program."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

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
    for part in _parts(table, console):
        console.print(_drawn(part, console))
    for note in notes:
        console.print(Text(note))


def _parts(table: pd.DataFrame, console: Console) -> Iterator[pd.DataFrame]:
    """A table in parts of as many columns as fit beside each other, each with the first, which tells the rows apart.

    A column that fits no terminal is folded, since nothing is cut.
    """
    first, begin, whole = table.iloc[:, :1], 1, console.options.update(width=WIDE)
    for end in range(2, table.shape[1] + 1):
        with_next = pd.concat([first, table.iloc[:, begin:end]], axis=1)
        if end - begin > 1 and console.measure(_drawn(with_next, console), options=whole).maximum > console.width:
            yield pd.concat([first, table.iloc[:, begin : end - 1]], axis=1)
            begin = end - 1
    yield pd.concat([first, table.iloc[:, begin:]], axis=1)


def _drawn(table: pd.DataFrame, console: Console) -> Table:
    drawn = Table(box=SIMPLE if console.is_terminal else None, pad_edge=False)
    for name in table:
        number = pd.api.types.is_numeric_dtype(table[name])
        drawn.add_column(str(name), justify="right" if number else "left", overflow="fold")
    for row in table.itertuples(index=False):
        drawn.add_row(*(Text(_told(value)) for value in row))
    return drawn


def _told(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.6g}"
    return str(value)
