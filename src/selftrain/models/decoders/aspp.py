"""DeepLabv2's decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftrain.settings.model import AsppSettings


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling as in DeepLabv2: dilated 3×3 convolutions to class logits, summed."""

    def __init__(self, settings: AsppSettings, channels: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels[1], classes, 3, padding=rate, dilation=rate) for rate in settings.rates
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(branch.bias)  # type: ignore[arg-type]

    def hidden(self, fine: Tensor, last: Tensor) -> Tensor:
        """The last map, as it is."""
        return last

    def classify(self, hidden: Tensor) -> Tensor:
        """Logits (B, classes, h, w)."""
        return torch.stack([branch(hidden) for branch in self.branches]).sum(0)
