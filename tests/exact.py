"""What the package does in parts or in place, done plainly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selftrain.confidence import BINS, LOW, STEPS
from selftrain.predict.patches import bands_over_patches


def quantize(log_odds: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """The nearest bin of each log-odds; what lies beyond the scale, infinities included, goes to its ends."""
    bins = np.rint((np.asarray(log_odds) - LOW) * STEPS)
    return np.clip(bins, 0, BINS - 1).astype(np.uint16)


def mean_over_patches(probabilities: Callable[[Tensor], Tensor], image: Tensor, *given: Any, **told: Any) -> Tensor:
    """The bands of `bands_over_patches` as one, float32 (sets · classes, H, W)."""
    return torch.cat(list(bands_over_patches(probabilities, image, *given, **told)), 1)
