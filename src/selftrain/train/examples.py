"""examples.h5: how a training used unlabeled images, at a few of its steps.

Datasets, one row per step: `step` int64, and pictures, uint8 (K, h, w, 3), or maps, uint8 (K, h, w), 255 is ignore. Of
mixing: `pasted`, `below`, `mask` (1 where `pasted` was), `mixed`, `label`. Of the curriculum: `image`, `predicted`,
`agreement` (255 times the share of branches that name the same class), `label` (what was learned). Attributes: format,
version, classes as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt

from selftrain import hdf5
from selftrain.data.reading import as_photo

if TYPE_CHECKING:  # the report reads these files and has no other use for torch
    from torch import Tensor

FORMAT = hdf5.Format("selftrain-examples", 1, "run the training again to make it", {"step": ("i", "K")})
SHOWN = 4
"""How many steps are kept."""


def shown_steps(drawn: npt.NDArray[np.bool_]) -> set[int]:
    """The steps, counted from 1, that are kept: evenly spaced, each moved back to one that draws unlabeled images.

    >>> sorted(shown_steps(np.ones(200, bool))), sorted(shown_steps(np.array([True, False])))
    ([50, 100, 150, 200], [1])
    """
    wanted = {max(1, round(len(drawn) * part / SHOWN)) for part in range(1, SHOWN + 1)}
    before = {step: np.flatnonzero(drawn[:step]) for step in wanted}
    return {int(steps[-1]) + 1 for steps in before.values() if len(steps)}


def write(path: Path, examples: dict[int, dict[str, Tensor]], classes: Sequence[str]) -> None:
    """Write the examples, by step: (channels, h, w) for pictures, (h, w) for maps."""
    with FORMAT.create(path) as file:
        file.attrs["classes"] = json.dumps(list(classes))
        file["step"] = np.array(list(examples), np.int64)
        for name in next(iter(examples.values()), {}):
            maps = np.stack([one[name].cpu().numpy() for one in examples.values()])
            pictures = maps if maps.ndim == 3 else as_photo(maps.transpose(0, 2, 3, 1))
            file.create_dataset(name, data=pictures, compression="gzip", chunks=(1, *pictures.shape[1:]))


def read(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """The examples, by step."""
    with FORMAT.read(path) as file:
        names = [name for name, one in file.items() if isinstance(one, h5py.Dataset) and name != "step"]
        return {int(step): {name: file[name][row] for name in names} for row, step in enumerate(file["step"][:])}
