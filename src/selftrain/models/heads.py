"""Heads that a network has only while it trains: predicting neither builds nor runs them."""

from __future__ import annotations

from torch import Tensor, nn

from selftrain.models.encoders import Features


class ImageClassifier(nn.Module):
    """Which classes an image shows, from the encoder's last features (MLSL section 4.1.2).

    Args:
        inputs: channels of these features.
        channels: of the 1x1 and the 3x3 convolution; the paper's depth is 2048.
        hidden: width of the first of two fully connected layers; the paper's is 512.
        classes: how many.
    """

    def __init__(self, inputs: int, channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(inputs, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()
        )
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, features: Features) -> Tensor:
        """(B, classes), before the sigmoid, of the last features (B, inputs, h, w)."""
        return self.layers(self.convolutions(features.last).mean((2, 3)))
