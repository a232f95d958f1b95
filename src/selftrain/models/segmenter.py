"""The network that everything trains and predicts with."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selftrain import registry
from selftrain.errors import UserError
from selftrain.models.encoders import Encoder, Features, Maps, describe
from selftrain.settings.model import ModelSettings

AUXILIARY = "auxiliary"
"""The head that learns the same labels as the branches, in every training."""


class Outputs(NamedTuple):
    """What a network says of a batch, taken apart for training."""

    branches: tuple[Tensor, ...]
    """Logits of each branch, float32 (B, classes, h, w) at the decoder's size."""
    heads: dict[str, Tensor]
    """By name."""
    auxiliary_weight: float = 0.0
    """Of the loss of the head `auxiliary`, where there is one."""

    @property
    def logits(self) -> Tensor:
        """Of the network: the mean of its branches' logits."""
        return averaged(self.branches)

    @property
    def classified(self) -> list[tuple[float, Tensor]]:
        """All logits that learn the labels of pixels, each with the weight of its loss."""
        of_branches = [(1.0, logits) for logits in self.branches]
        return of_branches + [(self.auxiliary_weight, said) for name, said in self.heads.items() if name == AUXILIARY]

    def split(self, sizes: Sequence[int]) -> list[Outputs]:
        """Those of parts of the batch."""
        branches = zip(*(one.split(list(sizes)) for one in self.branches), strict=True)
        heads = {name: said.split(list(sizes)) for name, said in self.heads.items()}
        return [
            self._replace(branches=of, heads={name: heads[name][at] for name in heads})
            for at, of in enumerate(branches)
        ]


def averaged(branches: Sequence[Tensor]) -> Tensor:
    """What branches say together: the mean of their logits, before any softmax (strategic curriculum, section 3.2)."""
    total = branches[0]
    for logits in branches[1:]:
        total = total + logits
    return total if len(branches) == 1 else total / len(branches)


class Segmenter(nn.Module):
    """Images to class logits: normalization, encoder, and a decoder or several side by side, the branches.

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
            self.register_buffer(name, torch.tensor(getattr(settings, name)).view(-1, 1, 1), persistent=False)
        self.encoder: nn.Module
        self.decoder: Any
        self.encoder, self.decoder = _build(settings, classes, load_weights)
        self.heads = nn.ModuleDict()
        self.auxiliary_weight = 0.0 if settings.auxiliary is None else settings.auxiliary.weight

    @property
    def branches(self) -> list[Any]:
        """The decoders, one or several; of a user's own network, those it names."""
        if isinstance(self.encoder, _Own):
            return list(self.encoder.branches)
        return list(self.decoder) if isinstance(self.decoder, nn.ModuleList) else [self.decoder]

    @property
    def feature_channels(self) -> Maps[int]:
        """Channels of the encoder's maps, which heads start from."""
        if not isinstance(self.encoder, Encoder):
            raise UserError("model.module: a network of your own has no encoder that a head could be put on")
        return self.encoder.channels

    def forward(self, images: Tensor, *, apart: bool = False) -> Tensor | Outputs:
        """Logits, float32 (B, classes, h, w) at the decoder's size; taken apart, those of each branch and head.

        Args:
            images: (B, channels, H, W), uint8, or float from 0 to 1.
            apart: return `Outputs`; runs the heads too, which an algorithm has put into `self.heads` for training.
        """
        if images.dtype == torch.uint8:
            images = images.float() / 255
        features = self.encoder((images - self.mean) / self.std)
        branches = self._decoded(features)
        if not apart:
            return averaged(branches)
        heads = {name: head(features) for name, head in self.heads.items()}
        return Outputs(branches, heads, self.auxiliary_weight)

    def _decoded(self, features: Features | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not isinstance(features, Maps):
            return tuple(logits.float() for logits in features)
        hidden = [decoder.hidden(features.fine, features.last) for decoder in self.branches]
        with torch.autocast(features.last.device.type, enabled=False):
            return tuple(decoder.classify(one.float()) for decoder, one in zip(self.branches, hidden, strict=True))

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part, for learning rates of their own; heads belong to the decoder."""
        # By identity: branches may share a layer, and a user's own network holds its branches within the encoder.
        decoder = {id(p): p for module in (*self.branches, self.heads) for p in module.parameters()}
        encoder = {id(p): p for p in self.encoder.parameters() if id(p) not in decoder}
        parts = {"encoder": encoder, "decoder": decoder}
        return {name: [p for p in of_part.values() if p.requires_grad] for name, of_part in parts.items()}

    def describe(self) -> dict[str, object]:
        """What a manifest says of the network."""
        of_heads = sum(p.numel() for p in self.heads.parameters())
        facts: dict[str, object] = {"parameters": sum(p.numel() for p in self.parameters()) - of_heads}
        facts |= {"head_parameters": of_heads} if self.heads else {}
        facts |= {"branches": len(self.branches)} if len(self.branches) > 1 else {}
        return facts | (describe(self.encoder) if isinstance(self.encoder, Encoder) else {})


def _build(settings: ModelSettings, classes: int, load_weights: bool) -> tuple[nn.Module, nn.Module]:
    if settings.module is not None:
        return _Own(settings, classes), nn.Module()
    encoder = Encoder(settings, load_weights=load_weights)
    build = registry.load(registry.DECODERS, settings.decoder.name)
    channels = (encoder.channels.fine, encoder.channels.last)
    decoders = [build(settings.decoder, channels, classes) for _ in range(settings.branches)]
    return encoder, decoders[0] if len(decoders) == 1 else nn.ModuleList(decoders)


class _Own(nn.Module):
    """A user's own network in the encoder's place; its outputs are the logits of its branches."""

    def __init__(self, settings: ModelSettings, classes: int) -> None:
        super().__init__()
        self.classes = classes
        build = registry.load_object(str(settings.module))
        try:
            inspect.signature(build).bind(classes=classes, **settings.arguments)
        except TypeError as error:
            raise UserError(f"model.arguments: '{settings.module}' does not take them ({error})") from None
        self.network = build(classes=classes, **settings.arguments)
        if not isinstance(self.network, nn.Module):
            raise UserError(f"model.module: '{settings.module}' returned no torch.nn.Module but {type(self.network)}")

    @property
    def branches(self) -> list[nn.Module]:
        """The decoders that the network names, or nothing in place of the one that it has somewhere."""
        own = getattr(self.network, "branches", None)
        return list(own) if isinstance(own, nn.ModuleList) and len(own) > 1 else [nn.Module()]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        said = self.network(images.contiguous())  # which it may count on
        branches = tuple(said) if isinstance(said, tuple | list) else (said,)
        wanted = f"logits (B, {self.classes}, h, w)" + (" of each branch" if len(branches) > 1 else "")
        for logits in branches:
            if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[1] != self.classes:
                shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise UserError(f"model.module: its output is {shape}; {wanted} are needed")
        sizes = {tuple(logits.shape) for logits in branches}
        if len(sizes) > 1:
            raise UserError(
                f"model.module: its branches' logits have the shapes {sorted(sizes)}; let them be of one size"
            )
        if len(branches) != len(self.branches):
            raise UserError(
                f"model.module: it returns logits of {len(branches)} branch(es) and has {len(self.branches)} by its "
                "attribute 'branches'; let that be a torch.nn.ModuleList of its decoders, or rename what is none"
            )
        return branches
