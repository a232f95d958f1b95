"""How many steps a training takes, and how many images of which stream a step has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from selftrain.errors import UserError
from selftrain.settings.training import TrainStageSettings
from selftrain.train.algorithms import Algorithm, of_unlabeled

SELDOM = 1000
"""Steps a batch of a stream from which on its epochs are refused."""


def batch_sizes(batch_size: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Images a step per stream that has its turn; what halves leave over goes to the first stream."""
    sizes = {name: int(batch_size * share) for name, share in shares.items()}
    # Of shares that make a whole, all of the batch; 1e-9, since thirds may make a little less.
    sizes[next(iter(sizes))] += math.floor(batch_size * sum(shares.values()) + 1e-9) - sum(sizes.values())
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise UserError(
            f"train.batch_size: {batch_size} leaves none for the stream '{empty[0]}'; {len(shares)} or more"
        )
    return sizes


def length(settings: TrainStageSettings, images: Mapping[str, int], algorithm: Algorithm) -> int:
    """Steps of the training; epochs are of the stream whose images are those of the split `epochs_of`.

    Args:
        settings: of the training.
        images: how many there are in the splits that it sees, 'labeled' and 'unlabeled'.
        algorithm: which streams it draws from, and when.
    """
    train = settings.train
    if train.epochs is None:
        return round((train.steps or 0) * train.length_factor)
    sizes = batch_sizes(train.batch_size, algorithm.streams)
    stream = "labeled" if train.epochs_of == "labeled" else of_unlabeled(sizes)
    if stream is None or train.epochs_of not in images:
        raise UserError(f"train.epochs_of: the algorithm '{settings.algorithm.name}' sees no {train.epochs_of} images")
    batches = math.ceil(train.epochs * train.length_factor * images[train.epochs_of] / sizes[stream])
    steps, drawn = batches, int(algorithm.turns(batches)[stream].sum())
    while drawn < batches:  # where streams take turns, more steps than batches
        if steps > SELDOM * batches:
            raise UserError(f"train.epochs_of: hardly a step draws {train.epochs_of} images; give steps")
        steps = max(steps + batches - drawn, steps * batches // (drawn + 1))
        drawn = int(algorithm.turns(steps)[stream].sum())
    return steps
