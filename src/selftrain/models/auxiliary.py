"""A second classifier of pixels, earlier in the encoder, which helps it learn; predicting has none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftrain.models.encoders import Features
from selftrain.models.segmenter import AUXILIARY, Segmenter
from selftrain.settings.model import AuxiliarySettings, ModelSettings


class Auxiliary(nn.Module):
    """Classes of pixels from the encoder's second-last features, by two convolutions (PSPNet section 4).

    Args:
        settings: width and dropout.
        inputs: channels of these features.
        classes: how many.
    """

    def __init__(self, settings: AuxiliarySettings, inputs: int, classes: int) -> None:
        super().__init__()
        width = settings.channels
        self.hidden = nn.Sequential(
            nn.Conv2d(inputs, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(settings.dropout),
        )
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Features) -> Tensor:
        """Logits, float32 (B, classes, h, w) at the size of these features."""
        hidden = self.hidden(features.second_last)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.classifier(hidden.float())


def auxiliary(network: Segmenter, settings: ModelSettings, classes: int) -> dict[str, nn.Module]:
    """The head that the settings of the model ask for, by name, if any."""
    if settings.auxiliary is None:
        return {}
    return {AUXILIARY: Auxiliary(settings.auxiliary, network.feature_channels.second_last, classes)}
