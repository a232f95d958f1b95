"""Images of a split in batches, read ahead while the model works."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from selftrain.data.augmentation import to_tensor
from selftrain.data.decoding import DEFAULT
from selftrain.data.reading import read_image
from selftrain.data.tables import working_sizes
from selftrain.settings.data import PixelSettings, WorkingSize

AHEAD = 2
"""Batches read while another is predicted."""


@dataclass(frozen=True)
class Images:
    """Images of one size: positions in their table, and (B, channels, h, w)."""

    positions: list[int]
    pixels: Tensor


def shard_of(count: int, batch_size: int, shard: int, shards: int) -> range:
    """The positions of one shard: whole batches, cut by the images' global numbers, so any split gives equal bytes."""
    batches = -(-count // batch_size)
    first, last = (batches * part // shards * batch_size for part in (shard, shard + 1))
    return range(min(first, count), min(last, count))


def batched(
    table: pd.DataFrame, size: WorkingSize | None, batch_size: int, positions: range, pixels: PixelSettings = DEFAULT
) -> Iterator[Images]:
    """The images at `positions`, in batches formed by global number; within one, each size goes alone."""
    sizes = working_sizes(table, size)
    batches = [list(group) for _, group in groupby(positions, key=lambda position: position // batch_size)]
    alike = [list(group) for batch in batches for _, group in groupby(batch, key=lambda at: sizes[at])]
    files = [Path(file) for file in table.image_file]

    def read(group: list[int]) -> Images:
        return Images(group, torch.stack([to_tensor(read_image(files[at], sizes[at], pixels)) for at in group]))

    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(read, group) for group in alike[:AHEAD]]
        for number in range(len(alike)):
            if number + AHEAD < len(alike):
                pending.append(pool.submit(read, alike[number + AHEAD]))
            yield pending[number].result()
            pending[number] = None  # type: ignore[call-overload]
