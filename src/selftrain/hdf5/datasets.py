"""Datasets beside planes: names and shapes of images, histograms, tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from selftrain.names import check_names


def write_names(file: h5py.File, name: str, names: Sequence[str]) -> None:
    """Write variable-length UTF-8 text, (N,)."""
    file.create_dataset(name, data=np.array(names, dtype=object), dtype=h5py.string_dtype())


def read_names(file: h5py.File, name: str) -> list[str]:
    """What `write_names` wrote; a name may become part of a path, so whoever made the file, it leads nowhere else.

    Raises:
        ValueError: one is no name of an image, or is there twice.
    """
    names: list[str] = file[name].asstr()[:].tolist()
    check_names(names)
    return names


def read_shapes(file: h5py.File, name: str, canvas: tuple[int, int] | None = None) -> npt.NDArray[np.int32]:
    """True heights and widths of images, (N, 2).

    Raises:
        ValueError: an image has no pixels, or is larger than the canvas.
    """
    shapes: npt.NDArray[np.int32] = file[name][:]
    wrong = (shapes < 1).any(1)
    if canvas is not None:
        wrong |= (shapes > canvas).any(1)
    if wrong.any():
        height, width = shapes[wrong.argmax()]
        within = "" if canvas is None else f" on a canvas of {canvas[0]}×{canvas[1]}"
        raise ValueError(f"an image is {height}×{width}{within}")
    return shapes


def write_histogram(file: h5py.File, histogram: npt.NDArray[np.int64]) -> None:
    """Write pixels by class and bin, (C, BINS), mostly zeros; gzip-1 takes half the time of its other levels."""
    file.create_dataset("histogram", data=histogram, compression="gzip", compression_opts=1, shuffle=True)


def write_table(file: h5py.File, name: str, table: pd.DataFrame) -> None:
    """Write a frame as one compound dataset, which HDFView shows as a table."""
    columns = {str(column): table[column].to_numpy() for column in table}
    text = {column: h5py.string_dtype() for column, values in columns.items() if values.dtype == object}
    records = np.empty(len(table), [(column, text.get(column, columns[column].dtype)) for column in columns])
    for column, values in columns.items():
        records[column] = values
    file.create_dataset(name, data=records)


def read_table(file: h5py.File, name: str) -> pd.DataFrame:
    """What `write_table` wrote."""
    records = file[name][:]
    columns = {column: records[column] for column in records.dtype.names}
    return pd.DataFrame({column: _decoded(values) for column, values in columns.items()})


def _decoded(values: np.ndarray) -> Any:
    return [value.decode() for value in values] if values.dtype == object else values
