"""The order in which the images of a hybrid round come."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selftrain import randomness
from selftrain.data.batches import Order
from selftrain.settings.hybrid import ReliableFirstSettings
from selftrain.train.mixing import Place, chosen_of

Reliability = npt.NDArray[np.float32]
Roots = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


class Growing:
    """An order of pseudo-labeled images from a pool that grows linearly from the most reliable ones to all.

    Of the pool, the next is always one of those drawn least often; an image that enters it comes in the pass under way.
    """

    def __init__(self, reliability: Reliability, settings: ReliableFirstSettings, draws: int, place: Place) -> None:
        """Of a round.

        Args:
            reliability: of each image, (N,).
            settings: how the pool grows.
            draws: how many images the round draws.
            place: what the draws depend on.
        """
        self.ranked = np.argsort(-reliability, kind="stable")
        self.settings, self.draws = settings, draws
        self.order = np.empty(draws, np.int64)
        draw = randomness.generator(*place)
        waiting: list[tuple[int, float, int]] = []  # how often drawn, chance, rank
        entered = passes = 0
        for number in range(draws):
            for rank in range(entered, self._size(number)):
                heapq.heappush(waiting, (passes, draw.random(), rank))
            entered = max(entered, self._size(number))
            passes, _, rank = heapq.heappop(waiting)
            self.order[number] = self.ranked[rank]
            heapq.heappush(waiting, (passes + 1, draw.random(), rank))

    def __call__(self, drawn: int) -> int:
        """The position of the image that is drawn after so many."""
        return int(self.order[drawn])

    def pool(self, drawn: int) -> npt.NDArray[np.int64]:
        """The positions of the images that are reliable enough by then."""
        return self.ranked[: self._size(drawn)]

    def _size(self, drawn: int) -> int:
        grown = min(1.0, drawn / (self.settings.until * self.draws))
        return chosen_of(len(self.ranked), self.settings.start + (1 - self.settings.start) * grown)


@dataclass(frozen=True, eq=False)
class Partners:
    """Draws an image among those whose classes are most like another's.

    How alike two images are is the affinity of their class shares p and q, the sum of √(p q): 1 where they are the
    same, 0 where they have no class in common.

    Attributes:
        images: √p of those that partners are drawn for, (N, C).
        candidates: √p of the images to draw from, (M, C).
        among: share of these that are like enough.
        place: what draws depend on.
    """

    images: Roots
    candidates: Roots
    among: float
    place: Place

    def __call__(self, position: int, number: int, allowed: Positions | None = None) -> int:
        """The partner of the image at a position, in draw `number`; all may be drawn, or those `allowed`."""
        draw = randomness.generator(*self.place, number)
        # Chance decides between images that are alike but for rounding.
        rank = -(self.candidates @ self.images[position]).round(6) + 1e-7 * draw.random(len(self.candidates))
        if allowed is not None:
            rank[np.setdiff1d(np.arange(len(rank)), allowed)] = np.inf
        count = chosen_of(len(rank) if allowed is None else len(allowed), self.among)
        alike = np.sort(np.argpartition(rank, count - 1)[:count])
        return int(draw.choice(alike))


def roots(counts: npt.NDArray[np.int64]) -> Roots:
    """√p of class shares p, (N, C), of images with so many pixels of each class; zeros where there are none."""
    return np.sqrt(counts / np.maximum(1, counts.sum(1, keepdims=True)))


@dataclass(frozen=True, eq=False)
class Pairs:
    """An order of pseudo-labeled images in which every other one is a partner of the one before it.

    Attributes:
        first: the order of those that partners are drawn for.
        partners: draws them.
        pool: from how many of the first were drawn to the positions that may be; none: all.
    """

    first: Order
    partners: Partners
    pool: Callable[[int], Positions] | None = None

    def __call__(self, drawn: int) -> int:
        """The position of the image that is drawn after so many."""
        number, second = divmod(drawn, 2)
        position = self.first(number)
        if not second:
            return position
        pool = np.arange(len(self.partners.candidates)) if self.pool is None else self.pool(number)
        others = pool[pool != position]
        return self.partners(position, number, others if len(others) else pool)


@dataclass(frozen=True, eq=False)
class Pasted:
    """An order of labeled images in which each is a partner of the image that it is pasted onto.

    Attributes:
        onto: the order of these.
        partners: draws labeled images for them.
    """

    onto: Order
    partners: Partners

    def __call__(self, drawn: int) -> int:
        """The position of the image that is drawn after so many."""
        return self.partners(self.onto(drawn), drawn)
