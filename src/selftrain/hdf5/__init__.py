"""What all HDF5 files here have in common: a format name, whole images or tiles as chunks, names, tables."""

from selftrain.hdf5.attributes import are_colors, is_count, is_number, is_text
from selftrain.hdf5.datasets import read_names, read_shapes, read_table, write_histogram, write_names, write_table
from selftrain.hdf5.format import Format
from selftrain.hdf5.planes import (
    Packed,
    chunk_shape,
    copy_chunks,
    create_planes,
    packed,
    read_plane,
    write_packed,
    write_plane,
)

__all__ = [
    "Format",
    "Packed",
    "are_colors",
    "chunk_shape",
    "copy_chunks",
    "create_planes",
    "is_count",
    "is_number",
    "is_text",
    "packed",
    "read_names",
    "read_plane",
    "read_shapes",
    "read_table",
    "write_histogram",
    "write_names",
    "write_packed",
    "write_plane",
    "write_table",
]
