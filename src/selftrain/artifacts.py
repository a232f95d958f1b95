"""How every output is written, and how inputs are told apart.

An output is written under a temporary name in its own folder and renamed when it is whole: a file that exists under
its final name is complete. Who writes holds the lock of the temporary file; one that nobody holds was left by a killed
process, and the next writer of the same output removes it, so that they do not pile up.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from selftrain import locks
from selftrain.errors import UserError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

REFUSALS = {
    errno.ENOSPC: "free some space there, or keep results elsewhere",
    errno.EDQUOT: "free some space there, or keep results elsewhere",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or keep results elsewhere",
    errno.EACCES: "let it be writable, or keep results elsewhere",
    errno.EPERM: "let it be writable, or keep results elsewhere",
    errno.EROFS: "let it be writable, or keep results elsewhere",
    errno.ENOTDIR: "a file is where a folder is needed",
    errno.EEXIST: "a file is where a folder is needed",
    errno.EISDIR: "a folder is where a file is needed",
    errno.ENAMETOOLONG: "a shorter name is needed",
    errno.EIO: "the disk, or what stands between, has failed",
}
"""Why the system does not let a file be written, and what would help."""


@contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Raises:
        UserError: the system does not let it be written.

    >>> with writing("/tmp/selftrain-doctest.txt") as temporary:
    ...     _ = temporary.write_text("whole or not at all")
    """
    path = Path(path)
    with _telling(path), _unfinished(path) as temporary:
        yield temporary


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """That the system does not let an output be written, told as a UserError."""
    try:
        yield
    except Exception as error:
        if reason := _refusal(error, path):
            raise UserError(f"{path}: cannot be written ({reason})") from error
        raise


def _refusal(error: Exception, path: Path) -> str | None:
    """Why the system refuses to write `path`, if that is what an error says; libraries in C tell it in their text."""
    named = Path(getattr(error, "filename2", None) or getattr(error, "filename", None) or path)
    own = path.is_relative_to(named) or named.name.startswith(f".{path.stem}.unfinished-")
    if isinstance(error, UserError) or not own:  # another file may be to be read
        return None
    for number, advice in REFUSALS.items():
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return f"{os.strerror(number)}; {advice}"
    return None


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        if lock is not None:
            locks.unlock(lock, remove=True)


def _temporary(path: Path) -> tuple[Path, IO[str] | None]:
    """A name for the writer of `path`, and its lock; removes what killed writers left.

    The lock is a file of its own: HDF5 locks what it opens.
    """
    own: tuple[Path, IO[str]] | None = None
    for number in count():
        temporary = path.with_name(f".{path.stem}.unfinished-{number}{path.suffix}")
        lock_file = temporary.with_name(f"{temporary.name}.lock")
        if own is not None and not lock_file.exists():
            return own
        try:
            lock = locks.try_lock(lock_file)
        except locks.NoLocksError:  # a name that nobody else has; what a killed writer leaves has to stay
            lock_file.unlink(missing_ok=True)
            return path.with_name(f".{path.stem}.unfinished-{uuid.uuid4().hex}{path.suffix}"), None
        except PermissionError:
            if not lock_file.exists():
                raise
            continue  # another user's
        if lock is None:
            continue  # another writes there
        _remove(temporary)
        if own is None:
            own = temporary, lock
        else:
            locks.unlock(lock, remove=True)
    raise AssertionError  # there is always a next number


def bring_back(folder: Path | str) -> int:
    """Let nothing below a folder be of a time that is yet to come; returns how many files were.

    Where the clock was set back, what is made from then on would look older than what was made before, and Snakemake
    take for done what follows from older files. The order of those times is kept, and all are now.
    """
    now = time.time_ns()
    ahead: list[tuple[int, Path]] = []
    for path in (Path(where, name) for where, _, names in os.walk(folder) for name in names):
        with suppress(FileNotFoundError):  # of a job that a killed run has left at work
            written = path.lstat().st_mtime_ns
            ahead += [(written, path)] if written > now else []
    for place, (_, path) in enumerate(sorted(ahead)):
        at = now - 1000 * (len(ahead) - place)
        with suppress(FileNotFoundError):
            os.utime(path, ns=(at, at), follow_symlinks=False)
    return len(ahead)


@contextmanager
def writing_folder(path: Path | str) -> Iterator[Path]:
    """Yield a new empty folder beside `path`; when the block ends well it takes the place of `path`, else it goes.

    Raises:
        UserError: the system does not let it be written.
    """
    path = Path(path)
    with _telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _temporary(path)
        try:
            temporary.mkdir()
            yield temporary
            _remove(path)
            temporary.replace(path)
        finally:
            _remove(temporary)
            if lock is not None:
                locks.unlock(lock, remove=True)


def _remove(path: Path) -> None:
    """A file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as readable JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path | str, table: pd.DataFrame) -> None:
    """Write `table` without its index."""
    with writing(path) as temporary:
        table.to_csv(temporary, index=False)


def digest(value: Any) -> str:
    """Sixteen hex digits that tell JSON-like values apart."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def digest_array(values: npt.NDArray[Any]) -> str:
    """Sixteen hex digits that tell arrays of one kind apart."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def digest_file(path: Path | str) -> str:
    """Sixteen hex digits that tell file contents apart."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
