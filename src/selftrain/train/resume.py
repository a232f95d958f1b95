"""State of an unfinished training, kept where Snakemake does not clean up."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from selftrain import artifacts, locks, memory

log = logging.getLogger(__name__)


class Resume:
    """The checkpoint of one training, saved every so many seconds; made by `resumable`."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.file, self.seconds, self.saved = folder / "state.pt", seconds, time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that an interrupted run left, if there is one and it is whole; only tensors in it are unpickled."""
        if not self.file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, "cpu", weights_only=True)
            log.info("going on from step %d", state["step"])
        except Exception as error:  # nearly anything, as the file may be anything
            # Where the system cannot read it now, the file may be whole; of one that was cut, torch says EINVAL.
            if memory.is_short(error) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
                raise
            log.warning("%s: not readable (%s); the training begins anew", self.file, " ".join(str(error).split()))
            return None
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
    """The folder of one training under an exclusive lock, which is waited for; removed when the block ends well.

    Args:
        root: the folder of all resume states.
        key: a digest of everything that the training depends on: another key, another training.
        seconds: between two saves.
    """
    folder = root / key
    with locks.alone(folder / "lock", "this training"):
        yield Resume(folder, seconds)
        for file in folder.iterdir():
            if file.name != "lock":
                file.unlink()
    with suppress(OSError):  # somebody waited for the lock, and has it
        folder.rmdir()
