"""What all HDF5 files here have in common: a format name, whole images or tiles as chunks, names, tables."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from isal import isal_zlib

from selftrain import artifacts
from selftrain.confidence import BINS
from selftrain.errors import UserError
from selftrain.names import check_names

TILE = 1024
"""The longest side of a chunk."""

UNCACHED = 0
"""Every chunk is read or written once, so a cache of chunks would only grow with the number of images."""


@dataclass(frozen=True)
class Format:
    """A kind of file: what its attributes `format` and `version` say, and what to do about a file that is not it.

    `datasets` are those that it must have, each with the kind of its values as NumPy calls it and its shape: a letter
    stands for a length that is the same wherever it stands, a digit for itself. Those of `optional` may be missing.
    B is the number of bins of confidence, and C of classes, where the attribute `classes` says it.
    """

    name: str
    version: int
    remedy: str
    datasets: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    optional: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    has_classes: bool = False
    """Whether their names are in the attribute `classes`, as JSON."""
    attributes: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    """Whether the value of each is right, None where there is none."""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of each table that `read_table` reads, those that it must have: `class`, which is text, and numbers."""

    @contextmanager
    def read(self, path: Path | str) -> Iterator[h5py.File]:
        """Open `path` for a block that reads from it and nothing else.

        Raises:
            UserError: as `open`; or what is read is broken.
        """
        with self.open(path) as file, self.telling(path):
            yield file

    @contextmanager
    def telling(self, path: Path | str) -> Iterator[None]:
        """What HDF5 raises where the content of a file is broken, told as one UserError."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path}: broken inside ({' '.join(str(error).split())}); {self.remedy}") from error

    def open(self, path: Path | str) -> h5py.File:
        """Open `path` for reading.

        Raises:
            UserError: it is missing, cut short, not HDF5, of another format or version, without what it must hold, or
                HDF5 cannot lock it.
        """
        try:
            file = h5py.File(path, "r", rdcc_nbytes=UNCACHED)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; {self.remedy}") from None
        except OSError as error:
            if "unable to lock file" in str(error):  # of this package's commands, none locks: see cli.main
                told = "set HDF5_USE_FILE_LOCKING=FALSE before Python starts"
                raise UserError(f"{path}: HDF5 cannot lock it ({error}); {told}") from None
            raise UserError(f"{path}: not a whole HDF5 file ({error}); {self.remedy}") from None
        try:
            self._check(path, file)
        except BaseException:
            file.close()
            raise
        return file

    def _check(self, path: Path | str, file: h5py.File) -> None:
        with self.telling(path):
            found = (file.attrs.get("format"), file.attrs.get("version"))
            is_it = found == (self.name, self.version)
        if not is_it:
            raise UserError(f"{path}: is {_say(*found)}, not {_say(self.name, self.version)}; {self.remedy}")
        with self.telling(path):
            if problem := self._problem(file):
                raise ValueError(problem)

    def _problem(self, file: h5py.File) -> str | None:
        """The first of what it must hold that it does not."""
        lengths = {"B": BINS}
        if self.has_classes:
            names = json.loads(file.attrs["classes"])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                return "its classes are no names"
            lengths["C"] = len(names)
        for name, is_right in self.attributes.items():
            value = file.attrs.get(name)
            if not is_right(value):
                return f"no attribute '{name}'" if value is None else f"its attribute '{name}' is {value!r:.60}"
        problems = (self._problem_of(file, name, lengths) for name in (*self.datasets, *self.optional))
        return next(filter(None, problems), None)

    def _problem_of(self, file: h5py.File, name: str, lengths: dict[str, int]) -> str | None:
        """What is wrong with one of its datasets; `lengths` are those that letters stand for so far."""
        link = file.get(name, getlink=True)
        if link is None and name in self.optional:
            return None
        found = file.get(name) if isinstance(link, h5py.HardLink) else None  # no other file is read in its place
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            return f"no dataset '{name}'"
        kind, shape = {**self.datasets, **self.optional}[name]
        if found.dtype.kind != kind or len(found.shape) != len(shape):
            return f"'{name}' is of type {found.dtype} and shape {found.shape}"
        for letter, length in zip(shape, found.shape, strict=True):
            wanted = int(letter) if letter.isdigit() else lengths.setdefault(letter, length)
            if length != wanted:
                return f"'{name}' has the shape {found.shape}, where {wanted} are needed in place of {length}"
        for column in self.columns.get(name, ()):
            of = "text" if column == "class" else "numbers"
            if column not in found.dtype.names or found.dtype[column].kind not in {"text": "O", "numbers": "iuf"}[of]:
                return f"'{name}' has no column '{column}' of {of}"
        return None

    @contextmanager
    def create(self, path: Path | str) -> Iterator[h5py.File]:
        """Yield a new file of this format, which gets its name when the block ends well."""
        with artifacts.writing(path) as temporary, Disk(temporary) as disk:
            try:
                with h5py.File(disk, "w", rdcc_nbytes=UNCACHED) as file:
                    file.disk = disk  # for who writes much, to look whether it is still worth it
                    file.attrs["format"], file.attrs["version"] = self.name, self.version
                    yield file
            except Exception:
                disk.check()  # what else went wrong follows from that
                raise
            disk.check()


class Disk(io.FileIO):
    """A file that HDF5 writes to, which never fails in its sight.

    HDF5 (2.0) does not survive a disk that is full: it brings the process down as it closes what it could not write. So
    the first error is kept, and so is, in memory, what is written from then on, which HDF5 may read again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the error that was kept, if there was one."""
        if self.error is not None:
            raise self.error

    def write(self, content: Any) -> int:
        """Write all of the content."""
        place, left = self.tell(), memoryview(content)
        try:
            while len(left) and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._kept.append((place, bytes(content)))
            self.seek(place + len(content))
        return len(content)

    def readinto(self, content: Any) -> int:
        """Read back what was written."""
        place, read = self.tell(), super().readinto(content)
        if self.error is None:
            return read
        whole = bytearray(memoryview(content)[:read]) + bytes(len(content) - read)
        for start, piece in self._kept:
            first, last = max(place, start), min(place + len(whole), start + len(piece))
            whole[max(0, first - place) : max(0, last - place)] = piece[first - start : max(first, last) - start]
        memoryview(content)[:] = whole
        self.seek(place + len(whole))
        return len(whole)

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


def _say(name: Any, version: Any) -> str:
    return f"{name} version {version}" if name else "a file without a format name"


def chunk_shape(canvas: tuple[int, int]) -> tuple[int, int, int]:
    """The chunk of a dataset of planes: one whole image, or even tiles with no side over 1,024."""
    height, width = (math.ceil(side / math.ceil(side / TILE)) for side in canvas)
    return 1, height, width


def create_planes(file: h5py.File, name: str, dtype: type, shape: tuple[int, int, int], fill: int) -> h5py.Dataset:
    """A dataset (N, H, W) chunked by `chunk_shape`; `fill` is read where nothing was written. N may be 0."""
    return file.create_dataset(
        name,
        shape,
        dtype,
        chunks=chunk_shape(shape[1:]),
        maxshape=(None, *shape[1:]),
        fillvalue=fill,
        compression="gzip",
        compression_opts=1,
        shuffle=np.dtype(dtype).itemsize > 1,
    )


Packed = list[tuple[int, int, bytes]]
"""The compressed chunks of a plane, each with its row and column."""


def write_plane(planes: h5py.Dataset, position: int, plane: npt.NDArray[np.integer]) -> None:
    """Write (h, w) to the upper left of a dataset's plane at `position`, and its fill value around it."""
    write_packed(planes, position, packed(planes, plane))


def write_packed(planes: h5py.Dataset, position: int, chunks: Packed) -> None:
    """Write what `packed` made of a plane. The order of such calls is that of chunks in the file."""
    for y, x, chunk in chunks:
        planes.id.write_direct_chunk((position, y, x), chunk)


def packed(planes: h5py.Dataset, plane: npt.NDArray[np.integer]) -> Packed:
    """The chunks of a plane, as a dataset has them, of (h, w) in the upper left and the fill value around it.

    Every chunk is made, so that it exists and can be copied. Several threads may pack at a time. ISA-L compresses in a
    seventh of the time of the zlib that HDF5 has, to the same size, and what it makes any zlib reads.
    """
    dtype, (_, height, width) = planes.dtype, planes.chunks
    rows, columns = (-(-side // tile) * tile for side, tile in zip(planes.shape[1:], (height, width), strict=True))
    if plane.shape != (rows, columns) or plane.dtype != dtype:
        canvas = np.full((rows, columns), planes.fillvalue, dtype)
        canvas[: plane.shape[0], : plane.shape[1]] = plane
        plane = canvas
    return [
        (y, x, _compressed(plane[y : y + height, x : x + width]))
        for y in range(0, rows, height)
        for x in range(0, columns, width)
    ]


def _compressed(tile: npt.NDArray[np.integer]) -> bytes:
    """As HDF5's filters: shuffled, first the first byte of all values, then the second; then deflated."""
    values = np.ascontiguousarray(tile)
    shuffled = np.ascontiguousarray(values.view(np.uint8).reshape(-1, values.itemsize).T)
    return isal_zlib.compress(shuffled, 1)


def write_histogram(file: h5py.File, histogram: npt.NDArray[np.int64]) -> None:
    """Write pixels by class and bin, (C, BINS), mostly zeros; gzip-1 takes half the time of its other levels."""
    file.create_dataset("histogram", data=histogram, compression="gzip", compression_opts=1, shuffle=True)


def copy_chunks(source: h5py.Dataset, target: h5py.Dataset, first: int) -> None:
    """Copy the compressed chunks of `source` as they are into `target`, its planes going to `first` and on.

    A chunk of another shape or filter would read as garbage without an error, so both are compared.
    """
    if _layout(source) != _layout(target):
        raise UserError(f"{source.file.filename}: {source.name} has other chunks or filters; make it again")
    for plane in range(len(source)):
        for y in range(0, source.shape[1], source.chunks[1]):
            for x in range(0, source.shape[2], source.chunks[2]):
                try:
                    mask, data = source.id.read_direct_chunk((plane, y, x))
                except (OSError, RuntimeError) as error:
                    raise UserError(f"{source.file.filename}: broken inside ({error}); make it again") from None
                target.id.write_direct_chunk((first + plane, y, x), data, mask)


def _layout(planes: h5py.Dataset) -> tuple[Any, ...]:
    filters = (planes.compression, planes.compression_opts, planes.shuffle)
    return planes.dtype, planes.shape[1:], planes.chunks, *filters


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


def read_plane(planes: h5py.Dataset, position: int, size: tuple[int, int], classes: int | None = None) -> Any:
    """One plane without padding, (h, w).

    Args:
        planes: (N, H, W).
        position: which.
        size: h and w.
        classes: how many there are where it holds their ids, uint8, or 255; None: it holds something else.

    Raises:
        ValueError: it is smaller, or has other ids.
    """
    plane = planes[position, : size[0], : size[1]]
    if plane.shape != tuple(size):
        raise ValueError(
            f"'{planes.name}' has {plane.shape[0]}×{plane.shape[1]} pixels of an image of {size[0]}×{size[1]}"
        )
    # As 255 + 1 is 0 in a byte, this is one pass over the plane, where every image of a training comes by.
    if classes is not None and (largest := int((plane + np.uint8(1)).max(initial=0))) > classes:
        raise ValueError(f"'{planes.name}' has the class id {largest - 1}, and there are {classes} classes")
    return plane


def is_text(value: Any) -> bool:
    """Of an attribute: whether it is text."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """Of an attribute: whether it is a whole number from 0 on."""
    return isinstance(value, int | np.integer) and int(value) >= 0


def is_number(value: Any) -> bool:
    """Of an attribute: whether it is a number, or NaN."""
    return isinstance(value, int | float | np.number)


def are_colors(value: Any) -> bool:
    """Of an attribute: whether it is JSON of null or of colors, three numbers from 0 to 255 each; it may be absent."""
    if value is None:
        return True
    try:
        colors = json.loads(value)
        return colors is None or (
            len(colors) <= 256
            and all(len(color) == 3 and all(type(one) is int and 0 <= one <= 255 for one in color) for color in colors)
        )
    except (ValueError, TypeError):
        return False


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
