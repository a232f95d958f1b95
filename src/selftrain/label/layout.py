"""What a shard of pseudo-labels and the joined file have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from selftrain import artifacts, hdf5
from selftrain.label.pseudo_labels import OF_IMAGES
from selftrain.predict.store import Predictions
from selftrain.settings.data import IGNORE
from selftrain.settings.selection import LabelSettings

SHARD = hdf5.Format(
    "selftrain-pseudo-labels-shard",
    3,
    "run label again to make it",
    OF_IMAGES | {"changed": ("i", "C")},
    {"agreement": ("u", "NHW")},
)

MADE = "made"
"""The attribute of a shard that says from what it was made."""

Labels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]


def create_planes(file: h5py.File, count: int, canvas: tuple[int, int], branches: int) -> list[h5py.Dataset]:
    """The planes of labels, coarse confidence and, of a network with branches, agreement: in every shard as in the
    joined file."""
    fills = {"label": IGNORE, "confidence": 0} | ({"agreement": 0} if branches > 1 else {})
    shape = (count, *canvas)
    return [hdf5.create_planes(file, name, np.uint8, shape, fill) for name, fill in fills.items()]


def made_from(settings: LabelSettings, prediction: Predictions, cut: Path) -> str:
    """What tells shards of one round, and of the same predictions, from all others."""
    predicted = [str(prediction.attributes.get(key, "")) for key in ("model", "mode", "counted")]
    return artifacts.digest([settings.model_dump(mode="json"), predicted, artifacts.digest_file(cut)])


def write_images(file: h5py.File, names: Sequence[str], shapes: npt.NDArray[np.int32]) -> None:
    """What is known of each image: its name and true size, (N, 2)."""
    hdf5.write_names(file, "images", names)
    file["shapes"] = shapes
