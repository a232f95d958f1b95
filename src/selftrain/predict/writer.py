"""Writing files of predictions, and counting what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selftrain import artifacts, hdf5
from selftrain.agreement import least
from selftrain.confidence import BINS
from selftrain.predict.store import FORMAT
from selftrain.settings.data import IGNORE

Plane = npt.NDArray[np.integer] | Tensor
"""Integers (h, w), on any device."""


class Packed(NamedTuple):
    """An image's planes, compressed."""

    position: int
    planes: list[tuple[h5py.Dataset, hdf5.Packed]]


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
        # A row more than classes, for the pixels of none; where the planes are, since a GPU counts in no time.
        self._histogram = torch.zeros((len(classes) + 1, BINS), dtype=torch.int64)
        self._votes = torch.zeros((len(classes) + 1, branches), dtype=torch.int64)
        self._least = 0 if least_agreement is None else least(least_agreement, branches)
        self._stack, self._counting = ExitStack(), Lock()

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
        self.write_packed(self.pack(position, classes, bins, agreement))

    def write_packed(self, image: Packed) -> None:
        """Write an image that was packed; in the order of these calls, which decides the bytes of the file."""
        for planes, chunks in image.planes:
            hdf5.write_packed(planes, image.position, chunks)
        self._file.disk.check()
        self._written[image.position] = True

    def pack(self, position: int, classes: Plane, bins: Plane, agreement: Plane | None = None) -> Packed:
        """Count an image's pixels and compress its planes, as `write` takes them; in several threads at a time."""
        height, width = self._shapes[position]
        if {tuple(plane.shape) for plane in (classes, bins, agreement) if plane is not None} != {(height, width)}:
            raise ValueError(f"{self._names[position]} is {height}x{width}, not {classes.shape}, {bins.shape}")
        if (agreement is None) != (self._votes.shape[1] == 1):
            raise ValueError(f"{self._names[position]}: agreement is there if and only if there are branches")
        classes, bins = torch.as_tensor(classes), torch.as_tensor(bins)
        planes: list[tuple[h5py.Dataset, npt.NDArray[np.integer]]] = []
        if agreement is not None:
            agreement = torch.as_tensor(agreement)
            planes.append((self._agreement, agreement.cpu().numpy()))
            with self._counting:
                self._votes = self._votes.to(classes.device)
                tally(self._votes, classes, agreement.int() - 1)
            classes = torch.where(agreement >= self._least, classes, IGNORE)
        with self._counting:
            self._histogram = self._histogram.to(classes.device)
            tally(self._histogram, classes, bins)
        planes.append((self._class, classes.cpu().numpy().astype(np.uint8, copy=False)))
        planes.append((self._confidence, bins.to(torch.int16).cpu().numpy().view(np.uint16)))
        return Packed(position, [(dataset, hdf5.packed(dataset, plane)) for dataset, plane in planes])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is not None:
                self._stack.__exit__(kind, error, trace)
            elif not self._written.all():
                raise ValueError(f"{self._path}: {(~self._written).sum()} images were not written")
            else:
                histogram = self._histogram.cpu().numpy()
                votes = histogram.sum(1, keepdims=True) if self._votes.shape[1] == 1 else self._votes.cpu().numpy()
                hdf5.write_histogram(self._file, histogram[:-1])
                self._file.attrs["counted"] = artifacts.digest_array(histogram[:-1])
                self._file["votes"] = votes[:-1]


def tally(histogram: Tensor, classes: Tensor, bins: Tensor) -> None:
    """Count pixels (h, w) by class and bin into a histogram (C + 1, width), whose last row is for class 255.

    In place, since what a small image has is little beside all bins.
    """
    rows, width = histogram.shape
    cells = classes.clamp(max=rows - 1).long().mul_(width).add_(bins.int()).flatten()
    histogram.view(-1).scatter_add_(0, cells, torch.ones((), dtype=torch.int64, device=cells.device).expand(len(cells)))
