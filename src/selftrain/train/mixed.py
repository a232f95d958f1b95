"""mixed.h5: what a training that mixes images pasted, saw and was taught, at a few of its steps.

Datasets, one row per step: `step` int64; `pasted`, `below`, `mixed` uint8 (K, H, W, 3); `mask` uint8 (K, H, W), 1 where
`pasted` was; `label` uint8 (K, H, W), 255 is ignore. Attributes: format, version, classes as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from selftrain import hdf5

if TYPE_CHECKING:  # the report reads these files and has no other use for torch
    from torch import Tensor

FORMAT = hdf5.Format("selftrain-mixed", 1, "run the training again to make it")
SHOWN = 4
"""How many steps are kept."""


def shown_steps(steps: int) -> set[int]:
    """The steps, counted from 1, that are kept: evenly spaced, the last one among them.

    >>> sorted(shown_steps(200)), sorted(shown_steps(2))
    ([50, 100, 150, 200], [1, 2])
    """
    return {max(1, round(steps * part / SHOWN)) for part in range(1, SHOWN + 1)}


def write(path: Path, examples: dict[int, dict[str, Tensor]], classes: Sequence[str]) -> None:
    """Write the examples, by step: (3, h, w) for pictures, (h, w) for maps."""
    with FORMAT.create(path) as file:
        file.attrs["classes"] = json.dumps(list(classes))
        file["step"] = np.array(list(examples), np.int64)
        for name in next(iter(examples.values()), {}):
            maps = np.stack([one[name].numpy() for one in examples.values()])
            pictures = maps if maps.ndim == 3 else maps.transpose(0, 2, 3, 1)
            file.create_dataset(name, data=pictures, compression="gzip", chunks=(1, *pictures.shape[1:]))


def read(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """The examples, by step."""
    with FORMAT.open(path) as file:
        names = [name for name, one in file.items() if isinstance(one, h5py.Dataset) and name != "step"]
        return {int(step): {name: file[name][row] for name in names} for row, step in enumerate(file["step"][:])}
