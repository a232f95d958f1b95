"""The page's browser of images: what its script is told, and the pictures that it shows.

A photo is a JPEG; labels, confidence and agreement are gray PNGs of plain numbers, to which the page itself gives
colors: so one class can be shown alone, and a number told where the pointer is. All are data URIs, since a page from
disk may not look into pictures that lie beside it; those of one image are a script of their own where all are too large
for the page.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from selftrain.confidence import COARSE_SHIFT, LOW, STEPS
from selftrain.data.palette import palette
from selftrain.data.reading import read_label
from selftrain.data.tables import read_images
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.preview.file import Preview
from selftrain.report import pictures
from selftrain.report.results import Results
from selftrain.settings.data import IGNORE
from selftrain.settings.report import RoundReport, TaskReport

Plane = npt.NDArray[np.uint8]
MIB = 2**20
SURE = 12.0
"""Log-odds at and above which confidence has the brightest color."""


@dataclass(frozen=True)
class Layer:
    """Something to see of every image."""

    key: str
    title: str
    kind: str
    """classes, confidence or agreement: how its numbers become colors."""
    experiments: list[str] | None = None
    """Which of them it is of; None: of all."""


@dataclass(frozen=True, eq=False)
class Source:
    """Where a layer's picture of an image comes from."""

    layer: Layer
    of: PseudoLabels | str
    """Of a round, or a model's folder in the preview."""


def browsers(results: Results, folder: Path) -> list[dict[str, Any]]:
    """What the page's script is told of every task that has images to look at.

    Args:
        results: what the report tells of.
        folder: an empty one, where the pictures go, a script an image, if they do not fit into the page.
    """
    found, written = [], 0
    for task in results.settings.tasks:
        if task.preview is not None:
            with Preview(task.preview) as preview:
                told, size = _browser(results, task, preview, folder / task.name)
            found.append(told)
            written += size
    if written <= results.settings.page.embedded * MIB:
        for told in found:
            told["pictures"] = _taken_in(folder / told["task"], len(told["images"]))
    return found


def _taken_in(folder: Path, count: int) -> list[Any]:
    """The pictures of all images, which leave their folder."""
    found = [json.loads(_content(folder / f"{position}.js")) for position in range(count)]
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _script(task: str, position: int, pictures_of: dict[str, Any]) -> str:
    return f"selftrain.show({json.dumps(task)}, {position},\n{json.dumps(pictures_of)}\n);\n"


def _content(script: Path) -> str:
    return script.read_text(encoding="utf-8").split("\n")[1]


def _browser(results: Results, task: TaskReport, preview: Preview, folder: Path) -> tuple[dict[str, Any], int]:
    """What is told of a task, and how many bytes its pictures are."""
    table = read_images(task.unlabeled).set_index("image")
    truth = read_images(task.truth).set_index("image").label_file.to_dict() if task.truth else {}
    rounds = sorted(results.rounds(task), key=lambda one: one.oracle)  # what opens first has a before and an after
    sources = list(_sources([one for one in rounds if one.seed == rounds[0].seed], preview))
    folder.mkdir(parents=True)
    images, size = [], 0
    for position, name in enumerate(preview.images):
        row = table.loc[name].to_dict()
        right = None
        if name in truth and task.read_truth is not None:
            height, width = preview.shapes[position].tolist()  # as large as what is predicted, to be compared with it
            right = read_label(truth[name], task.read_truth, (height, width))
        planes = {one.layer.key: _plane(one, preview, name, position) for one in sources}
        known = {key: plane for key, plane in planes.items() if plane is not None}
        layers = {} if right is None else {"truth": [pictures.gray(right), ""]}
        layers |= {
            one.layer.key: [pictures.gray(known[one.layer.key]), _note(one.layer, known[one.layer.key], right)]
            for one in sources
            if one.layer.key in known
        }
        size += _write(folder / f"{position}.js", task.name, position, pictures.photo(row["image_file"]), layers)
        seen = (
            [right] if right is not None else [known[one.layer.key] for one in sources if one.layer.kind == "classes"]
        )
        images.append(
            {
                "name": name,
                "height": row["height"],
                "width": row["width"],
                "confidence": round(float(preview.worth.confidence[position]), 2),
                "rarity": round(float(preview.worth.rarity[position]), 4),
                "classes": np.unique(np.concatenate([one.ravel() for one in seen])).tolist() if seen else [],
            }
        )
    of_all = [Layer("truth", "truth", "classes")] if truth else []
    return {
        "task": task.name,
        "classes": list(task.classes),
        "colors": np.reshape(palette(len(task.classes), task.colors), (-1, 3))[: len(task.classes)].tolist(),
        "experiments": list(dict.fromkeys(one.experiment for one in rounds)),
        "layers": [asdict(one) for one in [*of_all, *(source.layer for source in sources)]],
        "images": images,
    }, size


def _sources(rounds: list[RoundReport], preview: Preview) -> Iterator[Source]:
    """Every layer of a task: predictions before, then of each experiment its pseudo-labels and predictions after."""
    tail = {folder: "/".join(Path(folder).parts[-3:]) for folder in {one.folder for one in rounds}}
    shared: dict[str, list[str]] = {}
    for one in rounds:
        if one.round == 0:
            shared.setdefault(tail[one.folder], []).append(one.experiment)
    oracles = {tail[one.folder] for one in rounds if one.oracle}
    for folder, experiments in shared.items():
        if folder in preview.models:
            title = f"{'oracle' if folder in oracles else 'before'}: {folder.split('/')[1]}"
            yield Source(Layer(f"before {folder}", title, "classes", experiments), folder)
    for one in rounds:
        mine, file = [one.experiment], Path(one.folder, "pseudo_labels.h5")
        place = f"{one.experiment} {one.round}"
        if one.has(file.name) and file.is_file():
            labels = PseudoLabels(file)
            yield Source(Layer(f"labels {place}", f"pseudo-labels, round {one.round}", "classes", mine), labels)
            yield Source(Layer(f"confidence {place}", f"confidence, round {one.round}", "confidence", mine), labels)
            if labels.branches > 1:
                yield Source(Layer(f"agreement {place}", f"branches, round {one.round}", "agreement", mine), labels)
        if one.round and tail[one.folder] in preview.models:
            yield Source(Layer(f"after {place}", f"after round {one.round}", "classes", mine), tail[one.folder])


def _plane(source: Source, preview: Preview, name: str, position: int) -> Plane | None:
    """The numbers of a layer's picture, (h, w); None where there are none of this image."""
    if isinstance(source.of, str):
        return preview.predicted(source.of, position)
    labels = source.of
    if name not in labels.positions:
        return None
    if source.layer.kind == "classes":
        return labels.label(name)
    if source.layer.kind == "confidence":
        return labels.coarse_confidence(name)
    return np.rint(labels.agreement(name) / labels.branches * 255).astype(np.uint8)


def _note(layer: Layer, plane: Plane, truth: Plane | None) -> str:
    """What there is to say of a picture in a few words."""
    if layer.kind == "confidence":
        return f"mean log-odds {plane.mean() * (1 << COARSE_SHIFT) / STEPS + LOW:.1f}"
    if layer.kind == "agreement":
        return f"{(plane == 255).mean():.0%} agree"
    labeled = plane != IGNORE
    told = [] if layer.key.startswith(("before", "after")) else [f"{labeled.mean():.0%} labeled"]
    if truth is not None and truth.shape == plane.shape and (known := labeled & (truth != IGNORE)).any():
        told.append(f"{(plane == truth)[known].mean():.0%} right")
    return ", ".join(told)


def _write(path: Path, task: str, position: int, photo: str, layers: dict[str, list[str]]) -> int:
    text = _script(task, position, {"photo": photo, "layers": layers})
    path.write_text(text, encoding="utf-8")
    return len(text)


def ramp() -> list[list[int]]:
    """The color of each byte of confidence, (256, 3): dark where a model is unsure, yellow where it is sure."""
    log_odds = np.arange(256) * (1 << COARSE_SHIFT) / STEPS + LOW
    colors = mpl.colormaps["viridis"](np.clip(log_odds / SURE, 0, 1), bytes=True)
    return colors[:, :3].tolist()
