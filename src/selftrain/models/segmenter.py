"""The network that everything trains and predicts with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selftrain import registry
from selftrain.errors import UserError
from selftrain.models.encoders import Encoder, describe
from selftrain.settings.model import ModelSettings


class Segmenter(nn.Module):
    """Images to class logits: normalization, encoder, decoder.

    Args:
        settings: what the network is.
        classes: how many classes it tells apart.
        load_weights: read the encoder's weights where the settings name some; off when a model file follows.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ModelSettings, classes: int, *, load_weights: bool = True) -> None:
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(settings, name)).view(3, 1, 1), persistent=False)
        self.encoder: nn.Module
        self.decoder: Any
        self.encoder, self.decoder = _build(settings, classes, load_weights)
        self.heads = nn.ModuleDict()

    @property
    def feature_channels(self) -> int:
        """Channels of the encoder's last features, which heads start from."""
        if not isinstance(self.encoder, Encoder):
            raise UserError("model.module: a network of your own has no encoder that a head could be put on")
        return self.encoder.channels[-1]

    def forward(self, images: Tensor, *, heads: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits, float32 (B, classes, h, w) at the decoder's size; with `heads`, also what each head says by name.

        Args:
            images: (B, 3, H, W), uint8, or float from 0 to 1.
            heads: run the heads, which an algorithm has put into `self.heads` for training.
        """
        if images.dtype == torch.uint8:
            images = images.float() / 255
        features = self.encoder((images - self.mean) / self.std)
        hidden = self.decoder.hidden(*features)
        with torch.autocast(images.device.type, enabled=False):
            logits = self.decoder.classify(hidden.float())
        return (logits, {name: head(features[-1]) for name, head in self.heads.items()}) if heads else logits

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part, for learning rates of their own; heads belong to the decoder."""
        parts = {"encoder": [self.encoder], "decoder": [self.decoder, self.heads]}
        return {
            name: [p for module in modules for p in module.parameters() if p.requires_grad]
            for name, modules in parts.items()
        }

    def describe(self) -> dict[str, object]:
        """What a manifest says of the network."""
        of_heads = sum(p.numel() for p in self.heads.parameters())
        facts: dict[str, object] = {"parameters": sum(p.numel() for p in self.parameters()) - of_heads}
        facts |= {"head_parameters": of_heads} if self.heads else {}
        return facts | (describe(self.encoder) if isinstance(self.encoder, Encoder) else {})


def _build(settings: ModelSettings, classes: int, load_weights: bool) -> tuple[nn.Module, nn.Module]:
    if settings.module is not None:
        return _Own(settings, classes), _Nothing()
    encoder = Encoder(settings, load_weights=load_weights)
    decoder = registry.load(registry.DECODERS, settings.decoder.name)(settings.decoder, encoder.channels, classes)
    return encoder, decoder


class _Own(nn.Module):
    """A user's own network in the encoder's place; its output is the logits."""

    def __init__(self, settings: ModelSettings, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.network = registry.load_object(str(settings.module))(classes=classes, **settings.arguments)
        if not isinstance(self.network, nn.Module):
            raise UserError(f"model.module: '{settings.module}' returned no torch.nn.Module but {type(self.network)}")

    def forward(self, images: Tensor) -> tuple[Tensor]:
        logits = self.network(images)
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[1] != self.classes:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"model.module: its output is {shape}; logits (B, {self.classes}, h, w) are needed")
        return (logits,)


class _Nothing(nn.Module):
    """The decoder of a network that brings its own."""

    def hidden(self, logits: Tensor) -> Tensor:
        return logits

    def classify(self, hidden: Tensor) -> Tensor:
        return hidden
