"""One file per algorithm: how a step's batches become a loss.

An algorithm is built from its settings and the training's class weights, names the streams it draws from, and returns
the terms of a step's loss, which the loop adds.
"""

from typing import Protocol

from torch import Tensor, nn

from selftrain.data.batches import Batch


class Algorithm(Protocol):
    """What the loop asks of an algorithm."""

    streams: dict[str, float]
    """The streams it draws from ('labeled', 'pseudo_labeled'), each with its share of the batch."""

    def terms(self, model: nn.Module, batches: dict[str, Batch], step: int) -> dict[str, Tensor]:
        """The terms of the loss of one step, by name, weighted."""
        ...
