"""The values that an image file stores, exactly, whatever its format, channels and bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from selftrain.errors import UserError
from selftrain.settings.data import PixelSettings, Size

ARRAY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How the files begin; what is not one of these is left to Pillow."""
ORIENTATION = 0x0112
"""The EXIF tag that turns an image on display; labels know nothing of it."""
PHOTOMETRIC, SAMPLES = 0x0106, 0x0115
"""TIFF's tags of what a value means, and of values per pixel."""
DEFAULT = PixelSettings()
FORMATS = ("PNG", "JPEG", "TIFF", "PPM", "BMP", "GIF", "WEBP", "JPEG2000", "TGA", "SGI", "PCX")
"""Of Pillow's formats, those of images. For EPS it would start Ghostscript, whatever the file's name ends in."""
Image.MAX_IMAGE_PIXELS = None  # each file is measured by the limit of its task instead


def decode(path: Path | str, pixels: PixelSettings | None = None) -> tuple[np.ndarray | None, str]:
    """What a file holds: uint8 or uint16 (H, W, C), and what its kind is called.

    Args:
        path: of one of `FORMATS`, TIFF of any number of channels, or .npy.
        pixels: what is asked for; of another kind of file, the array may be missing. None: whatever there is.

    Raises:
        UserError: no file, a broken one, one that EXIF turns, or one with more pixels than may be.
    """
    with telling(path):
        head = _head(path)
        if head == ARRAY:
            array = _mapped(path)
            refuse_large(path, array.shape, pixels)
            return _usable(array)
        try:
            image = open_picture(path)
        except UnidentifiedImageError:
            if not head.startswith(TIFF):
                raise
            return _from_tiff(path, pixels)
        with image:
            refuse_large(path, (image.height, image.width), pixels)
            stored = stored_mode(image)  # before EXIF is looked for, which may be behind the pixels of a PNG
            _refuse_turned(path, image.getexif().get(ORIENTATION, 1))
            return _from_picture(path, image, stored, pixels)


def image_size(path: Path | str) -> Size:
    """Height and width of an image, from the head of its file."""
    with telling(path):
        head = _head(path)
        if head == ARRAY:
            return _height_and_width(_mapped(path))
        try:
            with open_picture(path) as image:
                return image.height, image.width
        except UnidentifiedImageError:
            if not head.startswith(TIFF):
                raise
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return int(page.imagelength), int(page.imagewidth)


def open_picture(path: Path | str) -> ImageFile.ImageFile:
    """A file as Pillow's image, not yet loaded."""
    return Image.open(path, formats=FORMATS)


def stored_mode(image: ImageFile.ImageFile) -> str:
    """The mode that the pixels of an image, opened and not yet loaded, are stored in; empty where there is none."""
    arguments = image.tile[0].args if image.tile else ""
    first = arguments if isinstance(arguments, str) else (*(arguments or ()), "")[0]
    return first if isinstance(first, str) else ""


@contextmanager
def telling(path: Path | str) -> Iterator[None]:
    """A broken file makes decoders raise nearly anything, from SyntaxError to zlib.error; told as one UserError."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:
        raise UserError(f"{path}: not readable as an image ({' '.join(str(error).split())})") from None


def fits(image: np.ndarray, pixels: PixelSettings) -> bool:
    """Whether an image is what is asked for, or gray that can stand for color."""
    as_gray = image.shape[2] == 1 and pixels.channels == 3
    return bits_of(image) == pixels.bits and (as_gray or image.shape[2] == pixels.channels)


def bits_of(image: np.ndarray) -> int:
    """Bits of a value."""
    return 8 * image.dtype.itemsize


def refuse_large(path: Path | str, shape: Sequence[int], pixels: PixelSettings | None) -> None:
    """Raise a UserError where an image of a shape, channels included or not, has more pixels than it may.

    Channels count where there are more than are wanted, since all are decoded. None: whatever there is may be read.
    """
    if pixels is None:
        return
    count = math.prod(shape) / (1 if len(shape) == 2 else max(1, pixels.channels))
    if count > pixels.limit * 1e6:
        told = (
            f"{count / 1e6:,.0f} million pixels; at most {pixels.limit} are read, to change by 'pixels: {{limit: ...}}'"
        )
        raise UserError(f"{path}: image of {told}")


def _head(path: Path | str) -> bytes:
    if Path(path).is_fifo():  # it would be waited for
        raise UserError(f"{path}: a pipe, not a file")
    with Path(path).open("rb") as file:
        return file.read(len(ARRAY))


def _refuse_turned(path: Path | str, orientation: int) -> None:
    if orientation != 1:
        raise UserError(f"{path}: turned by its EXIF orientation; save it upright")


def _from_picture(
    path: Path | str, image: Image.Image, stored: str, pixels: PixelSettings | None
) -> tuple[np.ndarray | None, str]:
    """Of a file that Pillow opens, if not with all that is in it."""
    kind, is_tiff = f"mode {stored or image.mode}", image.format == "TIFF"
    if _is_whole(image, stored):
        values = np.array(image)
        values = values.astype(values.dtype.newbyteorder("="), copy=False).reshape(*values.shape[:2], -1)
        # A gray TIFF may be the first page of a stack, whose pages are the channels.
        if not is_tiff or pixels is None or pixels.plain or fits(values, pixels):
            return values, kind
    if is_tiff and (pixels is None or not pixels.plain):
        return _from_tiff(path, pixels)
    if image.format == "PNG" and ";16" in stored and (pixels is None or pixels.bits == 16):
        return deep_png(path), kind
    return None, kind


def _is_whole(image: Image.Image, stored: str) -> bool:
    """Whether Pillow gives an image's own values: it drops bits of 16-bit color, and channels of some TIFFs."""
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        return stored.startswith("I;16") and tags.get(PHOTOMETRIC) != 0  # 0: white is zero
    if image.mode not in ("L", "LA", "RGB", "RGBA") or ";16" in stored or stored == "RGBa":
        return False
    return tags.get(SAMPLES, len(image.getbands())) == len(image.getbands())


def deep_png(path: Path | str) -> np.ndarray:
    """PNG color of 16 bits, uint16 (H, W, channels).

    Torch is imported for it alone, since checking and listing must start quickly. Its decoder corrupts memory where a
    file is broken, so Pillow, which would drop the lower byte, looks first: at checksums, then at the pixels' stream.
    """
    from torchvision.io import ImageReadMode, decode_png, read_file

    with telling(path):
        with open_picture(path) as image:
            image.verify()
        with open_picture(path) as image:  # verified, an image cannot be loaded any more
            image.load()
    return decode_png(read_file(str(path)), ImageReadMode.UNCHANGED).permute(1, 2, 0).contiguous().numpy()


def _from_tiff(path: Path | str, pixels: PixelSettings | None) -> tuple[np.ndarray | None, str]:
    """The first series of a TIFF: one page, or pages of one size as channels."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages.first
        _refuse_turned(path, page.tags.valueof(ORIENTATION, 1))
        meaning = getattr(page.photometric, "name", str(page.photometric))
        if meaning not in ("MINISBLACK", "RGB", "SEPARATED"):
            return None, f"TIFF photometric {meaning}"
        others = [axis for axis, name in enumerate(series.axes) if name not in "YX"]
        if len(series.shape) - len(others) != 2 or len(others) > 1:
            return None, f"TIFF axes {series.axes}"
        refuse_large(path, series.shape, pixels)
        values = series.asarray()
        return _usable(np.moveaxis(values, others[0], -1) if others else values)


def _mapped(path: Path | str) -> np.ndarray:
    """An array file, (H, W) or (H, W, C), of which only what is used is read."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    _height_and_width(array)
    return array


def _height_and_width(array: np.ndarray) -> Size:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape}; (H, W) or (H, W, C) is needed")
    return array.shape[0], array.shape[1]


def _usable(array: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Values (H, W) or (H, W, C) of any type, as an array of our own (H, W, C) if they are bytes or pairs of them."""
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        return None, f"type {array.dtype.name}"
    values = np.array(array, array.dtype.newbyteorder("="), order="C")
    values = values.reshape(*values.shape[:2], -1)
    return values, counted(values.shape[2], bits_of(values))


def counted(channels: int, bits: int) -> str:
    """In words.

    >>> counted(4, 16)
    '4 channels of 16 bits'
    """
    return f"{channels} channel{'s' if channels > 1 else ''} of {bits} bits"
