"""Every draw is a function of its place: no hidden state, so workers, prefetching and resuming change nothing."""

from __future__ import annotations

import hashlib

import numpy as np


def key(*place: int | str) -> int:
    """A 64-bit number that belongs to a place such as (seed, round, "augment", step, item)."""
    text = "/".join(str(part) for part in place)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*place: int | str) -> np.random.Generator:
    """A generator of its own for a place."""
    return np.random.Generator(np.random.Philox(key(*place)))
