"""Which device a job runs on: Snakemake limits how many jobs use a GPU, but tells no job which one is its own."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def leased_device() -> Iterator[None]:
    """Hold one GPU for this process, by a file lock that the system frees however the process ends.

    Sets CUDA_VISIBLE_DEVICES, so it must come before anything uses CUDA. Steps aside where a scheduler has already
    given exactly one device, and where there is no GPU.
    """
    import torch

    ids = _visible_ids(torch.cuda.device_count())
    if len(ids) < 2:
        yield
        return
    with _locked_one(ids) as own:
        os.environ["CUDA_VISIBLE_DEVICES"] = own
        yield


def _visible_ids(count: int) -> list[str]:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [part.strip() for part in listed.split(",") if part.strip()] if listed else [str(i) for i in range(count)]


@contextmanager
def _locked_one(ids: list[str], folder: Path | None = None) -> Iterator[str]:
    folder = folder or Path(tempfile.gettempdir()) / f"selftrain-devices-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for own in ids:
            file = (folder / f"{own}.lock").open("w")
            if _lock(file):
                with file:
                    yield own
                return
            file.close()
        time.sleep(1)


def _lock(file: IO[str]) -> bool:
    try:
        # Unlike flock's, a lock of lockf is not inherited by loader workers, which outlive a kill by seconds.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
