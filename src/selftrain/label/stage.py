"""The label stage: apply a cut to each shard of predictions, then join the shards into pseudo_labels.h5."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from selftrain import artifacts, hdf5
from selftrain.confidence import BINS, coarse
from selftrain.errors import UserError
from selftrain.label import draws
from selftrain.label.pseudo_labels import FORMAT
from selftrain.predict.store import Predictions, read_histograms
from selftrain.select.cut import kl_divergence, read_cut
from selftrain.settings.data import IGNORE
from selftrain.settings.selection import LabelSettings

SHARD = hdf5.Format("selftrain-pseudo-labels-shard", 1, "run label again to make it")
FILTERS = {"compression": "gzip", "compression_opts": 1}
CLASS_COLUMNS = [
    "class",
    "pixels",
    "share",
    "prior",
    "threshold_log_odds",
    "threshold_probability",
    "kept_fraction",
    "images",
    "alarm",
]

Labels = npt.NDArray[np.uint8]
Bins = npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Rule:
    """A cut, by class id: what a label must reach, and which draws keep it. Id 255 reaches nothing."""

    threshold: npt.NDArray[np.uint16]
    limit: draws.Draws

    @classmethod
    def of(cls, cut: pd.DataFrame) -> Self:
        """The rule of the table that select wrote."""
        threshold = np.full(IGNORE + 1, BINS, np.uint16)
        limit = np.full(IGNORE + 1, draws.ALWAYS)
        threshold[: len(cut)] = cut["threshold_bin"]
        limit[: len(cut)] = draws.limit(cut["kept_fraction"].to_numpy())
        return cls(threshold, limit)

    def apply(self, classes: Labels, bins: Bins, key: np.uint64) -> Labels:
        """The pseudo-labels of one image, (h, w): its classes, 255 where they are not kept.

        Args:
            classes: predicted ids (h, w).
            bins: their confidence (h, w).
            key: of the image's draws.
        """
        labels = np.where(bins >= self.threshold[classes], classes, np.uint8(IGNORE))
        limits = self.limit[labels.ravel()]
        pixels = np.flatnonzero(limits < draws.ALWAYS)
        dropped = draws.draw(key, pixels) >= limits[pixels]
        labels.ravel()[pixels[dropped]] = IGNORE
        return labels


def label(settings: LabelSettings, prediction: Path, cut: Path, output: Path) -> None:
    """Apply the cut to one shard of predictions, an image at a time.

    Args:
        settings: seed, round, and what select was told.
        prediction: the shard.
        cut: the table that select wrote.
        output: an intermediate file, to be joined with the other shards by `merge`.
    """
    names = settings.select.classes
    rule = Rule.of(read_cut(cut, names))
    with Predictions(prediction, names) as shard, SHARD.create(output) as file:
        counts = np.zeros((len(shard), len(names)), np.int64)
        labels, confidence = _create_planes(file, len(shard), shard.canvas)
        for position, name in enumerate(shard.images):
            classes, bins = shard.read(position)
            kept = rule.apply(classes, bins, draws.image_key(settings.seed, settings.round, name))
            counts[position] = np.bincount(kept.ravel(), minlength=len(names))[: len(names)]
            labels[position] = _padded(kept, shard.canvas, IGNORE)
            confidence[position] = _padded(coarse(bins), shard.canvas, 0)
        _write_images(file, shard.images, shard.shapes, counts)


def merge(
    settings: LabelSettings,
    shards: Sequence[Path],
    predictions: Sequence[Path],
    cut: Path,
    output: Path,
    table: Path,
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

    Raises:
        UserError: shards that do not belong together.
    """
    decided = read_cut(cut, settings.select.classes)
    images = _together(shards, predictions)
    classes = class_table(decided, images.counts)
    histogram = read_histograms(predictions, settings.select.classes)
    with FORMAT.create(output) as file:
        # All shards of one dataset before the other: interleaved, the places in the file would depend on the shards.
        for planes in _create_planes(file, len(images.names), images.canvas):
            _copy(shards, planes)
        _write_images(file, images.names, images.shapes, images.counts)
        file.create_dataset("histogram", data=histogram, compression="gzip", shuffle=True)
        hdf5.write_table(file, "cut", decided)
        hdf5.write_table(file, "classes", classes)
        file.attrs.update(_attributes(settings, images.model, classes))
    artifacts.write_csv(table, classes)


def class_table(cut: pd.DataFrame, counts: npt.NDArray[np.int64]) -> pd.DataFrame:
    """What was labeled, one row per class, from the cut and the labeled pixels of each image (N, C)."""
    pixels = counts.sum(0)
    share = pixels / max(1, pixels.sum())
    return cut.assign(pixels=pixels, share=share, images=(counts > 0).sum(0))[CLASS_COLUMNS]


def _create_planes(file: h5py.File, count: int, canvas: tuple[int, int]) -> tuple[h5py.Dataset, h5py.Dataset]:
    labels = hdf5.create_planes(file, "label", np.uint8, (count, *canvas), IGNORE, **FILTERS)
    return labels, hdf5.create_planes(file, "confidence", np.uint8, (count, *canvas), 0, **FILTERS)


def _write_images(
    file: h5py.File, names: Sequence[str], shapes: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]
) -> None:
    hdf5.write_names(file, "images", names)
    file["shapes"] = shapes
    file["counts"] = counts


def _padded(plane: Labels, canvas: tuple[int, int], fill: int) -> Labels:
    """The plane in the upper left of a canvas; written whole, so that every chunk exists and can be copied."""
    height, width = plane.shape
    return np.pad(plane, ((0, canvas[0] - height), (0, canvas[1] - width)), constant_values=fill)


@dataclass(frozen=True, eq=False)
class _Images:
    """What is known of the images of all shards: `shapes` (N, 2), `counts` of labeled pixels (N, C)."""

    names: list[str]
    shapes: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    canvas: tuple[int, int]
    model: str


def _together(shards: Sequence[Path], predictions: Sequence[Path]) -> _Images:
    """The images of shards that belong together."""
    if not predictions or len(shards) != len(predictions):
        raise UserError(f"{len(shards)} shards of labels for {len(predictions)} shards of predictions")
    names, shapes, counts = [], [], []
    canvases: dict[tuple[int, int], Path] = {}
    models: dict[str, Path] = {}
    for path, prediction in zip(shards, predictions, strict=True):
        with Predictions(prediction) as source, SHARD.open(path) as shard:
            if hdf5.read_names(shard, "images") != source.images:
                raise UserError(f"{path}: has other images than {prediction}; run label again")
            names += source.images
            shapes.append(source.shapes)
            counts.append(shard["counts"][:])
            canvases[shard["label"].shape[1:]] = path
            models[str(source.attributes.get("model", ""))] = prediction
    canvas, model = _only(canvases, "canvas"), _only(models, "model")
    return _Images(names, np.concatenate(shapes), np.concatenate(counts), canvas, model)


def _only(found: dict[Any, Path], what: str) -> Any:
    """The one value that all shards agree on."""
    if len(found) > 1:
        said = ", ".join(f"{value} in {path}" for value, path in found.items())
        raise UserError(f"the shards differ in their {what}: {said}; run predict again for all of them")
    return next(iter(found))


def _copy(shards: Sequence[Path], planes: h5py.Dataset) -> None:
    """Copy the chunks that all shards have under this dataset's name, in order."""
    first = 0
    for path in shards:
        with SHARD.open(path) as shard:
            hdf5.copy_chunks(shard[planes.name], planes, first)
            first += len(shard[planes.name])


def _attributes(settings: LabelSettings, model: str, classes: pd.DataFrame) -> dict[str, Any]:
    select = settings.select
    divergence, left_out = kl_divergence(classes["prior"].to_numpy(), classes["pixels"].to_numpy(), select.classes)
    return {
        "method": select.policy.name,
        "round": settings.round,
        "portion": math.nan if select.portion is None else select.portion,
        "seed": settings.seed,
        "classes": json.dumps(list(select.classes)),
        "settings": settings.model_dump_json(),
        "model": model,
        "kl_divergence": divergence,
        "kl_left_out": json.dumps(left_out),
    }
