"""Using a model: masks for a folder of images, with nothing but the model file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from selftrain import artifacts, memory
from selftrain.confidence import probability_of
from selftrain.data.augmentation import to_tensor
from selftrain.data.palette import palette
from selftrain.data.reading import as_photo, read_image
from selftrain.devices import leased_device
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.predict.forward import load_predictor
from selftrain.progress import followed
from selftrain.settings.data import Size
from selftrain.settings.prediction import InferenceSettings

log = logging.getLogger(__name__)

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
ARRAYS = (".npy",)
"""Images too, for a model of others than 8-bit RGB."""


@memory.telling(memory.IN_PREDICTION)
def predict_folder(
    model: Path,
    images: Path,
    output: Path,
    settings: InferenceSettings,
    *,
    size: Size | None = None,
    confidence: bool = False,
    agreement: bool = False,
    overlay: bool = False,
    own_code: str | bool = True,
    limit: int | None = None,
) -> None:
    """Write a palette PNG of class indices for each image, at the image's own size.

    Args:
        model: a model file.
        images: an image, or a folder of them, searched with its subfolders, which the output repeats.
        output: the folder of masks; made if it is not there.
        settings: one pass or the average of several.
        size: working height and width; none: each image's own.
        confidence: also write NAME.confidence.png, gray, 255 times the probability of the predicted class.
        agreement: of a network with branches, also write NAME.agreement.png, gray, 255 where all name the same class,
            else 255 times the share of them that names the most frequent one.
        overlay: also write NAME.overlay.png, the image with the classes' colors over it.
        own_code: see `files.load`.
        limit: million pixels that an image may have; none: as the model was trained.

    Raises:
        UserError: a file that is no model or no image, or agreement asked of a model with one branch.
    """
    asked = {"confidence": confidence, "agreement": agreement, "overlay": overlay}
    maps = [name for name, wanted in asked.items() if wanted]
    about = files.read_about(model)
    pixels = files.pixels_of(about)
    pixels = pixels if limit is None else pixels.model_copy(update={"limit": limit})
    found = _images(images, maps, ENDINGS if pixels.plain else ENDINGS + ARRAYS)
    folder, source = output.resolve(), images.resolve()
    if folder.is_relative_to(source) if images.is_dir() else folder == source.parent:
        raise UserError(
            f"{output}: the masks would take the place of images, or be taken for some; name another folder"
        )
    with leased_device() as device:
        predictor = load_predictor(model, settings, device, count_agreement=agreement, own_code=own_code)
        if agreement and predictor.branches == 1:
            raise UserError(f"{model}: has one branch, which agrees with itself; leave out --agreement")
        colors = palette(predictor.classes, about["colors"])
        for relative, file in followed(found.items(), "predict", len(found)):
            own = read_image(file, pixels=pixels)
            seen = own if size is None else read_image(file, size, pixels)
            batch = to_tensor(seen)[None].to(device)
            planes = predictor(batch, [str(relative)], own.shape[:2]).on_host([str(relative)])
            _save(output / relative.with_suffix(".png"), planes.classes[0], colors)
            if overlay:
                _save(output / relative.with_suffix(".overlay.png"), _over(own, planes.classes[0], colors))
            shares = {"confidence": probability_of(planes.bins[0])} if confidence else {}
            if planes.agreement is not None:
                shares["agreement"] = planes.agreement[0] / predictor.branches
            for name, share in shares.items():
                _save(output / relative.with_suffix(f".{name}.png"), np.rint(255 * share).astype(np.uint8))
    log.info("%d masks in %s", len(found), output)


def _images(images: Path, maps: Sequence[str], endings: tuple[str, ...]) -> dict[Path, Path]:
    """Image files by their path below the folder, without two that would give one mask, or a mask and a map."""
    if images.is_file():
        return {Path(images.name): images}
    if not images.is_dir():
        raise UserError(f"{images}: no such image or folder")
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in endings)
    if not files:
        raise UserError(f"{images}: no images ({', '.join(endings)}) in this folder")
    found: dict[Path, Path] = {}
    for file in files:
        relative = file.relative_to(images).with_suffix("")
        if relative in found:
            raise UserError(f"{file}: its mask would have the name of that of {found[relative]}; rename one")
        found[relative] = file
    for relative, name in product(found, maps):
        if (other := relative.with_name(f"{relative.name}.{name}")) in found:
            raise UserError(
                f"{found[other]}: its mask would have the name of the {name} of {found[relative]}; rename one"
            )
    return {Path(f"{relative}.png"): file for relative, file in found.items()}


def _over(image: np.ndarray, classes: np.ndarray, colors: list[int]) -> np.ndarray:
    """An image (H, W, channels) with half of its light from the classes' colors, uint8 (H, W, 3)."""
    painted = np.array(colors, np.uint8).reshape(-1, 3)[classes]
    return ((as_photo(image).astype(np.uint16) + painted) // 2).astype(np.uint8)


def _save(path: Path, pixels: np.ndarray, colors: list[int] | None = None) -> None:
    picture = Image.fromarray(pixels)
    if colors is not None:
        picture.putpalette(colors)
    with artifacts.writing(path) as temporary:
        picture.save(temporary)
