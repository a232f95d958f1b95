"""One file per algorithm: how a step's batches become a loss.

An algorithm is built from its settings and what is given, names the streams it draws from and the heads it trains, and
returns the terms of a step's loss, which the loop adds.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from selftrain.data.batches import Batch
from selftrain.models.segmenter import Segmenter


@dataclass(frozen=True, eq=False)
class Given:
    """What an algorithm knows beside its settings; tensors are float32 (classes,) on the training's device."""

    classes: int
    class_weights: Tensor | None = None
    """Of the cross-entropy."""
    mean_size: Tensor | None = None
    """Mean share of the area of the labeled images that show a class; with pseudo-labels only."""


class Algorithm(ABC):
    """What the loop asks of an algorithm."""

    streams: dict[str, float]
    """The streams it draws from ('labeled', 'pseudo_labeled'), each with its share of the batch."""

    def heads(self, network: Segmenter) -> dict[str, nn.Module]:
        """New heads for the network to train with, by name; none unless an algorithm has some."""
        return {}

    @abstractmethod
    def terms(self, model: nn.Module, batches: dict[str, Batch], step: int) -> dict[str, Tensor]:
        """The terms of the loss of one step, by name, weighted."""
