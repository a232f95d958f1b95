"""MLSL's decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftrain.settings.model import ConvolutionsSettings


class Convolutions(nn.Module):
    """Two 3×3 convolutions of the last map, to a depth and to class logits (MLSL section 4.1.2), ReLU between them."""

    def __init__(self, settings: ConvolutionsSettings, channels: tuple[int, int], classes: int) -> None:
        super().__init__()
        rate = settings.dilation
        self.first = nn.Conv2d(channels[1], settings.channels, 3, padding=rate, dilation=rate)
        self.classifier = nn.Conv2d(settings.channels, classes, 3, padding=rate, dilation=rate)

    def hidden(self, fine: Tensor, last: Tensor) -> Tensor:
        """(B, c, h, w) at the last map's size."""
        return torch.relu(self.first(last))

    def classify(self, hidden: Tensor) -> Tensor:
        """Logits (B, classes, h, w)."""
        return self.classifier(hidden)
