"""Networks without PyTorch's compiler, for jobs that only predict.

To import torchvision or timm brings the compiler and all that it needs (sympy, triton, torch.distributed), only since
both mark functions that it should leave alone: about a quarter of what it takes until a job of predictions is done.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo.utils"
"""What torchvision looks into while it is imported."""


class _Later(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # many look for a module's file
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_networks() -> None:
    """Import torchvision and timm, without the compiler where it is not there yet.

    Whatever compiles later imports it then, but knows nothing of the marks; so this is not for training.
    """
    import torch

    if COMPILER in sys.modules:
        return
    later = _Later(COMPILER)
    vars(later)["is_compile_supported"] = lambda device: later.__getattr__("is_compile_supported")(device)
    sys.modules[COMPILER], disable = later, torch.compiler.disable
    torch.compiler.disable = _as_it_is
    try:
        importlib.import_module("torchvision.transforms.v2")
        importlib.import_module("timm")
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(COMPILER) is later:
            del sys.modules[COMPILER]


def _as_it_is(function: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """`torch.compiler.disable`, of a function or as a decorator with options, where nothing is compiled."""
    return function if function is not None else lambda function: function
