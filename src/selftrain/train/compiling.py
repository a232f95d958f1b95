"""torch.compile of a training's networks, and what to say where there is no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException

from selftrain.errors import UserError

HOW: dict[str, Any] = {"backend": "inductor", "options": {"fallback_random": True}}
"""Dropout draws as it does uncompiled."""


def compile_networks(*networks: nn.Module) -> None:
    """Compile networks in place, so that they are still what they were, and their weights have the names they had.

    Nothing happens before the first forward pass. Each shape of a batch is compiled on its own; a training has few.
    """
    for network in networks:
        network.compile(dynamic=False, **HOW)


@contextmanager
def compiler_told() -> Iterator[None]:
    """What a missing or failing compiler raises, as a UserError."""
    try:
        yield
    except TorchDynamoException as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        missing = "; a C++ compiler such as g++ is needed, and Triton on a GPU. Install them, or"
        remedy = missing if isinstance(error, BackendCompilerFailed) else ";"
        raise UserError(
            f"train.compile: torch cannot compile this network here ({reason}){remedy} set it to false"
        ) from error
