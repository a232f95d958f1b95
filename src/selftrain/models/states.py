"""Reading somebody else's weights: tensors only, and no code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from selftrain.errors import UserError

NESTED = ("state_dict", "model", "model_state")
"""Keys below which training scripts keep the weights among other things."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file, or of a state dict saved by torch, by name.

    Raises:
        UserError: the file is missing, cut short, holds code or no tensors, or a NaN or infinite one.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a broken file makes the unpickler raise nearly anything
        # What torch says after its first line is how to run code from the file all the same.
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a safetensors file or a state dict of tensors ({said})") from None
    for key in NESTED:
        state = state.get(key, state) if isinstance(state, dict) else {}
    tensors = {str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: no tensors by name in it; a state dict is needed")
    if broken := not_finite(tensors):
        raise UserError(f"{path}: NaN or infinite weights in {broken}")
    return tensors


def not_finite(weights: dict[str, Tensor] | nn.Module) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity."""
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    return next((name for name, tensor in state.items() if not torch.isfinite(tensor).all()), None)


def few(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    listed = sorted(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
