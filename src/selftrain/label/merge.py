"""The merge stage: join the shards of pseudo-labels into one file that stands alone, and write its table of classes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from selftrain import artifacts, hdf5
from selftrain.agreement import agreeing
from selftrain.data.review import read_checked
from selftrain.errors import UserError
from selftrain.label.layout import MADE, SHARD, Counts, create_planes, made_from, write_images
from selftrain.label.pseudo_labels import CLASS_COLUMNS, FORMAT
from selftrain.label.weak_labels import weak_labels
from selftrain.predict.store import Predictions, read_histograms
from selftrain.progress import Progress, following
from selftrain.select.cut import kl_divergence, read_cut
from selftrain.settings.selection import LabelSettings


def merge(
    settings: LabelSettings,
    shards: Sequence[Path],
    predictions: Sequence[Path],
    cut: Path,
    output: Path,
    table: Path,
    review: Path | None = None,
) -> None:
    """Join the shards into one file that stands alone, and write its table of classes beside it.

    The compressed chunks are copied as they are. The same images give the same bytes, however they were sharded.

    Args:
        settings: as `label` had them.
        shards: what `label` wrote, in the order of the images.
        predictions: the prediction shards they came from, in the same order.
        cut: the table that select wrote.
        output: pseudo_labels.h5.
        table: pseudo_labels.csv, one row per class.
        review: review.csv of the task, as `label` had it.

    Raises:
        UserError: shards that do not belong together.
    """
    decided = read_cut(cut, settings.select.classes)
    images = _together(settings, shards, predictions, cut)
    histogram = read_histograms(predictions, settings.select.classes)
    if (histogram.sum(1) != decided["predicted"]).any():
        raise UserError(f"{cut}: was made from other predictions; run select again")
    with FORMAT.create(output) as file:
        # All shards of one dataset before the other: interleaved, the places in the file would depend on the shards.
        datasets = create_planes(file, len(images.names), images.canvas, images.votes.shape[1])
        with following("merge", len(datasets) * len(images.names), unit="plane") as progress:
            for planes in datasets:
                _copy(shards, planes, progress)
                file.disk.check()
        write_images(file, images.names, images.shapes)
        classes = class_table(decided, images, _write_counts(file, shards, images, decided, settings.eta))
        hdf5.write_histogram(file, histogram)
        hdf5.write_table(file, "cut", decided)
        hdf5.write_table(file, "classes", classes)
        file.attrs.update(_attributes(settings, images, classes))
        if review is not None:
            file.attrs["review"] = json.dumps([one.told() for one in read_checked(review).values()])
    artifacts.write_csv(table, classes)


@dataclass(frozen=True, eq=False)
class Images:
    """What is known of the images of all shards: N `names`, and `shapes` (N, 2)."""

    names: list[str]
    shapes: npt.NDArray[np.int32]
    votes: Counts
    """Pixels predicted as each class that 1, 2, ... branches agree on, (C, E)."""
    least_agreement: int
    """Of how many branches a filter asks to agree; 0: of none."""
    canvas: tuple[int, int]
    model: str
    colors: str
    """As JSON."""


@dataclass(frozen=True, eq=False)
class Labeled:
    """What is labeled as each class, in all images, (C,)."""

    pixels: Counts
    images: Counts
    """Those that have such pixels."""
    changed: Counts
    """Pixels that the model takes for another class."""
    weak: Counts | None
    """Images that have the weak label, where there are any."""


def class_table(cut: pd.DataFrame, images: Images, labeled: Labeled) -> pd.DataFrame:
    """What was labeled, one row per class.

    Columns that say what the cut does not: `filtered`, pixels of the class that the policy did not see, since too few
    branches agree on them; `agreeing`, the share of all its pixels, filtered or not, on which branches agree (as many
    as a filter asks for, else all; empty where there is one branch);
    `pixels`, the labeled ones, and their `share` among all labels; `images` that have them; `changed`, those of them
    that the model takes for another class; `weak_images`, how many images have the weak label, where there are any.

    Args:
        cut: the table that select wrote.
        images: what is known of the images.
        labeled: of their labels.
    """
    columns = {
        "filtered": images.votes.sum(1) - cut["predicted"].to_numpy(),
        "agreeing": agreeing(images.votes, images.least_agreement) if images.votes.shape[1] > 1 else np.nan,
        "pixels": labeled.pixels,
        "share": labeled.pixels / max(1, labeled.pixels.sum()),
        "images": labeled.images,
        "changed": labeled.changed,
        "weak_images": np.nan if labeled.weak is None else labeled.weak,
    }
    return cut.assign(**columns)[CLASS_COLUMNS]


def _write_counts(
    file: h5py.File, shards: Sequence[Path], images: Images, cut: pd.DataFrame, eta: float | None
) -> Labeled:
    """Write the labeled pixels of each image, (N, C), its mean confidence, (N,), and its weak labels where `eta` is
    given, a shard at a time."""
    shape = (len(images.names), len(cut))
    counts = file.create_dataset("counts", shape, np.int64)
    confidence = file.create_dataset("mean_confidence", shape[:1], np.float32)
    weak = None if eta is None else file.create_dataset("weak_labels", shape, np.uint8)
    pixels, shown, changed, weakly = (np.zeros(len(cut), np.int64) for _ in range(4))
    first = 0
    for path in shards:
        with SHARD.read(path) as shard:
            of_shard = shard["counts"][:]
            changed += shard["changed"][:]
            place = slice(first, first := first + len(of_shard))
            confidence[place] = shard["mean_confidence"][:]
        counts[place] = of_shard
        pixels += of_shard.sum(0)
        shown += (of_shard > 0).sum(0)
        if weak is not None and eta is not None:
            areas = images.shapes[place].prod(1, dtype=np.int64)
            weak[place] = labels = weak_labels(of_shard, areas, cut["mean_size"].to_numpy(), eta)
            weakly += labels.sum(0, dtype=np.int64)
    return Labeled(pixels, shown, changed, None if weak is None else weakly)


def _together(settings: LabelSettings, shards: Sequence[Path], predictions: Sequence[Path], cut: Path) -> Images:
    """The images of shards that belong together."""
    if not predictions or len(shards) != len(predictions):
        raise UserError(f"{len(shards)} shards of labels for {len(predictions)} shards of predictions")
    names, shapes, votes, strange = [], [], [], []
    canvases: dict[tuple[int, int], Path] = {}
    models: dict[str, Path] = {}
    filters: dict[tuple[int, int], Path] = {}
    for path, prediction in zip(shards, predictions, strict=True):
        with Predictions(prediction) as source, SHARD.read(path) as shard:
            if hdf5.read_names(shard, "images") != source.images:
                raise UserError(f"{path}: has other images than {prediction}; run label again")
            if shard.attrs.get(MADE) != made_from(settings, source, cut):
                strange.append(path)
            names += source.images
            shapes.append(source.shapes)
            votes.append(source.votes())
            canvases[shard["label"].shape[1:]] = path
            models[str(source.attributes.get("model", ""))] = prediction
            filters[source.branches, source.least_agreement] = prediction
            colors = str(source.attributes.get("colors", "null"))
    canvas, model = _only(canvases, "canvas"), _only(models, "model")
    _, least = _only(filters, "(branches, how many of them a filter asks for)")
    if strange:
        raise UserError(
            f"{strange[0]}: is of another round, or of other predictions or another cut than {cut}; run label again"
        )
    return Images(names, np.concatenate(shapes), np.sum(votes, 0), least, canvas, model, colors)


def _only(found: dict[Any, Path], what: str) -> Any:
    """The one value that all shards agree on."""
    if len(found) > 1:
        said = ", ".join(f"{value} in {path}" for value, path in found.items())
        raise UserError(f"the shards differ in their {what}: {said}; run predict again for all of them")
    return next(iter(found))


def _copy(shards: Sequence[Path], planes: h5py.Dataset, progress: Progress) -> None:
    """Copy the chunks that all shards have under this dataset's name, in order."""
    first = 0
    for path in shards:
        with SHARD.open(path) as shard:
            hdf5.copy_chunks(shard[planes.name], planes, first)
            first += len(shard[planes.name])
            progress.advance(len(shard[planes.name]))


def _attributes(settings: LabelSettings, images: Images, classes: pd.DataFrame) -> dict[str, Any]:
    select = settings.select
    divergence, left_out = kl_divergence(classes["prior"].to_numpy(), classes["pixels"].to_numpy(), select.classes)
    return {
        "method": select.policy.name,
        "round": settings.round,
        "portion": math.nan if select.portion is None else select.portion,
        "seed": settings.seed,
        "classes": json.dumps(list(select.classes)),
        "settings": settings.model_dump_json(),
        "model": images.model,
        "colors": images.colors,
        "branches": images.votes.shape[1],
        "kl_divergence": divergence,
        "kl_left_out": json.dumps(left_out),
    }
