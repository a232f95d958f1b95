"""A decoder that trains on two CPU cores."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain.settings.model import LightSettings


def _convolution(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Light(nn.Module):
    """The last map, gated by its global mean (as LR-ASPP does), joined with a thin finer one and mixed there."""

    def __init__(self, settings: LightSettings, channels: tuple[int, int], classes: int) -> None:
        super().__init__()
        width, thin = settings.channels, max(8, settings.channels // 3)
        self.last = _convolution(channels[1], width, 1)
        self.gate = nn.Conv2d(channels[1], width, 1)
        self.fine = _convolution(channels[0], thin, 1)
        self.mix = nn.Sequential(
            _convolution(width + thin, width + thin, 3, groups=width + thin),
            _convolution(width + thin, width, 1),
        )
        self.classifier = nn.Conv2d(width, classes, 1)

    def hidden(self, fine: Tensor, last: Tensor) -> Tensor:
        """(B, c, h, w) at the finer map's size."""
        gated = self.last(last) * torch.sigmoid(self.gate(last.mean((2, 3), keepdim=True)))
        up = F.interpolate(gated, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.mix(torch.cat([up, self.fine(fine)], 1))

    def classify(self, hidden: Tensor) -> Tensor:
        """Logits (B, classes, h, w)."""
        return self.classifier(hidden)
