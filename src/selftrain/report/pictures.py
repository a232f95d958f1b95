"""Pictures of a few images, small enough to stand inside a page: unlabeled ones with their truth and pseudo-labels, and
what online trainings made of some.

A photo is there once; labels lie over it as transparent palette images, ignored pixels as a shadow, disagreement of
branches in one bright color.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from selftrain.data.palette import palette
from selftrain.data.reading import read_label, read_photo
from selftrain.data.tables import read_images
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.report.results import Results
from selftrain.settings.data import IGNORE
from selftrain.settings.report import RoundReport, TaskReport
from selftrain.train import examples

LONGEST = 640
"""The longest side of a picture."""
CLASS_ALPHA, IGNORED_ALPHA = 165, 175
CLEAR = IGNORE - 1
DISAGREE, DISAGREE_ALPHA = (255, 0, 200), 215
"""A color that no photo has."""


@dataclass(frozen=True)
class Panel:
    """A title, a transparent picture to lie over the photo (or none), and what is known of it."""

    title: str
    overlay: str
    note: str = ""


@dataclass(frozen=True)
class Scene:
    """An image as a data URI, its shape as CSS says it, and the panels that show it."""

    name: str
    photo: str
    ratio: str
    panels: list[Panel]


@dataclass(frozen=True)
class View:
    """A photo as a data URI, with its title and a transparent picture to lie over it (or none)."""

    title: str
    photo: str
    overlay: str = ""


@dataclass(frozen=True)
class Strip:
    """What an online training made of one image of a step."""

    name: str
    ratio: str
    views: list[View]


def scenes(results: Results, task: TaskReport, wanted: int = 4) -> list[Scene]:
    """Evenly spaced unlabeled images, with the pseudo-labels of each experiment's last round (of its first seed).

    None where all experiments are online: they leave no pseudo-labels.
    """
    table = read_images(task.unlabeled)
    truth = read_images(task.truth).set_index("image").label_file.to_dict() if task.truth else {}
    labels = {one.experiment: PseudoLabels(path) for one, path in _last(results.rounds(task), "pseudo_labels.h5")}
    found = []
    for position in evenly_spaced(len(table), wanted) if labels else []:
        name, file = table.image.iloc[position], table.image_file.iloc[position]
        panels = [Panel("image", ""), *_panels(task, name, truth.get(name, ""), labels)]
        height, width = int(table.height.iloc[position]), int(table.width.iloc[position])
        found.append(Scene(name, photo(file), f"{width} / {height}", panels))
    return found


def strips(results: Results, task: TaskReport) -> list[Strip]:
    """How each online experiment (of its first seed) used an unlabeled image, at a few steps."""
    colors = palette(len(task.classes), task.colors)
    found = []
    for one, path in _last(results.rounds(task), "examples.h5"):
        for step, of in examples.read(path).items():
            pictures = [picture for picture in of.values() if picture.ndim == 3]
            if not pictures:
                continue
            height, width, _ = pictures[0].shape
            views = _mixing if "pasted" in of else _curriculum if "agreement" in of else _as_they_are
            found.append(Strip(f"{one.experiment}, step {step}", f"{width} / {height}", views(of, colors)))
    return found


def _mixing(of: dict[str, np.ndarray], colors: list[int]) -> list[View]:
    """What was pasted, seen and taught."""
    pasted, seen = jpeg(of["pasted"]), jpeg(of["mixed"])
    return [
        View("pasted", pasted),
        View("onto", jpeg(of["below"])),
        # What is not pasted lies in the shadow of ignored pixels.
        View("mask", pasted, overlay(np.where(of["mask"] > 0, CLEAR, IGNORE).astype(np.uint8), colors)),
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


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """Up to `wanted` positions below `count`, the first and the last among them.

    >>> evenly_spaced(96, 4), evenly_spaced(2, 4)
    ([0, 32, 63, 95], [0, 1])
    """
    return sorted({round(position) for position in np.linspace(0, count - 1, wanted)}) if count else []


def photo(path: Path | str) -> str:
    """An image file as a small JPEG, a data URI."""
    return jpeg(read_photo(path))


def jpeg(image: np.ndarray) -> str:
    """An image, uint8 (h, w, 3), as a small JPEG, a data URI."""
    picture = Image.fromarray(image)
    picture.thumbnail((LONGEST, LONGEST))
    return _uri(picture, "jpeg", quality=85)


def overlay(label: np.ndarray, colors: list[int]) -> str:
    """Class indices (h, w) as a transparent palette PNG, a data URI; 255 darkens what is below, 254 leaves it clear."""
    return _transparent(label, colors, bytes([CLASS_ALPHA] * CLEAR + [0, IGNORED_ALPHA]))


def disagreement(share: np.ndarray) -> str:
    """Where branches disagree, a transparent palette PNG, a data URI: the stronger, the fewer name the same class.

    Args:
        share: of the branches that name the most frequent class, (h, w), from 1 / E to 1.
    """
    levels = np.rint(np.minimum(1, 2 * (1 - share)) * 255).astype(np.uint8)  # half of them is as bad as it gets
    return _transparent(levels, [*DISAGREE] * 256, bytes(DISAGREE_ALPHA * level // 255 for level in range(256)))


def _transparent(indices: np.ndarray, colors: list[int], alpha: bytes) -> str:
    picture = Image.fromarray(indices)
    scale = max(1.0, max(picture.size) / LONGEST)
    picture = picture.resize([round(side / scale) for side in picture.size], Image.Resampling.NEAREST)
    picture.putpalette(colors)
    return _uri(picture, "png", transparency=alpha, optimize=True)


def _last(rounds: list[RoundReport], name: str) -> Iterator[tuple[RoundReport, Path]]:
    """Of each experiment's first seed the last round that has a file of this name."""
    last: dict[str, RoundReport] = {}
    for one in rounds:
        known = last.get(one.experiment)
        if Path(one.folder, name).is_file() and (known is None or known.seed == one.seed):
            last[one.experiment] = one
    return ((one, Path(one.folder, name)) for one in last.values())


def _panels(task: TaskReport, name: str, truth: str, labels: dict[str, PseudoLabels]) -> Iterator[Panel]:
    colors = palette(len(task.classes), task.colors)
    right = None
    if truth and task.read_truth is not None:
        right = read_label(truth, task.read_truth)
        yield Panel("truth", overlay(right, colors))
    for experiment, of in labels.items():
        if name in of.names:
            label = of.label(name)
            yield Panel(f"{experiment}, round {of.attributes['round']}", overlay(label, colors), _note(label, right))
            if of.branches > 1:
                share = of.agreement(name) / of.branches
                yield Panel(f"{experiment}: branches", disagreement(share), f"{(share == 1).mean():.0%} agree")


def _note(label: np.ndarray, truth: np.ndarray | None) -> str:
    """How much of the image is labeled, and how much of that is right."""
    labeled = label != IGNORE
    text = f"{labeled.mean():.0%} labeled"
    if truth is None or truth.shape != label.shape:
        return text
    known = labeled & (truth != IGNORE)
    return f"{text}, {(label == truth)[known].mean():.0%} of it right" if known.any() else text


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
