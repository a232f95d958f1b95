"""Locks by file, which the system frees when the last process that holds one has ended, however it ended."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from selftrain.errors import UserError

log = logging.getLogger(__name__)

HELD: set[IO[str]] = set()
"""The locks of this process. Its forked children hold them too: a lock lasts as long as anybody who may still work."""


class NoLocksError(UserError):
    """A file system on which `flock` fails, as Lustre without `-o flock` or NFS without a lock service."""


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is made if it is not there; yields whether it was to be had.

    Args:
        path: the file; nothing is written to it.
        wait: until it is free, instead of yielding False.

    Raises:
        NoLocksError: the file system knows no locks.
    """
    lock = try_lock(path, wait=wait)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            unlock(lock)


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Do what no two processes may do at once: wait until no other does, and say for whom.

    Where there are no locks it goes on with a warning: two at once waste work, and spoil nothing.

    Args:
        path: the file that is locked; its text says who holds it.
        what: is done, for the message.
    """
    try:
        lock = try_lock(path)
        if lock is None:
            log.warning("%s: %s does it already, perhaps left by a killed run; waiting for its end", what, _who(path))
            lock = try_lock(path, wait=True)
    except NoLocksError as error:
        log.warning("%s: start no second run in this folder, which nothing would keep away (docs/scale.md)", error)
        lock = None
    try:
        if lock is not None:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
        yield
    finally:
        if lock is not None:
            unlock(lock)
        _remove(path)


def _who(path: Path) -> str:
    try:
        return path.read_text() or "another process"
    except FileNotFoundError:  # it has just ended
        return "another process"


def _remove(path: Path) -> None:
    """Remove a lock's file, unless somebody holds it: another process, or a child of this one that still works."""
    try:
        lock = try_lock(path)
    except NoLocksError:
        path.unlink(missing_ok=True)
        return
    if lock is not None:
        unlock(lock, remove=True)


def try_lock(path: Path, *, wait: bool = False) -> IO[str] | None:
    """The lock, or None if another process has it.

    Raises:
        NoLocksError: the file system knows no locks.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = path.open("a")
        except FileNotFoundError:  # the folder was removed in between
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.close()
            return None
        except OSError as error:
            lock.close()
            raise NoLocksError(f"{path.parent}: files cannot be locked there ({error.strerror})") from None
        if _is_still(path, lock):
            HELD.add(lock)
            return lock
        lock.close()  # of a file that was removed in between: nobody else would see this lock


def _is_still(path: Path, lock: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # removed here, or through another machine
            raise
        return False


def unlock(lock: IO[str], *, remove: bool = False) -> None:
    """Give a lock back; children that still hold it keep it, unless its file is to be removed."""
    if remove:  # while it is held: who waits for it sees that, and makes another
        Path(lock.name).unlink(missing_ok=True)
    HELD.discard(lock)
    lock.close()


def let_go(*_: object) -> None:
    """For a child that works on nothing that is locked, as a reader of images, which may outlive a killed training."""
    for lock in list(HELD):
        unlock(lock)
