"""Pseudo weak-labels: which classes an image shows, from the sizes of its pseudo-labels (MLSL section 3.3.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def weak_labels(
    counts: npt.NDArray[np.int64], areas: npt.NDArray[np.int64], mean_size: npt.NDArray[np.float64], eta: float
) -> npt.NDArray[np.uint8]:
    """1 where an image shows a class, uint8 (N, C): its share of the image is above eta times the class's mean size.

    Args:
        counts: pseudo-labeled pixels, (N, C).
        areas: pixels of each image, (N,).
        mean_size: mean share of the area of the labeled images that show the class, m_i of eq. 4, (C,).
        eta: what counts as noise.
    """
    return (counts > eta * mean_size * areas[:, None]).astype(np.uint8)
