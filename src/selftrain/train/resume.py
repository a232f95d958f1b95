"""State of an unfinished training, kept where Snakemake does not clean up."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from selftrain import artifacts, locks
from selftrain.errors import UserError

log = logging.getLogger(__name__)


class Resume:
    """The checkpoint of one training, saved every so many seconds; made by `resumable`."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.file, self.seconds, self.saved = folder / "state.pt", seconds, time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that an interrupted run left, if there is one; nothing in it is unpickled but tensors."""
        if not self.file.is_file():
            return None
        state = torch.load(self.file, "cpu", weights_only=True)
        log.info("going on from step %d", state["step"])
        return state

    def is_due(self) -> bool:
        """Whether enough time has passed since the last save."""
        return time.monotonic() - self.saved >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state, whole or not at all."""
        with artifacts.writing(self.file) as temporary:
            torch.save(state, temporary)
        self.saved = time.monotonic()


@contextmanager
def resumable(root: Path, key: str, seconds: float) -> Iterator[Resume]:
    """The folder of one training under an exclusive lock; removed when the block ends well.

    Args:
        root: the folder of all resume states.
        key: a digest of everything that the training depends on: another key, another training.
        seconds: between two saves.

    Raises:
        UserError: another process has the lock.
    """
    folder = root / key
    with _alone(folder):
        yield Resume(folder, seconds)
    shutil.rmtree(folder, ignore_errors=True)  # not before: a network file system keeps what is open


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a training. Where there are none it goes on: two at once waste work, and spoil nothing."""
    try:
        lock = locks.try_lock(folder / "lock")
    except locks.NoLocksError as error:
        log.warning("%s: start no second run in this folder, which nothing would keep away (docs/scale.md)", error)
        yield
        return
    if lock is None:
        raise UserError(
            f"{folder}: the same training runs already, perhaps left over from a killed run; "
            "wait for it, or stop that process and run again"
        )
    try:
        yield
    finally:
        locks.unlock(lock)
