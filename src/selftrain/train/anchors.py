"""The images of a hybrid round: their labels from a file, and the order that they come in."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from selftrain import randomness
from selftrain.data.batches import Stream, shuffled
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.settings.data import IGNORE, OPEN, ReadSettings
from selftrain.settings.hybrid import ReliableFirstSettings

Reliability = npt.NDArray[np.float32]
Roots = npt.NDArray[np.float32]
Place = tuple[int | str, ...]


class Anchored(Stream):
    """The images of a split with pseudo-labels, and `OPEN` where the file has none.

    What a person has reviewed is as the person says: nothing of it is open.
    """

    def __init__(self, table: Path, read: ReadSettings, pseudo_labels: PseudoLabels) -> None:
        super().__init__(table, read, pseudo_labels.label)
        self.reviewed = pseudo_labels.reviewed

    def item(self, position: int) -> tuple[Tensor, Tensor]:
        """An image and its label before augmentation, which ignores what it adds."""
        image, label = super().item(position)
        if self.names[position] not in self.reviewed:
            label[label == IGNORE] = OPEN
        return image, label


class Epochs:
    """An order of anchored images: epochs, each of the images that are reliable enough by then, shuffled anew.

    The pool grows linearly from a share of the images, the most reliable, to all of them; each epoch goes once through
    what the pool is when it begins.
    """

    def __init__(self, reliability: Reliability, settings: ReliableFirstSettings, draws: int, place: Place) -> None:
        """Of a round.

        Args:
            reliability: of each image, (N,).
            settings: how the pool grows.
            draws: how many images the round draws.
            place: what the epochs' orders depend on.
        """
        self.ranked = np.argsort(-reliability, kind="stable")
        self.place, self.begins, self.pools = place, [0], list[int]()
        while self.begins[-1] < max(draws, 1):
            grown = min(1.0, self.begins[-1] / (settings.until * max(draws, 1)))
            share = settings.start + (1 - settings.start) * grown
            self.pools.append(math.ceil(share * len(reliability)))
            self.begins.append(self.begins[-1] + self.pools[-1])

    def __call__(self, drawn: int) -> int:
        """The position of the image that is drawn after so many."""
        epoch = self._epoch(drawn)
        order = shuffled(self.pools[epoch], *self.place, epoch)
        return int(self.ranked[order[drawn - self.begins[epoch]]])

    def pool(self, drawn: int) -> npt.NDArray[np.int64]:
        """The positions of the images that are reliable enough by then."""
        return self.ranked[: self.pools[self._epoch(drawn)]]

    def _epoch(self, drawn: int) -> int:
        return bisect_right(self.begins, drawn) - 1


@dataclass(frozen=True, eq=False)
class Partners:
    """Draws an image among those whose classes are most like another's.

    How alike two images are is the affinity of their class shares p and q, the sum of √(p q): 1 where they are the
    same, 0 where they have no class in common.

    Attributes:
        layouts: √p of the images that partners are drawn for, (N, C).
        own: √p of the images to draw from, (M, C).
        among: share of these that are like enough.
        place: what draws depend on.
    """

    layouts: Roots
    own: Roots
    among: float
    place: Place

    def __call__(self, position: int, draw: int, allowed: npt.NDArray[np.int64] | None = None) -> int:
        """The partner of the image at a position, in draw number `draw`; all may be drawn, or those `allowed`."""
        allowed = np.arange(len(self.own)) if allowed is None else allowed
        affinity = self.own[allowed] @ self.layouts[position]
        alike = allowed[np.argsort(-affinity, kind="stable")]
        if affinity.any():  # else the image has no class in common with any, or none at all
            alike = alike[: math.ceil(self.among * len(alike))]
        return int(alike[randomness.generator(*self.place, draw).integers(len(alike))])


def roots(counts: npt.NDArray[np.int64]) -> Roots:
    """√p of class shares p, (N, C), of images with so many pixels of each class; zeros where there are none."""
    return np.sqrt(counts / np.maximum(1, counts.sum(1, keepdims=True))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Pairs:
    """An order of anchored images in which every other one is a partner of the one before it."""

    first: Epochs
    partners: Partners

    def __call__(self, drawn: int) -> int:
        """The position of the image that is drawn after so many."""
        number, second = divmod(drawn, 2)
        position = self.first(number)
        if not second:
            return position
        pool = self.first.pool(number)
        others = pool[pool != position]
        return self.partners(position, number, others if len(others) else pool)


@dataclass(frozen=True, eq=False)
class PastedPartners:
    """An order of labeled images in which each is a partner of the anchored image that it is pasted onto.

    Attributes:
        below: the order of anchored images.
        partners: of these, among labeled images.
        labeled: labeled images a step; the n-th is pasted onto the n-th anchored one.
        anchored: anchored images a step, as many, or one less.
    """

    below: Epochs
    partners: Partners
    labeled: int
    anchored: int

    def __call__(self, drawn: int) -> int:
        """The position of the image that is drawn after so many."""
        step, item = divmod(drawn, self.labeled)
        return self.partners(self.below(step * self.anchored + item % self.anchored), drawn)
