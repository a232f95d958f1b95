"""Random draws that depend on nothing but (seed, round, image name, pixel): no order, shard or padding."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import numpy.typing as npt

Draws = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ALWAYS = np.uint64(2**53)
"""The limit below which every draw lies."""


def image_key(seed: int, round_: int, name: str) -> np.uint64:
    """The 64 bits that an image's draws start from."""
    said = json.dumps([seed, round_, name]).encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little"))


def draw(key: np.uint64, pixels: npt.NDArray[np.integer]) -> Draws:
    """A number below 2**53 per pixel, uniform; pixel = y * width + x in the true size.

    This is output `pixel + 1` of the generator splitmix64 (Steele, Lea, Flood 2014) started at `key`: a counter-based
    hash, so any pixel can be drawn alone.
    """
    z = pixels.astype(np.uint64) + np.uint64(1)
    z *= GOLDEN
    z += key
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(11)
    return z


def limit(fraction: npt.NDArray[np.float64]) -> Draws:
    """Draws below this keep `fraction` of the pixels; a fraction of 1 keeps all, of 0 none."""
    return np.rint(fraction * float(ALWAYS)).astype(np.uint64)
