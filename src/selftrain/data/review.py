"""A person's hand in the loop: images whose pseudo-labels are left out, or replaced by a mask, in every round."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selftrain import artifacts
from selftrain.data.sizes import working_size
from selftrain.errors import UserError
from selftrain.settings.base import nearest
from selftrain.settings.data import IGNORE, PixelSettings, ReadSettings, ReviewSettings, Size

COLUMNS = ("image", "exclude", "mask", "reason")
EXCLUDE = {"yes": True, "no": False, "": False}
CHECKED = ("image", "mask_file", "mask_digest", "reason")


@dataclass(frozen=True)
class Reviewed:
    """What a person says of one image."""

    image: str
    mask: Path | None
    """Class ids that take the place of its pseudo-labels; none: the image is left out."""
    reason: str
    digest: str = ""
    """Of the mask, once it was checked."""

    def told(self) -> dict[str, str]:
        """What pseudo_labels.h5 keeps of it."""
        mask = "" if self.mask is None else self.mask.name
        verdict = "excluded" if self.mask is None else "mask"
        return {"image": self.image, "review": verdict, "mask": mask, "digest": self.digest, "reason": self.reason}


def read_review(path: Path | str) -> list[Reviewed]:
    """The table that a person keeps: CSV with the columns image, exclude (yes or no), mask (a PNG, its path seen from
    the table's folder) and reason, of which image and one of exclude and mask must be there.

    Raises:
        UserError: with every problem of the table, one a line.
    """
    path = Path(path)
    rows, problems = _rows(path), list[str]()
    reviewed: dict[str, Reviewed] = {}
    for line, row in enumerate(rows, 2):
        image, mask, exclude = (str(row.get(name) or "").strip() for name in ("image", "mask", "exclude"))
        file = path.parent / mask if mask else None
        found = [
            (not image, "names no image"),
            (image in reviewed, f"'{image}' stands there twice"),
            (exclude.lower() not in EXCLUDE, f"exclude is '{exclude}'; write yes or no"),
            (
                EXCLUDE.get(exclude.lower()) is (file is not None),
                f"'{image}' needs exclude: yes or a mask, one of them",
            ),
            (file is not None and not file.is_file(), f"{file}: no such mask"),
        ]
        problems += [f"{path}, line {line}: {told}" for wrong, told in found if wrong]
        reviewed[image] = Reviewed(image, file, str(row.get("reason") or "").strip())
    if problems:
        raise UserError("\n".join(problems))
    return list(reviewed.values())


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            names = list(table.fieldnames or [])
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table ({error}); a review is CSV with {', '.join(COLUMNS)}") from None
    if unknown := [name for name in names if name not in COLUMNS]:
        raise UserError(f"{path}: {nearest(unknown[0], list(COLUMNS), 'column')}")
    if "image" not in names:
        raise UserError(f"{path}: has no column 'image'; a review is CSV with {', '.join(COLUMNS)}")
    return rows


def write_review(settings: ReviewSettings, images: Path, output: Path) -> None:
    """Check a review, and write image, mask_file, mask_digest and reason of each row.

    The digests make the table differ when a mask is edited again, so that what was labeled by it is labeled anew.

    Args:
        settings: which table, and how the unlabeled images become arrays.
        images: images.csv of the unlabeled split.
        output: review.csv.

    Raises:
        UserError: see `check_review`.
    """
    import pandas as pd  # not above: every call of Snakemake reads reviews

    from selftrain.data.tables import own_sizes, read_images

    table = read_images(images)
    reviewed = check_review(settings, dict(zip(table.image, own_sizes(table), strict=True)))
    rows = [
        [one.image, str(one.mask or ""), "" if one.mask is None else artifacts.digest_file(one.mask), one.reason]
        for one in reviewed
    ]
    artifacts.write_csv(output, pd.DataFrame(rows, columns=list(CHECKED)))


def check_review(settings: ReviewSettings, sizes: Mapping[str, Size]) -> list[Reviewed]:
    """A review whose images are in the unlabeled split and whose masks fit them.

    Args:
        settings: which table, and how the images become arrays.
        sizes: each image's own height and width, by name.

    Raises:
        UserError: with every image that is not there and every mask that does not fit, one a line.
    """
    reviewed, problems = read_review(settings.table), list[str]()
    for one in reviewed:
        try:
            check_name(settings.table, one.image, sizes)
            if one.mask is not None:
                read_mask(one.mask, settings.read.classes, working_size(settings.read.size, sizes[one.image]))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return reviewed


def check_name(table: str, image: str, names: Collection[str]) -> None:
    """Raise a UserError where a reviewed image is not among those of the unlabeled split."""
    if image not in names:
        raise UserError(f"{table}: {nearest(image, list(names), 'image')}")


def read_mask(path: Path, classes: Sequence[str], size: Size) -> np.ndarray:
    """A mask as `selftrain export-labels` writes it: class indices, 255 is ignore, uint8 (h, w) at the working size.

    It may be as large as its image, whatever `pixels.limit` is by default.

    Raises:
        UserError: it has another size, or an id that is no class.
    """
    from selftrain.data.reading import read_label

    limit = max(PixelSettings().limit, math.ceil(math.prod(size) / 1e6))
    read = ReadSettings(classes=tuple(classes), ignore_index=IGNORE, pixels=PixelSettings(limit=limit))
    mask = read_label(path, read)
    if mask.shape != size:
        told = " × ".join(map(str, mask.shape)), " × ".join(map(str, size))
        raise UserError(f"{path}: mask of {told[0]}; its image is worked on at {told[1]}")
    return mask


def read_checked(path: Path | None) -> dict[str, Reviewed]:
    """What `write_review` wrote, by image; nothing where there is no review."""
    if path is None:
        return {}
    from selftrain.written import read_table  # not above: every call of Snakemake reads reviews

    rows = read_table(path, CHECKED, empty=True).to_dict("records")
    masks = [Path(row["mask_file"]) if row["mask_file"] else None for row in rows]
    return {
        row["image"]: Reviewed(row["image"], mask, row["reason"], row["mask_digest"])
        for row, mask in zip(rows, masks, strict=True)
    }
