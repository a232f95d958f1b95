"""Pictures for the page as data URIs, and the strips of what trainings made of some images.

In a strip a photo is there once; labels lie over it as transparent palette images, ignored pixels as a shadow,
disagreement of branches in one bright color.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from selftrain.data.palette import palette
from selftrain.data.reading import read_photo
from selftrain.report.results import Results, last_of_first_seed
from selftrain.settings.data import IGNORE
from selftrain.settings.report import TaskReport
from selftrain.train import examples

LONGEST = 640
"""The longest side of a picture."""
CLASS_ALPHA, IGNORED_ALPHA = 165, 175
DISAGREE, DISAGREE_ALPHA = (255, 0, 200), 215
"""A color that no photo has."""


@dataclass(frozen=True)
class View:
    """A photo as a data URI, with its title and a transparent picture to lie over it (or none)."""

    title: str
    photo: str
    overlay: str = ""


@dataclass(frozen=True)
class Strip:
    """What a training made of one image of a step."""

    name: str
    ratio: str
    views: list[View]


def strips(results: Results, task: TaskReport) -> list[Strip]:
    """How experiments that mix or label step by step (of their first seed) used an unlabeled image, at a few steps."""
    colors = palette(len(task.classes), task.colors)
    found = []
    for one, path in last_of_first_seed(results.rounds(task), "examples.h5"):
        for step, of in examples.read(path).items():
            pictures = [picture for picture in of.values() if picture.ndim == 3]
            if not pictures:
                continue
            height, width, _ = pictures[0].shape
            views = _mixing if "pasted" in of else _curriculum if "agreement" in of else _as_they_are
            of_round = f", round {one.round}" if one.round > 1 else ""
            found.append(Strip(f"{one.experiment}{of_round}, step {step}", f"{width} / {height}", views(of, colors)))
    return found


def _mixing(of: dict[str, np.ndarray], colors: list[int]) -> list[View]:
    """What was pasted, seen and taught."""
    pasted, seen = jpeg(of["pasted"]), jpeg(of["mixed"])
    return [
        View("pasted", pasted),
        View("onto", jpeg(of["below"])),
        View("mask", pasted, shadow(of["mask"] == 0)),
        View("mixed", seen),
        View("taught", seen, overlay(of["label"], colors)),
    ]


def _curriculum(of: dict[str, np.ndarray], colors: list[int]) -> list[View]:
    """What was predicted, where branches disagreed, and what was learned (strategic curriculum, Figure 4)."""
    image, share = jpeg(of["image"]), of["agreement"] / 255
    valid = of["predicted"] != IGNORE
    return [
        View("image", image),
        View("predicted", image, overlay(of["predicted"], colors)),
        View(f"{(share == 1)[valid].mean():.0%} agree", image, disagreement(share)),
        View(f"{(of['label'] != IGNORE)[valid].mean():.0%} learned", image, overlay(of["label"], colors)),
    ]


def _as_they_are(of: dict[str, np.ndarray], colors: list[int]) -> list[View]:
    """Of an algorithm that the report knows nothing of: its pictures, and its maps, as classes over the first one."""
    below = next(jpeg(picture) for picture in of.values() if picture.ndim == 3)
    return [
        View(name, jpeg(one)) if one.ndim == 3 else View(name, below, overlay(one, colors)) for name, one in of.items()
    ]


def legend(task: TaskReport) -> list[tuple[str, str]]:
    """Each class with its color, as CSS says it."""
    colors = palette(len(task.classes), task.colors)
    return [(name, "rgb({}, {}, {})".format(*colors[3 * i : 3 * i + 3])) for i, name in enumerate(task.classes)]


def photo(path: Path | str) -> str:
    """An image file as a small JPEG, a data URI."""
    return jpeg(read_photo(path))


def jpeg(image: np.ndarray) -> str:
    """An image, uint8 (h, w, 3), as a small JPEG, a data URI."""
    picture = Image.fromarray(image)
    picture.thumbnail((LONGEST, LONGEST))
    return _uri(picture, "jpeg", quality=85)


def gray(numbers: np.ndarray) -> str:
    """Numbers from 0 to 255, (h, w), as the levels of a gray PNG, a data URI."""
    return _uri(_shrunk(numbers), "png")


def overlay(label: np.ndarray, colors: list[int]) -> str:
    """Class indices (h, w) as a transparent palette PNG, a data URI; 255 darkens what is below."""
    return _transparent(label, colors, bytes([CLASS_ALPHA] * IGNORE + [IGNORED_ALPHA]))


def shadow(where: np.ndarray) -> str:
    """A transparent palette PNG, a data URI, that darkens what is below, bool (h, w), as ignored pixels are."""
    return _transparent(where.astype(np.uint8), [0] * 768, bytes([0, IGNORED_ALPHA]))


def disagreement(share: np.ndarray) -> str:
    """Where branches disagree, a transparent palette PNG, a data URI: the stronger, the fewer name the same class.

    Args:
        share: of the branches that name the most frequent class, (h, w), from 1 / E to 1.
    """
    levels = np.rint(np.minimum(1, 2 * (1 - share)) * 255).astype(np.uint8)  # half of them is as bad as it gets
    return _transparent(levels, [*DISAGREE] * 256, bytes(DISAGREE_ALPHA * level // 255 for level in range(256)))


def _transparent(indices: np.ndarray, colors: list[int], alpha: bytes) -> str:
    picture = _shrunk(indices)
    picture.putpalette(colors)
    return _uri(picture, "png", transparency=alpha)


def _shrunk(numbers: np.ndarray) -> Image.Image:
    """As a picture no longer than `LONGEST`, no numbers mixed."""
    picture = Image.fromarray(numbers)
    scale = max(1.0, max(picture.size) / LONGEST)
    return picture.resize([max(1, round(side / scale)) for side in picture.size], Image.Resampling.NEAREST)


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
