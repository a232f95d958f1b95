"""Reading pseudo_labels.h5."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from selftrain import hdf5
from selftrain.confidence import log_odds_of_coarse

OF_IMAGES = {
    "images": ("O", "N"),
    "shapes": ("i", "N2"),
    "label": ("u", "NHW"),
    "confidence": ("u", "NHW"),
    "counts": ("i", "NC"),
    "mean_confidence": ("f", "N"),
}
"""What a shard has, too."""
CLASS_COLUMNS = [
    "class",
    "predicted",
    "filtered",
    "agreeing",
    "pixels",
    "share",
    "prior",
    "threshold_log_odds",
    "threshold_probability",
    "kept_fraction",
    "images",
    "changed",
    "weak_images",
]
"""Of the table `classes`, and of pseudo_labels.csv, which is the same."""
CUT_COLUMNS = ["class", "prior", "mean_size", "threshold_bin", "kept_fraction"]
"""Those of the table `cut` that are read again."""


def _is_review(value: Any) -> bool:
    """Whether it is JSON of what a person made of images, a mapping each; it may be absent."""
    try:
        told = [] if value is None else json.loads(value)
        return all(isinstance(one[key], str) for one in told for key in ("image", "review"))
    except (ValueError, TypeError, KeyError):
        return False


FORMAT = hdf5.Format(
    "selftrain-pseudo-labels",
    5,
    "run label again to make it",
    OF_IMAGES | {"histogram": ("i", "CB"), "classes": ("V", "C"), "cut": ("V", "C")},
    {"agreement": ("u", "NHW"), "weak_labels": ("u", "NC")},
    has_classes=True,
    attributes={
        "method": hdf5.is_text,
        "round": hdf5.is_count,
        "portion": hdf5.is_number,
        "settings": hdf5.is_text,
        "colors": hdf5.are_colors,
        "branches": lambda value: hdf5.is_count(value) and value > 0,
        "review": _is_review,
    },
    columns={"classes": CLASS_COLUMNS, "cut": CUT_COLUMNS},
)


class PseudoLabels:
    """The pseudo-labels of one round.

    The file is opened at the first read, once in each process, so an instance can be handed to loader workers.

    >>> labels = PseudoLabels("results/streets/dars/seed-0/round-1/pseudo_labels.h5")  # doctest: +SKIP
    >>> labels.classes[["class", "share", "prior"]]  # doctest: +SKIP
    >>> labels.label("frankfurt_0001")  # doctest: +SKIP

    Attributes:
        path: the file.
        attributes: method, round, portion, seed, model (digest), ...; JSON text where it is not a plain value.
        class_names: the C class names.
        names: the N image names.
        shapes: true sizes, int32 (N, 2).
        counts: labeled pixels, int64 (N, C).
        mean_confidence: log-odds, the mean over all pixels of each image, labeled or not, float32 (N,).
        branches: of the network that made them, how many could agree on a pixel.
        weak_labels: 1 where an image shows a class, uint8 (N, C); None where the round has no weak labels.
        classes: one row per class: predicted, filtered, agreeing, pixels, share, prior, threshold, kept fraction,
            images.
        cut: the table that select wrote.
        positions: of each image, by its name.

    Raises:
        UserError: the file is missing, cut short, or no pseudo-labels; then, or as an image is read, it is broken.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with FORMAT.read(path) as file:
            self.attributes: dict[str, Any] = dict(file.attrs)
            self.class_names: list[str] = json.loads(file.attrs["classes"])
            self.names = hdf5.read_names(file, "images")
            self.shapes = hdf5.read_shapes(file, "shapes", file["label"].shape[1:])
            self.counts: npt.NDArray[np.int64] = file["counts"][:]
            self.mean_confidence: npt.NDArray[np.float32] = file["mean_confidence"][:]
            weak = file.get("weak_labels")
            self.weak_labels: npt.NDArray[np.uint8] | None = None if weak is None else weak[:]
            self.classes = hdf5.read_table(file, "classes")
            self.cut = hdf5.read_table(file, "cut")
            self.branches = int(file.attrs["branches"])
            if self.branches > 1 and "agreement" not in file:
                raise ValueError(f"no dataset 'agreement', and there are {self.branches} branches")
        self.positions = {name: position for position, name in enumerate(self.names)}
        self._opened: tuple[int, dict[str, h5py.Dataset]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def histogram(self) -> npt.NDArray[np.int64]:
        """Predicted pixels by class and bin, int64 (C, BINS); megabytes, so read when asked for."""
        with FORMAT.read(self.path) as file:
            found: npt.NDArray[np.int64] = file["histogram"][:]
        return found

    @cached_property
    def reviewed(self) -> dict[str, str]:
        """What a person made of images, by name: excluded, or mask."""
        return {one["image"]: one["review"] for one in json.loads(self.attributes.get("review", "[]"))}

    @property
    def images(self) -> pd.DataFrame:
        """One row per image: image, height, width, labeled (pixels), labeled_share, mean_confidence (log-odds, of all
        pixels), the names of its weak_labels where there are any, what a review made of it (excluded, mask) where
        there is one, and the pixels of each class."""
        labeled = self.counts.sum(1)
        known = pd.DataFrame(
            {
                "image": self.names,
                "height": self.shapes[:, 0],
                "width": self.shapes[:, 1],
                "labeled": labeled,
                "labeled_share": labeled / np.maximum(1, self.shapes.prod(1, dtype=np.int64)),
                "mean_confidence": self.mean_confidence,
            }
        )
        if self.weak_labels is not None:
            names = np.array(self.class_names)
            known["weak_labels"] = [", ".join(names[shown > 0]) for shown in self.weak_labels]
        if "review" in self.attributes:
            known["review"] = [self.reviewed.get(name, "") for name in self.names]
        return pd.concat([known, pd.DataFrame(self.counts, columns=self.class_names)], axis=1)

    def label(self, image: int | str) -> npt.NDArray[np.uint8]:
        """The class of each pixel, 255 where it is ignored, (h, w) without padding."""
        return self._read("label", image)

    def confidence(self, image: int | str) -> npt.NDArray[np.float32]:
        """The log-odds of each pixel's predicted class, in steps of a quarter, (h, w); of ignored pixels too."""
        return log_odds_of_coarse(self._read("confidence", image))

    def coarse_confidence(self, image: int | str) -> npt.NDArray[np.uint8]:
        """The byte that `confidence` is told by, (h, w): b stands for log-odds from b / 4 - 8 on."""
        return self._read("confidence", image)

    def agreement(self, image: int | str) -> npt.NDArray[np.uint8]:
        """How many of the network's branches name the most frequent class of each pixel, 1 to `branches`, (h, w).

        The variation ratio (strategic curriculum eq. 3) is 1 - agreement / branches.
        """
        if self.branches == 1:
            return np.ones_like(self._read("label", image))
        return self._read("agreement", image)

    def _read(self, name: str, image: int | str) -> npt.NDArray[np.uint8]:
        position = self.positions[image] if isinstance(image, str) else range(len(self))[image]
        planes = self._datasets()[name]
        with FORMAT.telling(self.path):
            classes = len(self.class_names) if name == "label" else None
            return hdf5.read_plane(planes, position, self.shapes[position], classes)

    def _datasets(self) -> dict[str, h5py.Dataset]:
        # An HDF5 handle must not be used on both sides of a fork, so each process opens its own.
        if self._opened is None or self._opened[0] != os.getpid():
            file = FORMAT.open(self.path)
            planes = {name: file[name] for name in ("label", "confidence", "agreement") if name in file}
            self._opened = os.getpid(), planes
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}
