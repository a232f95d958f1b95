"""Encoders are timm's, by name, and those that the registry adds to them."""

from __future__ import annotations

import difflib
import inspect
import logging
import math
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain import registry
from selftrain.errors import UserError
from selftrain.models import packages
from selftrain.models.states import few, read_state
from selftrain.settings.model import ModelSettings

log = logging.getLogger(__name__)
logging.getLogger("timm").setLevel(logging.ERROR)  # a classifier left out of an encoder is no news

FINE_STRIDE = 4
"""Stride of the finer map that a decoder gets beside the last one."""

T = TypeVar("T")


class Maps(NamedTuple, Generic[T]):
    """What decoders and heads look at, or something of each: a fine map (stride 4 where there is one) and the last two.

    Where an encoder has a single map, the three are one.
    """

    fine: T
    second_last: T
    last: T


Features = Maps[Tensor]
"""Each (B, channels, h, w)."""


class Encoder(nn.Module):
    """(B, channels, H, W) to feature maps.

    `channels` and `strides` are of these maps; `strides` are the real ones, whatever was asked for. Below an encoder's
    own stride, timm dilates in place of the last strides: by 2, then by 4. The first convolution of a stage that lost
    its stride keeps the dilation of the stage before it, where the code of DeepLabv2 and PSPNet dilates all of it.
    """

    def __init__(self, settings: ModelSettings, *, load_weights: bool) -> None:
        super().__init__()
        self.body: Any = _create(settings, load_weights=load_weights)
        reductions = self.body.feature_info.reduction()
        last = len(reductions) - 1
        fine = next((i for i, stride in enumerate(reductions) if stride >= FINE_STRIDE), last)
        self.places = Maps(fine, max(0, last - 1), last)
        self.channels = Maps(*(self.body.feature_info.channels()[i] for i in self.places))
        self.strides = Maps(*(reductions[i] for i in self.places))
        self.patch = _patch(reductions)

    def forward(self, images: Tensor) -> Features:
        """The maps of images; where the network works in patches, the image is stretched to whole ones."""
        whole = [math.ceil(length / self.patch) * self.patch for length in images.shape[-2:]]
        if whole != list(images.shape[-2:]):
            images = F.interpolate(images, size=whole, mode="bilinear", align_corners=False)
        features = self.body(images)
        return Maps(*(features[i] for i in self.places))


def _patch(reductions: list[int]) -> int:
    """The size that inputs must be multiples of: a transformer's one stride, else 1."""
    return reductions[0] if len(set(reductions)) == 1 else 1


def problem(name: str) -> str | None:
    """Why there is no encoder of a name, if there is none."""
    if name in registry.ENCODERS or timm.is_model(name):
        return None
    near = difflib.get_close_matches(name, {*timm.list_models(), *registry.ENCODERS}, n=3)
    return f"timm has no '{name}'; near: {', '.join(near) or 'see timm.list_models()'}"


def _create(settings: ModelSettings, *, load_weights: bool) -> Any:
    name = settings.encoder
    if name in registry.ENCODERS:
        registry.load(registry.ENCODERS, name)
    if reason := problem(name):
        raise UserError(f"model.encoder: {reason}")
    options: dict[str, Any] = {"features_only": True}
    if len(settings.mean) != 3:
        options["in_chans"] = len(settings.mean)
    if _is_told_to_take_any_size(name):
        options["dynamic_img_size"] = True
    if not load_weights or settings.weights is None:
        return _of_stride(name, settings.output_stride, options)
    if settings.weights == "hub":
        return _from_hub(settings, options | {"pretrained": True})
    if settings.weights_package is not None:
        return _from_package(settings, settings.weights_package, options)
    return _from_file(settings, options | {"pretrained": True})


def _from_hub(settings: ModelSettings, options: dict[str, Any]) -> Any:
    try:
        return _of_stride(settings.encoder, settings.output_stride, options)
    except (RuntimeError, OSError) as error:
        raise UserError(f"model.weights: timm's hub gives no weights for '{settings.encoder}': {error}") from None


def _from_package(settings: ModelSettings, package: str, options: dict[str, Any]) -> Any:
    """Strictly: every weight of the encoder is the package's, and every one of the package's is used."""
    if reason := packages.problem(package, settings.encoder):
        raise UserError(f"model.weights: {reason}")
    state = packages.renamed(package, read_state(packages.file_of(package)))
    body = _of_stride(settings.encoder, settings.output_stride, options)
    try:
        body.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"model.weights: the package '{package}' does not fit '{settings.encoder}': {error}") from None
    return body


def _from_file(settings: ModelSettings, options: dict[str, Any]) -> Any:
    file = Path(str(settings.weights))
    state = read_state(file)
    try:
        # timm brings weights of its own earlier names and sizes into shape.
        overlay = {"state_dict": dict(state)}
        body = _of_stride(settings.encoder, settings.output_stride, options | {"pretrained_cfg_overlay": overlay})
    except (RuntimeError, KeyError) as error:
        raise UserError(f"model.weights: {file} does not fit '{settings.encoder}': {error}") from None
    _tell_missing(body, state, file, settings.encoder)
    return body


def _tell_missing(body: nn.Module, state: dict[str, Tensor], file: Path, encoder: str) -> None:
    """Say which weights are not those of the file, since timm skips other names without a word."""
    own = {name: weight for name, weight in body.named_parameters() if weight.ndim > 1}
    missing = [name for name, weight in own.items() if not any(_same(weight, theirs) for theirs in state.values())]
    adapted = [name for name in missing if any(_is_adapted(own[name], theirs) for theirs in state.values())]
    if adapted:
        log.info("%s: adapted from 3 channels to %d: %s", file, own[adapted[0]].shape[1], few(adapted))
    missing = [name for name in missing if name not in adapted]
    if len(missing) == len(own):
        raise UserError(f"model.weights: {file}: no weight in it fits '{encoder}'; it has {few(state)}")
    if missing:
        log.warning("%s: new values for %s", file, few(missing))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.dtype))


def _is_adapted(weight: Tensor, rgb: Tensor) -> bool:
    """Whether a convolution is what timm makes of one for red, green and blue, for other channels."""
    if weight.ndim != 4 or rgb.ndim != 4 or rgb.shape[1] != 3 or weight.shape[1] == 3:
        return False
    return _same(weight, adapt_input_conv(weight.shape[1], rgb))


def _of_stride(name: str, stride: int, options: dict[str, Any]) -> Any:
    """The network at the asked stride, or at its own where it has no choice."""
    try:
        return timm.create_model(name, output_stride=stride, **options)
    except (TypeError, NotImplementedError, AssertionError):
        return timm.create_model(name, **options)


def _is_told_to_take_any_size(name: str) -> bool:
    """Whether a network has timm's `dynamic_img_size`, which entry points pass on without naming it."""
    source = inspect.getsource(inspect.getmodule(timm.model_entrypoint(name)))  # type: ignore[arg-type]
    return "dynamic_img_size" in source


def describe(encoder: Encoder) -> dict[str, object]:
    """What a manifest says of an encoder."""
    of = {"channels": encoder.channels, "strides": encoder.strides}
    return {name: [maps.fine, maps.last] for name, maps in of.items()}
