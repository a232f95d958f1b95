"""preview.h5: a few unlabeled images as several models see them.

Datasets: `images` (n names), `shapes` int32 (n, 2), `mean_confidence` float32 (n,) in log-odds and `rarity` float32
(n,), by which they were chosen; below `models`, for each model's folder, `label` and `confidence`, uint8 (n, H, W), as
in pseudo_labels.h5, without ignored pixels. Attributes: format, version, classes as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from selftrain import hdf5
from selftrain.preview.choice import Worth

FORMAT = hdf5.Format(
    "selftrain-preview",
    1,
    "run preview again to make it",
    {"images": ("O", "N"), "shapes": ("i", "N2"), "mean_confidence": ("f", "N"), "rarity": ("f", "N")},
    has_classes=True,
)


class Preview:
    """The file, open for reading; a context manager.

    Attributes:
        classes: names.
        images: names.
        shapes: true sizes, int32 (n, 2).
        worth: by what they were chosen.
        models: folders of the models that predicted them.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._file = FORMAT.open(path)
        with FORMAT.telling(path):
            self.classes: list[str] = json.loads(self._file.attrs["classes"])
            self.images = hdf5.read_names(self._file, "images")
            self.worth = Worth(self._file["mean_confidence"][:], self._file["rarity"][:])
            self.models = [str(folder) for folder in self._file["models"].attrs["folders"]]
            self.shapes = hdf5.read_shapes(self._file, "shapes")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def predicted(self, folder: str, position: int) -> npt.NDArray[np.uint8]:
        """What a model predicts of an image: class ids, (h, w)."""
        with FORMAT.telling(self.path):
            planes = self._file[f"models/{folder}/label"]
            return hdf5.read_plane(planes, position, self.shapes[position], len(self.classes))
