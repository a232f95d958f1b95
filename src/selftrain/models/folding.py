"""Batch-norm folded into the convolutions before it: the same network with a tenth to a quarter less to compute."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar, cast

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.hooks import RemovableHandle

Network = TypeVar("Network", bound=nn.Module)

TOLERANCE = 1e-3
"""Of the largest logit: far more than folding's rounding, far less than a layer makes that should not be folded."""


@torch.no_grad()
def folded(network: Network, example: Tensor) -> Network:
    """A network that says the same but for rounding, for prediction only: its weights are no longer those of a file.

    Which batch-norm follows which convolution is seen in one pass of the example. Where folding them changes what is
    said of it (as where something else looks at the convolution too), the network is returned as it is.

    Args:
        network: in eval mode.
        example: a batch of images that it takes.
    """
    light = deepcopy(network)
    for convolution, name in _pairs(light, example):
        norm = cast(nn.BatchNorm2d, light.get_submodule(name))
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        light.set_submodule(name, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())
    said = network(example)
    return light if (light(example) - said).abs().max() <= TOLERANCE * said.abs().max() else network


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, str]]:
    """Convolutions, and the names of the batch-norms that take what they give, by a pass of the example."""
    given: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # with the tensors, so that no other takes one's id
    pairs: list[tuple[nn.Conv2d, str]] = []
    hooks: list[RemovableHandle] = []

    def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        given[id(output)] = (module, output)  # type: ignore[assignment]

    def pair(name: str, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in given:
            pairs.append((given[id(inputs[0])][0], name))

    for name, module in network.named_modules():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(remember))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):
            hooks.append(module.register_forward_pre_hook(lambda _, inputs, name=name: pair(name, inputs)))
    network(example)
    for hook in hooks:
        hook.remove()
    return pairs
