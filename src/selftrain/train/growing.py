"""The order in which the images of a hybrid round come."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from selftrain import randomness
from selftrain.settings.hybrid import ReliableFirstSettings
from selftrain.train.mixing import Place, chosen_of

Reliability = npt.NDArray[np.float32]


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

    def _size(self, drawn: int) -> int:
        grown = min(1.0, drawn / (self.settings.until * self.draws))
        return chosen_of(len(self.ranked), self.settings.start + (1 - self.settings.start) * grown)
