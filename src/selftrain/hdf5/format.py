"""What a kind of HDF5 file must hold, and how it is opened and made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from selftrain import artifacts
from selftrain.confidence import BINS
from selftrain.errors import UserError
from selftrain.hdf5.disk import Disk

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


def _say(name: Any, version: Any) -> str:
    return f"{name} version {version}" if name else "a file without a format name"
