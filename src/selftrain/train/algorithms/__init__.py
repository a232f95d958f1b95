"""One file per algorithm: how a step's batches become a loss.

An algorithm is built from its settings and what is given, names the streams it draws from and the heads it trains, and
returns the terms of a step's loss, which the loop adds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from selftrain.data.batches import Batch, Turns
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.models.segmenter import Segmenter
from selftrain.train import losses


@dataclass(frozen=True, eq=False)
class Given:
    """What an algorithm knows beside its settings; tensors are float32 (classes,) on the training's device."""

    classes: int
    class_weights: Tensor | None = None
    """Of the cross-entropy."""
    focal: float = 0.0
    """Gamma of the cross-entropy of hard labels."""
    mean_size: Tensor | None = None
    """Mean share of the area of the labeled images that show a class; with pseudo-labels only."""
    distribution: Tensor | None = None
    """Class shares to align with, where the settings ask for it."""
    place: tuple[int, ...] = (0, 0)
    """What all random draws depend on beside step and item: (seed, round)."""
    pseudo_labels: PseudoLabels | None = None
    """Offline: the round's."""

    def cross_entropy(self, logits: Tensor, labels: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
        """`losses.cross_entropy` of hard labels, with the class weights and the focal gamma of this training."""
        return losses.cross_entropy(logits, labels, self.class_weights, pixel_weights, self.focal)


@dataclass(frozen=True, eq=False)
class Step:
    """A step of a training: what its loss is made from."""

    number: int
    """From 0."""
    steps: int
    """Of the whole training."""
    batches: dict[str, Batch]
    """By stream."""
    student: nn.Module
    """The network that learns; takes what a `Segmenter` takes, and returns what it returns."""
    teacher: Callable[[Tensor], Tensor]
    """Images to logits, without a gradient; a UserError where the training has no teacher."""


@dataclass(frozen=True, eq=False)
class Loss:
    """What an algorithm makes of a step."""

    terms: dict[str, Tensor]
    """By name, weighted; the loop adds them."""
    facts: dict[str, Tensor] = field(default_factory=dict)
    """What train.csv tells beside the terms, each without dimensions, on the training's device."""
    example: dict[str, Tensor] = field(default_factory=dict)
    """Pictures that show how unlabeled images are used, by name: images (channels, h, w), or maps, uint8 (h, w)."""


OF_UNLABELED = ("pseudo_labeled", "unlabeled")
"""The streams whose images are those of the unlabeled split."""


def of_unlabeled(streams: Iterable[str]) -> str | None:
    """The one of these streams whose images are those of the unlabeled split."""
    return next((name for name in streams if name in OF_UNLABELED), None)


class Algorithm(ABC):
    """What the loop asks of an algorithm."""

    streams: dict[str, float]
    """The streams it draws from, each with its share of a step's batch: 'labeled', 'unlabeled' (with blank
    labels), or 'pseudo_labeled'."""
    taught: float = 0.0
    """Share of a step's batch that a teacher labels."""
    one_size: bool = True
    """Whether the images of all streams must have one size."""
    state: dict[str, Tensor]
    """What it changes in place from step to step, so that an interrupted training can go on."""

    def __init__(self, given: Given) -> None:
        self.given, self.state = given, {}

    def turns(self, steps: int) -> Turns:
        """At which of the steps each stream gives its images; at all of them, unless an algorithm alternates."""
        return {name: np.ones(steps, bool) for name in self.streams}

    def heads(self, network: Segmenter) -> dict[str, nn.Module]:
        """New heads for the network to train with, by name; none unless an algorithm has some."""
        return {}

    @abstractmethod
    def loss(self, step: Step) -> Loss:
        """The loss of one step."""
