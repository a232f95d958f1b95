"""Files of predictions: per pixel the class and the bin of its confidence, per class a histogram of bins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from selftrain import hdf5
from selftrain.errors import UserError

FORMAT = hdf5.Format(
    "selftrain-predictions",
    2,
    "run predict again to make it",
    {
        "images": ("O", "N"),
        "shapes": ("i", "N2"),
        "class": ("u", "NHW"),
        "confidence": ("u", "NHW"),
        "histogram": ("i", "CB"),
        "votes": ("i", "CE"),
    },
    {"agreement": ("u", "NHW")},
    has_classes=True,
    attributes={
        "colors": hdf5.are_colors,
        "least_agreement": lambda value: value is None or hdf5.is_count(value),
    },
)


class Predictions:
    """Reads one shard, an image at a time; close it, or use it in a `with` block.

    Attributes:
        images: the N names.
        shapes: true sizes, int32 (N, 2).
        canvas: (H, W), the padded size.
        branches: of the network; 1 where nothing is known of their agreement.
        least_agreement: how many of them must name the same class for a pixel to be retained; 0: no filter.
        attributes: all attributes of the file.

    Raises:
        UserError: the file is missing, cut short, of another format, or of other classes than `classes`.
    """

    def __init__(self, path: Path | str, classes: Sequence[str] | None = None) -> None:
        self.path = path
        self._file = FORMAT.open(path)
        self.attributes = dict(self._file.attrs)
        self.classes = tuple(json.loads(self.attributes["classes"]))
        if classes is not None and self.classes != tuple(classes):
            self.close()
            raise UserError(f"{path}: predicts {self.classes}, not {tuple(classes)}; {FORMAT.remedy}")
        self.canvas: tuple[int, int] = self._file["class"].shape[1:]
        self.branches: int = self._file["votes"].shape[1]
        try:
            with FORMAT.telling(path):
                self.images = hdf5.read_names(self._file, "images")
                self.shapes = hdf5.read_shapes(self._file, "shapes", self.canvas)
                if self.branches < 1:
                    raise ValueError("'votes' are of no branch")
        except BaseException:
            self.close()
            raise
        # Reading through a kept dataset is twelve times as fast as looking it up for every image.
        self._class: h5py.Dataset = self._file["class"]
        self._confidence: h5py.Dataset = self._file["confidence"]
        self._agreement: h5py.Dataset | None = self._file.get("agreement")
        self.least_agreement = int(self.attributes.get("least_agreement", 0))

    def __len__(self) -> int:
        return len(self.images)

    def read(self, position: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
        """Class ids and bins of one image, (h, w) each, without padding."""
        return self.read_classes(position), self._plane(self._confidence, position)

    def read_classes(self, position: int) -> npt.NDArray[np.uint8]:
        """Class ids of one image, (h, w), without padding."""
        return self._plane(self._class, position, len(self.classes))

    def agreement(self, position: int) -> npt.NDArray[np.uint8]:
        """How many branches name the most frequent class, (h, w); without branches one, everywhere."""
        if self._agreement is None:
            return np.ones(self.shapes[position], np.uint8)
        return self._plane(self._agreement, position)

    def votes(self) -> npt.NDArray[np.int64]:
        """Pixels predicted as each class, filtered or not, that 1, 2, ... branches agree on, (C, branches)."""
        return self._whole("votes")

    def histogram(self) -> npt.NDArray[np.int64]:
        """Valid pixels by class and bin, (C, BINS)."""
        return self._whole("histogram")

    def _plane(self, planes: h5py.Dataset, position: int, classes: int | None = None) -> npt.NDArray[Any]:
        with FORMAT.telling(self.path):
            return hdf5.read_plane(planes, position, self.shapes[position], classes)

    def _whole(self, name: str) -> npt.NDArray[np.int64]:
        with FORMAT.telling(self.path):
            return self._file[name][:]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_histograms(paths: Iterable[Path | str], classes: Sequence[str] | None = None) -> npt.NDArray[np.int64]:
    """The summed histograms of all shards, (C, BINS); of `classes`, if these are given, else UserError."""
    total: npt.NDArray[np.int64] | None = None
    for path in paths:
        with Predictions(path, classes) as shard:
            classes = shard.classes
            total = shard.histogram() if total is None else total + shard.histogram()
    if total is None:
        raise UserError("no files of predictions were given")
    return total
