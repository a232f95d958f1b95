"""Locks by file, which the system frees when the last process that holds one has ended, however it ended."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

HELD: set[IO[str]] = set()
"""The locks of this process. Its forked children hold them too: a lock lasts as long as anybody who may still work."""


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is made if it is not there; yields whether it was to be had.

    Args:
        path: the file; nothing is written to it.
        wait: until it is free, instead of yielding False.
    """
    lock = try_lock(path, wait=wait)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            unlock(lock)


def try_lock(path: Path, *, wait: bool = False) -> IO[str] | None:
    """The lock, or None if another process has it; on a file system that knows no locks it is warned of, and given."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.close()
            return None
        except OSError as error:
            log.warning("%s: no locks on this file system (%s); do not start two runs in one folder", path, error)
        if _is_still(path, lock):
            HELD.add(lock)
            return lock
        lock.close()  # of a file that was removed in between: nobody else would see this lock


def _is_still(path: Path, lock: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False


def unlock(lock: IO[str]) -> None:
    """Give a lock back; children that still hold it keep it."""
    HELD.discard(lock)
    lock.close()


def let_go(*_: object) -> None:
    """For a child that works on nothing that is locked, as a reader of images, which may outlive a killed training."""
    for lock in list(HELD):
        unlock(lock)
