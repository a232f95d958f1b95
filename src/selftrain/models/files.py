"""Model files: safetensors with all that predicting needs, and starting from somebody else's weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from selftrain import artifacts
from selftrain.errors import UserError
from selftrain.models.segmenter import Segmenter
from selftrain.models.states import few, not_finite, read_state
from selftrain.settings.base import Settings
from selftrain.settings.data import Color, PixelSettings
from selftrain.settings.model import ModelSettings

log = logging.getLogger(__name__)

FORMAT = "selftrain-model"
VERSION = 1

PLACES = ("", "encoder.network.", "encoder.body.")
"""Where a segmenter keeps the weights of a file: as they are named, in a user's own network, in a timm encoder."""
HEADS = "heads."
"""What the names of weights begin with that only a next training has a use for."""


class _About(Settings):
    """The metadata of a model file."""

    format: Literal["selftrain-model"]
    version: int
    model: ModelSettings
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=255)]
    colors: tuple[Color, ...] | None = None
    pixels: PixelSettings = PixelSettings()
    step: int


def save(
    path: Path,
    model: Segmenter,
    settings: ModelSettings,
    classes: tuple[str, ...],
    step: int,
    colors: Sequence[Color] | None = None,
    pixels: PixelSettings = PixelSettings(),  # noqa: B008 (frozen)
) -> None:
    """Write weights and the metadata to use them: architecture, classes, normalization, kind of images, step."""
    about = {
        "format": FORMAT,
        "version": VERSION,
        "model": settings.model_dump(mode="json"),
        "classes": classes,
        "colors": colors,
        "pixels": pixels.model_dump(mode="json"),
        "step": step,
    }
    # Copies, because safetensors refuses weights that two layers of a user's network share.
    layout = torch.contiguous_format
    tensors = {name: tensor.detach().cpu().clone(memory_format=layout) for name, tensor in model.state_dict().items()}
    with artifacts.writing(path) as temporary:
        save_file(tensors, temporary, metadata={"selftrain": json.dumps(about, sort_keys=True)})


def read_about(path: Path) -> dict[str, Any]:
    """The metadata of a model file that `save` wrote."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a readable model file ({error})") from None
    if "selftrain" not in metadata:
        raise UserError(f"{path}: safetensors without selftrain's metadata; name it under 'start:' to train from it")
    try:
        about = json.loads(metadata["selftrain"])
        if about["version"] != VERSION:
            raise UserError(f"{path}: model file of version {about['version']}; this selftrain reads version {VERSION}")
        return _About.model_validate(about).model_dump(mode="json")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        told = "; ".join(str(error).splitlines()[:3])
        raise UserError(f"{path}: its metadata are not those of a model ({told}); train it again") from None


def pixels_of(about: dict[str, Any]) -> PixelSettings:
    """The kind of images that a model was trained on, by the metadata of its file; old files do not say it."""
    return PixelSettings(**about.get("pixels", {}))


def load(path: Path, *, own_code: str | bool = True) -> tuple[Segmenter, dict[str, Any]]:
    """The network in a model file, ready to predict, without heads; and the file's metadata.

    Args:
        path: a model file.
        own_code: whether the network may be one of a user's own, whose module is imported and so runs; of a file that
            may come from a stranger, the import path that is allowed, or False.

    Raises:
        UserError: the file is missing, broken, or of a network that may not be imported.
    """
    about = read_about(path)
    module = about["model"].get("module")
    if module is not None and own_code not in (True, module):
        told = f"say --own-code {module} if it is your own, or you trust who made the file"
        raise UserError(f"{path}: its network is '{module}', which would be imported and run; {told}")
    model = Segmenter(ModelSettings(**about["model"]), len(about["classes"]), load_weights=False)
    with safetensors.safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys() if not name.startswith(HEADS)}  # noqa: SIM118
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: weights do not fit the architecture it names: {error}") from None
    if broken := not_finite(model):
        raise UserError(f"{path}: NaN or infinite weights in {broken}; train it again")
    return model.eval(), about


def start_from(model: Segmenter, path: Path) -> None:
    """Copy all weights of a file that fit; what does not (a head of other classes) keeps its new values, and is told.

    Args:
        model: changed in place.
        path: a model file, any safetensors, or a state dict saved by torch (read with weights_only); of a whole
            segmenter, of a user's own network, or of a timm encoder.
    """
    ours, state = model.state_dict(), read_state(path)
    places = [{place + name: tensor for name, tensor in state.items()} for place in PLACES]
    theirs = max(places, key=lambda placed: len(_fitting(placed, ours)))
    fitting = _fitting(theirs, ours)
    if not fitting:
        raise UserError(f"{path}: no weight fits the model; it has {few(state)}, the model has {few(ours)}")
    model.load_state_dict(fitting, strict=False)
    for verb, weights in (("new values for", ours), ("not used:", theirs)):
        left = weights.keys() - fitting.keys()
        heads = {name for name in left if name.startswith(HEADS)}
        if left - heads:
            log.warning("%s: %s %s", path, verb, few(left - heads))
        if heads:  # come and go with the algorithm of a round
            log.info("%s: %s %s", path, verb, few(heads))


def _fitting(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in theirs.items() if name in ours and ours[name].shape == tensor.shape}
