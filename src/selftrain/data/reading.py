"""From files to arrays, and what makes a file unreadable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from selftrain.errors import UserError
from selftrain.settings.data import IGNORE, ReadSettings, Size

ORIENTATION = 0x0112
"""The EXIF tag that turns an image on display; labels know nothing of it."""
UNKNOWN = -1


PACKED = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies gray of fewer than 8 bits, as PNG optimizers write it, to fill 0 to 255."""


def read_image(path: Path | str, size: Size | None = None) -> np.ndarray:
    """An 8-bit RGB or gray file as uint8 (H, W, 3), resized to `size` (bilinear with antialiasing) if given."""
    image, stored = _open(path)
    # Pillow opens color of 16 bits as RGB and drops the lower byte without a word.
    if image.mode not in ("RGB", "L") or ";16" in stored:
        raise UserError(f"{path}: image of mode {stored or image.mode}; 8-bit RGB or gray is needed")
    if image.getexif().get(ORIENTATION, 1) != 1:
        raise UserError(f"{path}: turned by its EXIF orientation; save it upright")
    image = image.convert("RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


def image_size(path: Path | str) -> Size:
    """Height and width of an image, from the head of its file."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(path, error) from None


def read_raw_label(path: Path | str, channel: int | None = None) -> np.ndarray:
    """A label file's own ids, integers (H, W): of a palette or gray file; of one with several channels those of one."""
    image, stored = _open(path)
    if channel is not None and stored == "RGB;16B":
        return _channels_of_16_bits(path)[..., channel].astype(np.int64)
    if image.mode == "F":
        raise UserError(f"{path}: label of floating-point numbers; integer class ids are needed")
    if image.mode not in ("L", "P", "1", "I") and not image.mode.startswith("I;16"):
        raise UserError(f"{path}: label of mode {image.mode}; a palette or gray image of class ids is needed")
    ids = np.asarray(image).astype(np.int64 if image.mode.startswith("I") else np.uint8)
    return ids // PACKED.get(stored, 1)


def _channels_of_16_bits(path: Path | str) -> np.ndarray:
    """A PNG of color with 16 bits a channel as uint16 (H, W, channels); Pillow would drop the lower byte."""
    from torchvision.io import ImageReadMode, decode_png, read_file  # seconds to import, and seldom needed

    return decode_png(read_file(str(path)), ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()


def read_label(path: Path | str, settings: ReadSettings, size: Size | None = None) -> np.ndarray:
    """A label file as class indices, uint8 (H, W) with 255 for ignore, resized to `size` (nearest) if given.

    Raises:
        UserError: an id in the file is neither a class nor ignored.
    """
    raw = read_raw_label(path, settings.label_channel)
    check_ids(path, raw, settings)
    label = _id_table(settings)[raw].astype(np.uint8)
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
        f"in 'ids' ({len(settings.ids)} entries)" if settings.ids else f"classes 0 to {len(settings.classes) - 1}"
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


def _open(path: Path | str) -> tuple[Image.Image, str]:
    """A decoded image, and the mode that its pixels are stored in (empty where the format has none)."""
    try:
        with Image.open(path) as image:
            arguments = image.tile[0].args if image.tile else ""
            image.load()
            image.getexif()  # kept by the image; read here, where a broken one is told
    except Exception as error:
        raise _unreadable(path, error) from None
    return image, str(arguments if isinstance(arguments, str) else (*(arguments or ()), "")[0])


def _unreadable(path: Path | str, error: Exception) -> UserError:
    """A broken file makes Pillow's decoders raise nearly anything, from SyntaxError to zlib.error."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: no such file")
    return UserError(f"{path}: not readable as an image ({' '.join(str(error).split())})")
