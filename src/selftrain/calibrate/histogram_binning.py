"""Histogram binning: probabilities become frequencies (Zadrozny and Elkan 2001; Guo et al. 2017, sections 4.1, 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftrain.calibrate.calibrator import Calibrator
from selftrain.calibrate.logits import Seen
from selftrain.errors import UserError
from selftrain.settings.calibration import HistogramBinningSettings
from selftrain.settings.data import IGNORE


@dataclass(frozen=True)
class HistogramBinning(Calibrator):
    """Each class against the rest: bins of its probability, each standing for a share; then normalized over classes."""

    shares: Sequence[Sequence[float]]
    """Per class, of the pixels in each bin those that are the class: C rows, as many columns as bins."""
    of_probabilities = True

    @cached_property
    def _table(self) -> Tensor:
        return torch.tensor(self.shares)

    def probabilities(self, probabilities: Tensor) -> Tensor:
        """The shares of the bins that the probabilities lie in, by their sum over classes."""
        shares = torch.empty_like(probabilities)
        for index, of_class in enumerate(self._table.to(probabilities.device)):
            shares[:, index] = of_class[bins_of(probabilities[:, index], len(of_class))]
        return shares.div_(shares.sum(1, keepdim=True))

    def parameters(self) -> dict[str, Any]:
        """As the file holds them."""
        return {"shares": self.shares}

    @classmethod
    def fitted(
        cls, settings: HistogramBinningSettings, images: Iterable[Seen], classes: int, seed: int
    ) -> tuple[HistogramBinning, int]:
        """The shares over all labeled pixels, and how many these are; nothing is drawn.

        In each bin a pixel counts beside the others whose chance to be the class is the bin's middle: a bin without
        pixels keeps its middle, and no share is 0, which would rule a class out for good.

        Raises:
            UserError: no pixel is labeled.
        """
        pixels, hits = count(images, classes, settings.bins)
        if not pixels.any():
            raise UserError("the calibration split has no labeled pixel; a calibrator cannot be fitted on it")
        middles = (np.arange(settings.bins) + 0.5) / settings.bins
        return cls(((hits + middles) / (pixels + 1)).tolist()), int(hits.sum())


def count(images: Iterable[Seen], classes: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Labeled pixels by class and bin of its probability, and those of them that are the class, int64 (C, B)."""
    pixels, hits = np.zeros((2, classes, bins), np.int64)
    for image in images:
        probabilities = image.logits.softmax(0)
        label = torch.from_numpy(image.label).to(probabilities.device)
        for index in range(classes):
            binned = bins_of(probabilities[index], bins)
            pixels[index] += torch.bincount(binned[label != IGNORE], minlength=bins).cpu().numpy()
            hits[index] += torch.bincount(binned[label == index], minlength=bins).cpu().numpy()
    return pixels, hits


def bins_of(probabilities: Tensor, bins: int) -> Tensor:
    """The bin of each probability, int64: bin b holds those from b / bins to below the next; the last one also 1."""
    return (probabilities * bins).long().clamp_(max=bins - 1)
