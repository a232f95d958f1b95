"""Which images are worth a look: those that models are least sure of, and those that show rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from selftrain.errors import UserError
from selftrain.label.pseudo_labels import PseudoLabels

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Worth:
    """By what images are ordered: each one's mean confidence in log-odds, (N,), and its rarity, (N,)."""

    confidence: Floats
    rarity: Floats

    @classmethod
    def of(cls, confidence: npt.NDArray[np.floating], shown: npt.NDArray[np.bool_]) -> Self:
        """Of mean confidence, (N,), and of which image shows which class, (N, C).

        An image's rarity is one over the number of images that show a class, summed over the classes that it shows: the
        only image of a class comes before those that share theirs, unless they have many.
        """
        rarity = (shown / np.maximum(1, shown.sum(0))).sum(1)
        return cls(confidence.astype(np.float32), rarity.astype(np.float32))

    @classmethod
    def of_labels(cls, files: Sequence[Path], images: Sequence[str]) -> Self:
        """Of pseudo-labels, all of these images: the mean over the files, and classes that any of them shows.

        Raises:
            UserError: a file is of other images.
        """
        confidence, shown = [], []
        for path in files:
            labels = PseudoLabels(path)
            if labels.names != list(images):
                raise UserError(f"{path}: its images are not those of the unlabeled split; run label again")
            confidence.append(labels.mean_confidence)
            shown.append(labels.counts > 0)
        return cls.of(np.mean(confidence, 0), np.any(shown, 0))

    def first(self, wanted: int) -> list[int]:
        """Positions of the images with the lowest confidence and with the rarest classes, one of each in turn."""
        least, rarest = np.argsort(self.confidence, kind="stable"), np.argsort(-self.rarity, kind="stable")
        in_turn = chain.from_iterable(zip(least.tolist(), rarest.tolist(), strict=True))
        return list(dict.fromkeys(in_turn))[:wanted]

    def at(self, positions: Sequence[int]) -> Self:
        """Of some of the images."""
        return type(self)(self.confidence[list(positions)], self.rarity[list(positions)])


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """Up to `wanted` positions below `count`, the first and the last among them.

    >>> evenly_spaced(96, 4), evenly_spaced(2, 4), evenly_spaced(9, 1)
    ([0, 32, 63, 95], [0, 1], [0])
    """
    return sorted({round(position) for position in np.linspace(0, count - 1, wanted)}) if count else []
