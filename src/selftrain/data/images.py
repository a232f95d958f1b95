"""Images of a split in batches, read ahead while the model works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from selftrain.ahead import mapped
from selftrain.data.decoding import DEFAULT
from selftrain.data.reading import read_image
from selftrain.data.tables import working_sizes
from selftrain.settings.data import PixelSettings, WorkingSize

AHEAD = 2
"""Batches of images that may lie read while another is predicted; beside them, one image is at work in each reader."""

MORE_READERS = "more machine.threads read images ahead"
"""Against waiting for them."""


@dataclass(frozen=True)
class Images:
    """Images of one size: positions in their table, and (B, channels, h, w), in memory channels_last as files are."""

    positions: list[int]
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def on(self, device: torch.device) -> Tensor:
        """The pixels on a device; a GPU gets them while it is at work on what came before."""
        return (self.pixels.pin_memory() if device.type == "cuda" else self.pixels).to(device, non_blocking=True)


def shard_of(count: int, batch_size: int, shard: int, shards: int) -> range:
    """The positions of one shard: whole batches, cut by the images' global numbers, so any split gives equal bytes."""
    batches = -(-count // batch_size)
    first, last = (batches * part // shards * batch_size for part in (shard, shard + 1))
    return range(min(first, count), min(last, count))


def batched(
    table: pd.DataFrame,
    size: WorkingSize | None,
    batch_size: int,
    positions: range,
    pixels: PixelSettings = DEFAULT,
    readers: int = 1,
) -> Iterator[Images]:
    """The images at `positions`, in batches formed by global number; within one, each size goes alone.

    Several threads read faster than one, since decoders let go of Python's lock.
    """
    sizes = working_sizes(table, size)
    batches = [list(group) for _, group in groupby(positions, key=lambda position: position // batch_size)]
    alike = [list(group) for batch in batches for _, group in groupby(batch, key=lambda at: sizes[at])]
    files = [Path(file) for file in table.image_file]

    def read(position: int) -> np.ndarray:
        return read_image(files[position], sizes[position], pixels)

    ahead = AHEAD * batch_size + readers
    read_ahead = mapped(read, (position for group in alike for position in group), readers, ahead)
    for group in alike:
        images = np.stack(list(islice(read_ahead, len(group))))
        yield Images(group, torch.from_numpy(images).permute(0, 3, 1, 2))
