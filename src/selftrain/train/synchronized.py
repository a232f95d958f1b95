"""Batch-norm over the images of all processes of a training."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from selftrain.train import processes

Network = TypeVar("Network", bound=nn.Module)


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return processes.total(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return processes.total(gradient)


def synchronize(network: Network, device: torch.device) -> Network:
    """The network, each batch-norm in it normalizing by the whole batch; weights and their names stay."""
    if device.type == "cuda":
        return convert_sync_batchnorm(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, OnCpu(module))
    return network


class OnCpu(nn.BatchNorm2d):
    """What torch has for GPUs only."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.act = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
        self.train(norm.training)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalized maps, (B, channels, h, w)."""
        return self.act(self._by_all(maps) if self.training else super().forward(maps))

    def _by_all(self, maps: Tensor) -> Tensor:
        pixels = processes.total(torch.tensor(float(maps.numel() // maps.shape[1]), device=maps.device))
        mean = _Sum.apply(maps.sum((0, 2, 3))) / pixels
        centered = maps - mean[:, None, None]
        variance = _Sum.apply(centered.square().sum((0, 2, 3))) / pixels
        self._run_on(mean.detach(), variance.detach() * pixels / (pixels - 1))
        scaled = centered * (variance + self.eps).rsqrt()[:, None, None]
        return scaled if self.weight is None else scaled * self.weight[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _run_on(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)
