"""The table of a split's images, and the statistics of a labeled one."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from selftrain import artifacts, hdf5
from selftrain.ahead import mapped
from selftrain.data.decoding import image_size
from selftrain.data.listing import list_split
from selftrain.data.reading import read_label
from selftrain.data.sizes import working_size
from selftrain.errors import UserError
from selftrain.names import check_names
from selftrain.progress import followed
from selftrain.settings.data import IGNORE, ListSettings, ReadSettings, Size, WorkingSize
from selftrain.written import AGAIN, read_table

MAP = (64, 128)
"""Height and width of a spatial frequency map."""

STATISTICS = hdf5.Format(
    "selftrain-statistics",
    2,
    "run statistics again to make it",
    {"images": ("O", "N"), "counts": ("i", "NC"), "frequency": ("f", "CHW")},
    has_classes=True,
)

COLUMNS = ["image", "image_file", "label_file", "height", "width", "image_digest", "label_digest"]
CLASS_COLUMNS = ["class", "pixels", "share", "images", "image_share", "mean_size"]


def write_images(settings: ListSettings, output: Path) -> None:
    """Write images.csv: one row per image, with its files, its size, and digests of the files' contents.

    The digests make the table differ when a picture changes, so what was trained on it is trained again.
    """
    items = list_split(settings)
    with artifacts.writing(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for item in followed(items, "list", len(items)):
            label = item.label or ""
            digests = [artifacts.digest_file(item.image), artifacts.digest_file(label) if label else ""]
            table.writerow([item.name, item.image, label, *image_size(item.image), *digests])


def read_images(path: Path | str) -> pd.DataFrame:
    """The table that `write_images` wrote; names stay text, absent labels are empty text.

    Raises:
        UserError: it is missing, another table, without images, or of images without a name or a size.
    """
    table = read_table(path, COLUMNS)
    try:
        check_names(table.image.to_list())
    except ValueError as error:
        raise UserError(f"{path}: broken inside ({error}); {AGAIN}") from None
    if not table[["height", "width"]].all(axis=None):
        raise UserError(f"{path}: broken inside (an image has no size); {AGAIN}")
    return table


def own_sizes(table: pd.DataFrame) -> list[Size]:
    """Height and width of each image of a table."""
    return list(zip(table.height.astype(int), table.width.astype(int), strict=True))


def working_sizes(table: pd.DataFrame, size: WorkingSize | None) -> list[Size]:
    """Height and width at which each image of a table is worked on, for the `size` of its split."""
    return [working_size(size, own) for own in own_sizes(table)]


def write_statistics(settings: ReadSettings, images: Path, classes_csv: Path, statistics_h5: Path) -> None:
    """Write what is known of a labeled split, at its working size.

    classes.csv has one row per class: `pixels`, `share` of all labeled pixels (the prior r of DARS eq. 4), `images`
    that show it, `image_share`, what share of all images they are, and `mean_size`, the mean share of the image's area
    that it takes in them (MLSL eq. 4). statistics.h5 has `counts` int64 (N, C), `images` (N names) and `frequency`
    float32 (C, 64, 128): how often a place shows a class (the priors of CBST-SP).
    """
    table = read_images(images)
    classes = len(settings.classes)
    counts, areas = np.zeros((len(table), classes), np.int64), np.ones(len(table), np.int64)
    frequency = np.zeros((classes, *MAP), np.int64)
    sizes = working_sizes(table, settings.size)
    files = zip(table.label_file, sizes, strict=True)
    reduced = followed(mapped(partial(_reduced, settings=settings), files, threads=2), "statistics", len(table))
    for row, (pixels, area, small) in enumerate(reduced):
        counts[row], areas[row] = pixels, area
        frequency += small[None] == np.arange(classes)[:, None, None]
    artifacts.write_csv(classes_csv, _class_table(settings.classes, counts, areas))
    with STATISTICS.create(statistics_h5) as file:
        file.attrs["classes"] = json.dumps(list(settings.classes))
        hdf5.write_names(file, "images", table.image.to_list())
        file["counts"] = counts
        shares = (frequency / max(1, len(table))).astype(np.float32)
        file.create_dataset("frequency", data=shares, compression="gzip")


def read_classes(classes_csv: Path | str, classes: Sequence[str]) -> pd.DataFrame:
    """The classes.csv that `write_statistics` wrote, one row per class.

    Raises:
        UserError: it is missing, another table, or about other classes.
    """
    table = read_table(classes_csv, ["class", "share", "images", "mean_size"], "run statistics again", more=True)
    names = tuple(table["class"])
    if names != tuple(classes):
        raise UserError(f"{classes_csv}: is about {names}, not {tuple(classes)}")
    if not np.isfinite(table[["share", "mean_size"]].to_numpy()).all():
        raise UserError(f"{classes_csv}: has NaN or infinite shares or sizes; run statistics again")
    return table


def _reduced(label_file: tuple[str, Size], settings: ReadSettings) -> tuple[np.ndarray, int, np.ndarray]:
    """All that is kept of a label at its working size: counts, area, small map."""
    file, size = label_file
    label = read_label(file, settings, size)
    small = np.asarray(Image.fromarray(label).resize(MAP[::-1], Image.Resampling.NEAREST))
    return np.bincount(label.ravel(), minlength=IGNORE + 1)[: len(settings.classes)], label.size, small


def _class_table(classes: tuple[str, ...], counts: np.ndarray, areas: np.ndarray) -> pd.DataFrame:
    pixels, present = counts.sum(0), (counts > 0).sum(0)
    sizes = [math.fsum(of_class) for of_class in (counts / areas[:, None]).T]  # the same in any order of images
    return pd.DataFrame(
        {
            "class": classes,
            "pixels": pixels,
            "share": pixels / max(1, pixels.sum()),
            "images": present,
            "image_share": present / max(1, len(counts)),
            "mean_size": sizes / np.maximum(1, present),
        }
    )
