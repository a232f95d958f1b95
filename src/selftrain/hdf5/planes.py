"""Planes, a map of pixels per image: datasets (N, H, W) whose chunks are whole images or tiles."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from selftrain.errors import UserError

TILE = 1024
"""The longest side of a chunk."""


def chunk_shape(canvas: tuple[int, int]) -> tuple[int, int, int]:
    """The chunk of a dataset of planes: one whole image, or even tiles with no side over 1,024."""
    height, width = (math.ceil(side / math.ceil(side / TILE)) for side in canvas)
    return 1, height, width


def create_planes(file: h5py.File, name: str, dtype: type, shape: tuple[int, int, int], fill: int) -> h5py.Dataset:
    """A dataset (N, H, W) chunked by `chunk_shape`; `fill` is read where nothing was written. N may be 0."""
    return file.create_dataset(
        name,
        shape,
        dtype,
        chunks=chunk_shape(shape[1:]),
        maxshape=(None, *shape[1:]),
        fillvalue=fill,
        compression="gzip",
        compression_opts=1,
        shuffle=np.dtype(dtype).itemsize > 1,
    )


Packed = list[tuple[int, int, bytes]]
"""The compressed chunks of a plane, each with its row and column."""


def write_plane(planes: h5py.Dataset, position: int, plane: npt.NDArray[np.integer]) -> None:
    """Write (h, w) to the upper left of a dataset's plane at `position`, and its fill value around it."""
    write_packed(planes, position, packed(planes, plane))


def write_packed(planes: h5py.Dataset, position: int, chunks: Packed) -> None:
    """Write what `packed` made of a plane. The order of such calls is that of chunks in the file."""
    for y, x, chunk in chunks:
        planes.id.write_direct_chunk((position, y, x), chunk)


def packed(planes: h5py.Dataset, plane: npt.NDArray[np.integer]) -> Packed:
    """The chunks of a plane, as a dataset has them, of (h, w) in the upper left and the fill value around it.

    Every chunk is made, so that it exists and can be copied. Several threads may pack at a time. ISA-L compresses in a
    seventh of the time of the zlib that HDF5 has, to the same size, and what it makes any zlib reads.
    """
    dtype, (_, height, width) = planes.dtype, planes.chunks
    rows, columns = (-(-side // tile) * tile for side, tile in zip(planes.shape[1:], (height, width), strict=True))
    if plane.shape != (rows, columns) or plane.dtype != dtype:
        canvas = np.full((rows, columns), planes.fillvalue, dtype)
        canvas[: plane.shape[0], : plane.shape[1]] = plane
        plane = canvas
    return [
        (y, x, _compressed(plane[y : y + height, x : x + width]))
        for y in range(0, rows, height)
        for x in range(0, columns, width)
    ]


def _compressed(tile: npt.NDArray[np.integer]) -> bytes:
    """As HDF5's filters: shuffled, first the first byte of all values, then the second; then deflated."""
    values = np.ascontiguousarray(tile)
    shuffled = np.ascontiguousarray(values.view(np.uint8).reshape(-1, values.itemsize).T)
    return isal_zlib.compress(shuffled, 1)


def read_plane(planes: h5py.Dataset, position: int, size: tuple[int, int], classes: int | None = None) -> Any:
    """One plane without padding, (h, w).

    Args:
        planes: (N, H, W).
        position: which.
        size: h and w.
        classes: how many there are where it holds their ids, uint8, or 255; None: it holds something else.

    Raises:
        ValueError: it is smaller, or has other ids.
    """
    plane = planes[position, : size[0], : size[1]]
    if plane.shape != tuple(size):
        raise ValueError(
            f"'{planes.name}' has {plane.shape[0]}×{plane.shape[1]} pixels of an image of {size[0]}×{size[1]}"
        )
    # As 255 + 1 is 0 in a byte, this is one pass over the plane, where every image of a training comes by.
    if classes is not None and (largest := int((plane + np.uint8(1)).max(initial=0))) > classes:
        raise ValueError(f"'{planes.name}' has the class id {largest - 1}, and there are {classes} classes")
    return plane


def copy_chunks(source: h5py.Dataset, target: h5py.Dataset, first: int) -> None:
    """Copy the compressed chunks of `source` as they are into `target`, its planes going to `first` and on.

    A chunk of another shape or filter would read as garbage without an error, so both are compared.
    """
    if _layout(source) != _layout(target):
        raise UserError(f"{source.file.filename}: {source.name} has other chunks or filters; make it again")
    for plane in range(len(source)):
        for y in range(0, source.shape[1], source.chunks[1]):
            for x in range(0, source.shape[2], source.chunks[2]):
                try:
                    mask, data = source.id.read_direct_chunk((plane, y, x))
                except (OSError, RuntimeError) as error:
                    raise UserError(f"{source.file.filename}: broken inside ({error}); make it again") from None
                target.id.write_direct_chunk((first + plane, y, x), data, mask)


def _layout(planes: h5py.Dataset) -> tuple[Any, ...]:
    filters = (planes.compression, planes.compression_opts, planes.shuffle)
    return planes.dtype, planes.shape[1:], planes.chunks, *filters
