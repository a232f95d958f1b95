"""Files of predictions: per pixel the class and the bin of its confidence, per class a histogram of bins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from selftrain import hdf5
from selftrain.agreement import least
from selftrain.confidence import BINS
from selftrain.errors import UserError
from selftrain.settings.data import IGNORE

Plane = npt.NDArray[np.integer]

FORMAT = hdf5.Format("selftrain-predictions", 2, "run predict again to make it")


class PredictionWriter:
    """Writes one shard: `class` uint8 and `confidence` uint16 (N, H, W), `histogram` int64 (C, BINS), names, shapes.

    And `votes` int64 (C, E), the pixels predicted as each class that 1, 2, ... E branches agree on, filtered or not;
    of a network with several branches also `agreement` uint8 (N, H, W), how many of them name the most frequent class.

    Args:
        path: the file, which appears under this name when the block ends well.
        names: the N images of this shard.
        shapes: their true (height, width).
        canvas: (H, W), at least every shape of the *whole split*, so that all shards have the same chunks.
        classes: the C class names.
        branches: E; 1 where there is nothing to agree.
        least_agreement: share of the branches below which a pixel is filtered: its class is 255, no histogram has it.
        attributes: what else to say in the file's attributes: `model` (digest), mode, ...

    >>> with PredictionWriter("/tmp/selftrain-doctest.h5", names=["a"], shapes=[(2, 3)], canvas=(4, 4),
    ...                       classes=("road", "sky"), attributes={"model": "0f"}) as writer:
    ...     writer.write(0, np.ones((2, 3), np.uint8), np.full((2, 3), 4096, np.uint16))
    """

    def __init__(
        self,
        path: Path | str,
        *,
        names: Sequence[str],
        shapes: Sequence[tuple[int, int]],
        canvas: tuple[int, int],
        classes: Sequence[str],
        attributes: Mapping[str, Any],
        branches: int = 1,
        least_agreement: float | None = None,
    ) -> None:
        self._path, self._names, self._classes, self._attributes = path, names, classes, attributes
        self._shapes = np.array(shapes, np.int32).reshape(-1, 2)
        if (self._shapes > canvas).any():
            raise ValueError(f"an image is larger than the canvas {canvas}")
        self._size = (len(names), *canvas)
        self._written = np.zeros(len(names), bool)
        # A row more than classes, for the pixels of none.
        self._histogram = np.zeros((len(classes) + 1, BINS), np.int64)
        self._votes = np.zeros((len(classes) + 1, branches), np.int64)
        self._least = 0 if least_agreement is None else least(least_agreement, branches)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(FORMAT.create(self._path))
        self._file.attrs["classes"] = json.dumps(list(self._classes))
        self._file.attrs.update(self._attributes)
        hdf5.write_names(self._file, "images", self._names)
        self._file["shapes"] = self._shapes
        self._class = hdf5.create_planes(self._file, "class", np.uint8, self._size, IGNORE)
        self._confidence = hdf5.create_planes(self._file, "confidence", np.uint16, self._size, 0)
        if self._votes.shape[1] > 1:
            self._file.attrs["least_agreement"] = self._least
            self._agreement = hdf5.create_planes(self._file, "agreement", np.uint8, self._size, 0)
        return self

    def write(self, position: int, classes: Plane, bins: Plane, agreement: Plane | None = None) -> None:
        """Write the image at `position` of this shard: (h, w) class ids (255: no prediction), bins, agreement."""
        height, width = self._shapes[position]
        if {plane.shape for plane in (classes, bins, agreement) if plane is not None} != {(height, width)}:
            raise ValueError(f"{self._names[position]} is {height}x{width}, not {classes.shape}, {bins.shape}")
        if (agreement is None) != (self._votes.shape[1] == 1):
            raise ValueError(f"{self._names[position]}: agreement is there if and only if there are branches")
        if agreement is not None:
            hdf5.write_plane(self._agreement, position, agreement)
            tally(self._votes, classes, agreement - 1)
            classes = np.where(agreement >= self._least, classes, np.uint8(IGNORE))
        hdf5.write_plane(self._class, position, classes)
        hdf5.write_plane(self._confidence, position, bins)
        tally(self._histogram, classes, bins)
        self._written[position] = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is not None:
                self._stack.__exit__(kind, error, trace)
            elif not self._written.all():
                raise ValueError(f"{self._path}: {(~self._written).sum()} images were not written")
            else:
                hdf5.write_histogram(self._file, self._histogram[:-1])
                alone = self._votes.shape[1] == 1
                self._file["votes"] = (self._histogram.sum(1, keepdims=True) if alone else self._votes)[:-1]


def tally(histogram: npt.NDArray[np.int64], classes: Plane, bins: Plane) -> None:
    """Count pixels (h, w) by class and bin into a histogram (C + 1, width), whose last row is for class 255.

    In place, since what a small image has is little beside all bins.
    """
    rows, width = histogram.shape
    cells = np.minimum(classes, rows - 1).astype(np.intp)
    cells *= width
    cells += bins
    np.add.at(histogram.reshape(-1), cells.ravel(), 1)


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
        self.images = hdf5.read_names(self._file, "images")
        self.shapes: npt.NDArray[np.int32] = self._file["shapes"][:]
        # Reading through a kept dataset is twelve times as fast as looking it up for every image.
        self._class: h5py.Dataset = self._file["class"]
        self._confidence: h5py.Dataset = self._file["confidence"]
        self.canvas: tuple[int, int] = self._class.shape[1:]
        self._agreement: h5py.Dataset | None = self._file.get("agreement")
        self.branches: int = self._file["votes"].shape[1]
        self.least_agreement = int(self.attributes.get("least_agreement", 0))

    def __len__(self) -> int:
        return len(self.images)

    def read(self, position: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
        """Class ids and bins of one image, (h, w) each, without padding."""
        height, width = self.shapes[position]
        return self._class[position, :height, :width], self._confidence[position, :height, :width]

    def read_classes(self, position: int) -> npt.NDArray[np.uint8]:
        """Class ids of one image, (h, w), without padding."""
        height, width = self.shapes[position]
        return self._class[position, :height, :width]

    def agreement(self, position: int) -> npt.NDArray[np.uint8]:
        """How many branches name the most frequent class, (h, w); without branches one, everywhere."""
        height, width = self.shapes[position]
        if self._agreement is None:
            return np.ones((height, width), np.uint8)
        return self._agreement[position, :height, :width]

    def votes(self) -> npt.NDArray[np.int64]:
        """Pixels predicted as each class, filtered or not, that 1, 2, ... branches agree on, (C, branches)."""
        return self._file["votes"][:]

    def histogram(self) -> npt.NDArray[np.int64]:
        """Valid pixels by class and bin, (C, BINS)."""
        return self._file["histogram"][:]

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
