"""Tables and facts that jobs wrote as CSV and JSON, read back: what has befallen a file since is told of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from selftrain.errors import UserError

AGAIN = "delete it, and run snakemake to make it again"

TEXT = frozenset(
    (
        *("task", "experiment", "split", "metric", "class", "truth", "prediction", "alarm", "message", "calibrated"),
        *("image", "image_file", "label_file", "image_digest", "label_digest", "mask_file", "mask_digest", "reason"),
    )
)
"""Columns of names, in whichever table."""
COUNTS = frozenset(
    (
        *("seed", "round", "step", "height", "width", "images", "objects", "pixels", "correct"),
        *("predicted", "filtered", "changed", "target", "threshold_bin", "selected"),
    )
)
"""Columns of whole numbers from 0 on, in whichever table."""


def read_table(
    path: Path | str,
    columns: Sequence[str] | None = None,
    remedy: str = AGAIN,
    *,
    empty: bool = False,
    more: bool = False,
) -> pd.DataFrame:
    """A CSV table as a job wrote it.

    Names stay text, though they look like numbers or like a missing value ("NA"). Of numbers only those that are no
    `COUNTS` can be missing; they are NaN.

    Args:
        path: the file.
        columns: those that it has; None: any.
        remedy: what makes it right, for messages.
        empty: whether it may have no rows.
        more: whether others may be there, too, and in any order.

    Raises:
        UserError: it is missing, cut within a line, no CSV, or a table of other columns, or of values that they cannot
            have.
    """
    lines = _lines(path, remedy)
    names, rows = lines[0], lines[1:]
    if columns is not None and (set(columns) - set(names) or (names != list(columns) and not more)):
        raise UserError(f"{path}: has columns {names}, not {list(columns)}; {remedy}")
    try:
        return _table(names, rows, empty=empty)
    except ValueError as error:
        raise _broken(path, str(error), remedy) from None


def read_json(path: Path | str, keys: Collection[str] = (), remedy: str = AGAIN) -> dict[str, Any]:
    """Facts that a job wrote as JSON, by name.

    Raises:
        UserError: it is missing, no JSON, or without one of `keys`.
    """
    try:
        facts = json.loads(_text(path, remedy))
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error), remedy) from None
    if not isinstance(facts, dict):
        raise _broken(path, f"it should be a mapping, not {facts!r:.60}", remedy)
    if missing := [key for key in keys if key not in facts]:
        raise _broken(path, f"it has no '{missing[0]}'", remedy)
    return facts


def _lines(path: Path | str, remedy: str) -> list[list[str]]:
    """The cells of each line, all lines as long as the first."""
    text = _text(path, remedy)
    if not text.endswith("\n"):
        raise _broken(path, "its last line has no end" if text else "it is empty", remedy)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[list[str]] = []
    try:
        for line in reader:
            lines.append(line)
            if len(line) != len(lines[0]):
                raise _broken(path, f"line {reader.line_num} has {len(line)} cells, not {len(lines[0])}", remedy)
    except csv.Error as error:
        raise _broken(path, f"line {reader.line_num}: {error}", remedy) from None
    return lines


def _text(path: Path | str, remedy: str) -> str:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy.removeprefix('delete it, and ')}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _broken(path, "it is no text", remedy) from None
    if "\0" in text:
        raise _broken(path, "it is no text", remedy)
    return text


def _broken(path: Path | str, what: str, remedy: str) -> UserError:
    return UserError(f"{path}: broken inside ({what}); {remedy}")


def _table(names: list[str], rows: list[list[str]], *, empty: bool) -> pd.DataFrame:
    if len(set(names)) < len(names):
        raise ValueError("a column is there twice")
    if not rows and not empty:
        raise ValueError("it has no rows")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pd.DataFrame({name: _column(name, cells) for name, cells in zip(names, columns, strict=True)})


def _column(name: str, cells: Sequence[str]) -> pd.Series | npt.NDArray[Any]:
    if name in TEXT:
        return pd.Series(cells, dtype=str)
    try:
        values = np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        if name not in COUNTS:
            return np.array([_number(name, cell) for cell in cells])
        wrong = next(cell for cell in cells if not cell.isdecimal() or len(cell) > 18)
        raise ValueError(f"{name} is {wrong!r:.60}, which is no count") from None
    if name in COUNTS and (values < 0).any():
        raise ValueError(f"{name} is {values.min()}, which is no count")
    return values


def _number(name: str, cell: str) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        raise ValueError(f"{name} is {cell!r:.60}, which is no number") from None
