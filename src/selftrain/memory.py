"""How the C library manages memory, where that costs as much as computing does; and what to do where it is short."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from selftrain.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""

SHORT = ("out of memory", "can't allocate memory", "Unable to allocate", "ALLOC_FAILED", "size calculation overflowed")
"""What torch and NumPy say of it, whatever they raise."""
IN_TRAINING = "lower train.batch_size or train.augmentation.crop, or set train.precision to bf16-mixed"
IN_PREDICTION = (
    "let fewer images pass at once (batch_size), smaller ones (a 'size' for the split), or parts of them ('patches' "
    "under 'prediction' or 'evaluation')"
)
"""What helps."""


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for what comes next, instead of giving it back to the system.

    A network on a CPU frees and takes the same large maps at every pass, and the system clears each page anew: up to a
    quarter of a small network's time. Where the C library is not glibc, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def is_short(error: Exception) -> bool:
    """Whether an error, of whatever kind, is that there is no more memory."""
    said = (str(error).splitlines() or [""])[0]
    return isinstance(error, MemoryError) or any(sign in said for sign in SHORT)


@contextmanager
def telling(advice: str) -> Iterator[None]:
    """What is raised where memory is short, of a GPU or of this machine, told as one UserError with an advice.

    Also a decorator.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_short(error):
            raise
        said = (str(error).splitlines() or [""])[0]
        raise UserError(f"out of memory ({said or 'no more to be had'}); {advice}") from error
