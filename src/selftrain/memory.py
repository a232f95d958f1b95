"""How the C library manages memory, where that costs as much as computing does."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


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
