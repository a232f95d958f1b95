"""Accuracy by the size of objects (DARS Figure 5b): what a network misses because it is small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import ndimage

OCTAVES = 40
"""Octaves of sizes, [1, 2) to [2^39, 2^40) pixels: no image is larger."""
TOUCHING = np.ones((3, 3), bool)
"""Pixels belong together that share an edge or a corner."""


def by_size(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Objects, their pixels, and those predicted as their class, by class and octave of size: int64 (C, OCTAVES, 3).

    An object is an 8-connected component of one class in the truth; ignored pixels belong to none, and part two
    objects that only they would join. For speed a class is only looked at inside its bounding box, and its objects are
    counted over its own pixels: .3 s for 1024×2048 pixels of 19 classes that are everywhere.

    Args:
        truth: uint8 (h, w), 255 is ignore.
        predicted: uint8 (h, w).
        classes: how many there are, C.
    """
    found = np.zeros((classes, OCTAVES, 3), np.int64)
    right = truth == predicted
    for index, box in enumerate(ndimage.find_objects(truth.astype(np.int32) + 1, max_label=classes)):
        if box is None:
            continue
        inside = truth[box] == index
        objects, count = ndimage.label(inside, TOUCHING)
        numbers = objects[inside] - 1
        pixels = np.bincount(numbers, minlength=count)
        correct = np.bincount(numbers[right[box][inside]], minlength=count)
        octave = np.frexp(pixels)[1] - 1  # of 2^n exactly n, where a logarithm may be a little less
        np.add.at(found[index], octave, np.stack([np.ones_like(pixels), pixels, correct], axis=1))
    return found


def size_table(split: str, classes: Sequence[str], objects: np.ndarray) -> pd.DataFrame:
    """One row per class and octave that has objects: split, class, lower and upper (pixels of an object: lower <= n <
    upper), objects, pixels, correct.

    Args:
        split: the split's name.
        classes: the C class names.
        objects: the sum of `by_size` over a split's images.
    """
    of_class, octave = np.nonzero(objects[..., 0])
    table = pd.DataFrame(objects[of_class, octave], columns=["objects", "pixels", "correct"])
    table.insert(0, "upper", 2 ** (octave + 1))
    table.insert(0, "lower", 2**octave)
    table.insert(0, "class", np.array(classes)[of_class])
    table.insert(0, "split", split)
    return table
