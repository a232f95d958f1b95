"""Which devices a job runs on: Snakemake limits how many jobs use a GPU, but tells no job which one is its own."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from selftrain import locks
from selftrain.errors import UserError

if TYPE_CHECKING:
    import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"
BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def leased_device(count: int = 1) -> Iterator[torch.device]:
    """Hold GPUs for this process and those that it forks; yields where to compute: 'cuda' or, without any GPU, 'cpu'.

    Sets CUDA_VISIBLE_DEVICES meanwhile, so it must come before anything uses CUDA. Steps aside where a scheduler has
    given just as many devices as are wanted, where there is one only, and where there is no GPU.

    Args:
        count: GPUs wanted.

    Raises:
        UserError: there are GPUs, but fewer; or none, though CUDA_VISIBLE_DEVICES names some.
    """
    import torch

    listed = os.environ.get(VISIBLE)
    ids = _visible_ids(listed, torch.cuda.device_count())
    if not ids and _names_some(listed):
        told = "mend the driver, install a torch with CUDA, or set it to nothing to compute on the CPU"
        raise UserError(f"{VISIBLE}={listed} asks for a GPU, and torch sees none; {told}")
    if not ids:
        yield torch.device("cpu")
    elif len(ids) < count:
        told = f" ({VISIBLE}={listed})" if listed else ""
        raise UserError(f"resources.gpu: {count} GPUs are asked for, {len(ids)} can be seen here{told}")
    elif len(ids) == count and (listed or count == 1):
        yield torch.device("cuda")
    else:
        with _leased(ids, count, _folder()) as own, _visible(own):
            yield torch.device("cuda")


@contextmanager
def _visible(ids: Sequence[str]) -> Iterator[None]:
    """Let CUDA see these, as long as they are held."""
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ",".join(ids)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before


def _visible_ids(listed: str | None, count: int) -> list[str]:
    """The ids that CUDA_VISIBLE_DEVICES lists, as far as CUDA heeds it, or those of all `count` devices."""
    ids = [str(number) for number in range(count)] if listed is None else [part.strip() for part in listed.split(",")]
    return [one for one in ids if one][:count]


def _names_some(listed: str | None) -> bool:
    """Whether CUDA_VISIBLE_DEVICES names a GPU; -1 is a way to name none."""
    return (listed or "-1").split(",")[0].strip() not in ("-1", "")


def _folder() -> Path:
    """Of the locks of this machine's devices, on its own disk unless TMPDIR is shared.

    Within a scheduler's job ids may be counted anew, so each has its own.
    """
    parts = ["selftrain-devices", str(os.getuid()), _machine(), os.environ.get("SLURM_JOB_ID", "")]
    return Path(tempfile.gettempdir(), "-".join(filter(None, parts)))


def _machine() -> str:
    """What tells machines apart, and not the containers of one, which share its devices: the boot of its kernel."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return platform.node()


@contextmanager
def _leased(ids: Sequence[str], count: int, folder: Path) -> Iterator[list[str]]:
    """Hold `count` of the ids.

    Jobs choose one after the other: who has the turn takes what becomes free until it has enough. So a job that wants
    two waits for running jobs alone, never for one that holds one and waits for another, and none that wants one
    overtakes it.

    Raises:
        UserError: nothing can be locked in the folder. Without leases jobs would share a GPU, and fail when it is full.
    """
    taken: dict[str, IO[str]] = {}
    try:
        with locks.held(folder / "turn.lock", wait=True):
            while True:
                for own in ids:
                    if len(taken) < count and own not in taken and (lock := locks.try_lock(folder / f"{own}.lock")):
                        taken[own] = lock
                if len(taken) == count:
                    break
                time.sleep(0.5)
        yield [own for own in ids if own in taken]
    except locks.NoLocksError as error:
        raise UserError(
            f"{error}, as leases of GPUs need it; set TMPDIR to a folder on a disk of this machine"
        ) from None
    finally:
        for lock in taken.values():
            locks.unlock(lock)
