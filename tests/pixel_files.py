"""Image files of any number of channels, of 8 and 16 bits."""

import struct
import zlib

import numpy as np
import tifffile


def values(channels, bits, size=(9, 13), seed=0):
    kind = {8: np.uint8, 16: np.uint16}[bits]
    return np.random.default_rng(seed).integers(0, 2**bits, (*size, channels), kind)


def write(path, array, **options):
    """An array (H, W, C) as a file of the kind that its ending names, nothing lost."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        contig = {"photometric": "minisblack", "planarconfig": "contig"}
        tifffile.imwrite(path, array.squeeze(), **(options or contig if array.shape[2] > 1 else options))
    else:
        _write_png(path, array)
    return path


def _write_png(path, array):
    """What Pillow does not write: color of 16 bits."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = array.shape
    head = (width, height, 8 * array.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in array.astype(array.dtype.newbyteorder(">")))
    data = chunk(b"IHDR", struct.pack(">IIBBBBB", *head)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
