"""From files to arrays, and what makes a file unreadable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from selftrain.data.decoding import (
    DEFAULT,
    bits_of,
    counted,
    decode,
    deep_png,
    fits,
    open_picture,
    refuse_large,
    stored_mode,
    telling,
)
from selftrain.errors import UserError
from selftrain.settings.data import IGNORE, PixelSettings, ReadSettings, Size

UNKNOWN = -1


PACKED = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies gray of fewer than 8 bits, as PNG optimizers write it, to fill 0 to 255."""


def read_image(path: Path | str, size: Size | None = None, pixels: PixelSettings = DEFAULT) -> np.ndarray:
    """An image file as (H, W, channels), resized to `size` (bilinear with antialiasing) if given.

    Returns:
        uint8 where `pixels` has 8 bits, float32 from 0 to 1 where it has 16. Gray fills three channels.

    Raises:
        UserError: no file, a broken one, or one of other channels or bits than `pixels`.
    """
    image, kind = decode(path, pixels)
    if image is None or not fits(image, pixels):
        has = kind if image is None or pixels.plain else counted(image.shape[2], bits_of(image))
        said = f"'pixels' say {counted(pixels.channels, pixels.bits)}"
        raise UserError(f"{path}: image of {has}; {'8-bit RGB or gray is needed' if pixels.plain else said}")
    if image.shape[2] != pixels.channels:
        image = np.repeat(image, pixels.channels, 2)
    return _resized(_scaled(image), size)


def read_photo(path: Path | str, size: Size | None = None) -> np.ndarray:
    """An image file of any kind for the eye, uint8 (H, W, 3)."""
    image, kind = decode(path)
    if image is None:
        raise UserError(f"{path}: image of {kind}; 8 or 16 bits are needed, gray or in channels")
    return _resized(as_photo(_scaled(image)), size)


def as_photo(images: np.ndarray) -> np.ndarray:
    """Images (..., channels) for the eye, uint8 (..., 3): the first three channels, or of fewer the first as gray."""
    images = images[..., :3] if images.shape[-1] >= 3 else images[..., :1].repeat(3, -1)
    return images if images.dtype == np.uint8 else np.rint(255 * images).astype(np.uint8)


def _scaled(image: np.ndarray) -> np.ndarray:
    """Bytes as they are, 16 bits as float32 from 0 to 1."""
    return image if image.dtype == np.uint8 else image.astype(np.float32) / np.float32(65535)


def _resized(image: np.ndarray, size: Size | None) -> np.ndarray:
    """(H, W, channels) at another size; Pillow has no mode for most numbers of channels, so each goes alone."""
    if size is None or image.shape[:2] == size:
        return image
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    channels = [Image.fromarray(channel) for channel in np.moveaxis(image, 2, 0)]
    resized = np.stack([np.asarray(one.resize(size[::-1], Image.Resampling.BILINEAR)) for one in channels], 2)
    return resized if resized.dtype == np.uint8 else resized.clip(0, 1)


def read_raw_label(path: Path | str, channel: int | None = None, pixels: PixelSettings = DEFAULT) -> np.ndarray:
    """A label file's own ids, integers (H, W): of a palette or gray file; of one with several channels those of one."""
    image, stored = _open(path, pixels)
    if channel is not None and stored == "RGB;16B":
        return deep_png(path)[..., channel].astype(np.int64)
    if image.mode == "F":
        raise UserError(f"{path}: label of floating-point numbers; integer class ids are needed")
    if image.mode not in ("L", "P", "1", "I") and not image.mode.startswith("I;16"):
        raise UserError(f"{path}: label of mode {image.mode}; a palette or gray image of class ids is needed")
    ids = np.asarray(image).astype(np.int64 if image.mode.startswith("I") else np.uint8)
    return ids // PACKED[stored] if stored in PACKED else ids


def read_label(path: Path | str, settings: ReadSettings, size: Size | None = None) -> np.ndarray:
    """A label file as class indices, uint8 (H, W) with 255 for ignore, resized to `size` (nearest) if given.

    Raises:
        UserError: an id in the file is neither a class nor ignored.
    """
    raw = read_raw_label(path, settings.label_channel, settings.pixels)
    if raw.dtype != np.uint8:  # may be beyond the table
        check_ids(path, raw, settings)
    indices = _id_table(settings).take(raw)
    if indices.min() == UNKNOWN:
        check_ids(path, raw, settings)
    label = indices.astype(np.uint8)
    if size is not None and label.shape != size:
        label = np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))
    return label


def check_ids(path: Path | str, raw: np.ndarray, settings: ReadSettings) -> None:
    """Raise a UserError that names the ids of a label file that are neither classes nor ignored, if there are any."""
    table = _id_table(settings)
    values = np.flatnonzero(np.bincount(raw.ravel())) if raw.dtype == np.uint8 else np.unique(raw)
    unknown = [int(value) for value in values if not 0 <= value < len(table) or table[value] == UNKNOWN]
    if not unknown:
        return
    expected = (
        f"in 'ids' ({len(settings.ids)} entries)"
        if settings.ids is not None
        else f"classes 0 to {len(settings.classes) - 1}"
    )
    # A label of another kind altogether has hundreds.
    shown = ", ".join(map(str, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
    raise UserError(f"{path}: label ids {shown} are neither {expected} nor the ignore index {settings.ignore_index}")


def _id_table(settings: ReadSettings) -> np.ndarray:
    """Class index per id in the files, int16; 255 is ignore, −1 an unknown id."""
    known = settings.ids if settings.ids is not None else {index: index for index in range(len(settings.classes))}
    table = np.full(max([*known, settings.ignore_index, 255]) + 1, UNKNOWN, np.int16)
    table[settings.ignore_index] = IGNORE
    for raw, index in known.items():
        table[raw] = IGNORE if index == settings.ignore_index else index
    return table


def _open(path: Path | str, pixels: PixelSettings) -> tuple[Image.Image, str]:
    """A decoded image, and the mode that its pixels are stored in (empty where the format has none)."""
    with telling(path), open_picture(path) as image:
        refuse_large(path, (image.height, image.width), pixels)
        stored = stored_mode(image)
        image.load()
        image.getexif()  # kept by the image; read here, where a broken one is told
    return image, stored
