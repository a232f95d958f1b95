"""The label stage: apply a cut to one shard of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from selftrain import draws, hdf5
from selftrain.confidence import BINS, coarse, log_odds_of
from selftrain.data.review import Reviewed, read_checked, read_mask
from selftrain.errors import UserError
from selftrain.label.layout import MADE, SHARD, Labels, create_planes, made_from, write_images
from selftrain.predict.store import Predictions
from selftrain.progress import followed
from selftrain.select.cut import read_cut
from selftrain.settings.data import IGNORE
from selftrain.settings.selection import LabelSettings

Bins = npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Rule:
    """A cut, by class id: what a label must reach, and which draws keep it. Id 255 reaches nothing."""

    threshold: npt.NDArray[np.int32]
    limit: draws.Draws

    @classmethod
    def of(cls, cut: pd.DataFrame) -> Self:
        """The rule of the table that select wrote."""
        threshold = np.full(IGNORE + 1, BINS, np.int32)
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
        ignored = bins < np.take(self.threshold, classes)
        # 255 has all bits set, so this is np.where(ignored, 255, classes) in a twentieth of its time.
        labels = classes | ignored.view(np.uint8) * np.uint8(IGNORE)
        flat = labels.ravel()
        pixels = np.flatnonzero(np.take(self.limit < draws.ALWAYS, flat))
        dropped = draws.draw(key, pixels) >= np.take(self.limit, flat[pixels])
        flat[pixels[dropped]] = IGNORE
        return labels


def label(
    settings: LabelSettings,
    prediction: Path,
    cut: Path,
    output: Path,
    chosen: Path | None = None,
    review: Path | None = None,
) -> None:
    """Apply the cut to one shard of predictions, an image at a time.

    Args:
        settings: seed, round, and what select was told.
        prediction: the shard.
        cut: the table that select wrote.
        output: an intermediate file, to be joined with the other shards by `merge`.
        chosen: the shard as `choose` made it anew, where classes are chosen relative to the cut.
        review: review.csv of the task, where a person has reviewed images: what it says goes over the cut.
    """
    reviewed = read_checked(review)
    names = settings.select.classes
    rule = Rule.of(read_cut(cut, names))
    with ExitStack() as stack:
        shard = stack.enter_context(Predictions(prediction, names))
        choice = shard if chosen is None else stack.enter_context(_chosen_anew(chosen, shard))
        file = stack.enter_context(SHARD.create(output))
        file.attrs[MADE] = made_from(settings, shard, cut)
        write_images(file, shard.images, shard.shapes)
        counts = file.create_dataset("counts", (len(shard), len(names)), np.int64)
        mean_confidence = file.create_dataset("mean_confidence", (len(shard),), np.float32)
        changed = np.zeros(len(names), np.int64)
        labels, confidence, *agreement = create_planes(file, len(shard), shard.canvas, shard.branches)
        for position, name in enumerate(followed(shard.images, "label", len(shard))):
            classes, bins = choice.read(position)
            kept = rule.apply(classes, bins, draws.image_key(settings.seed, settings.round, name))
            if name in reviewed:
                kept = _as_reviewed(reviewed[name], names, kept)
            counts[position] = _count(kept, len(names))
            mean_confidence[position] = log_odds_of(bins.mean())
            if choice is not shard or name in reviewed:
                changed += _count(kept[kept != shard.read(position)[0]], len(names))
            hdf5.write_plane(labels, position, kept)
            hdf5.write_plane(confidence, position, coarse(bins))
            for planes in agreement:
                hdf5.write_plane(planes, position, shard.agreement(position))
            file.disk.check()
        file["changed"] = changed


def _as_reviewed(told: Reviewed, classes: Sequence[str], labels: Labels) -> Labels:
    """A person's mask, or nothing where the image is left out, in place of labels (h, w)."""
    if told.mask is None:
        return np.full_like(labels, IGNORE)
    return read_mask(told.mask, classes, (labels.shape[0], labels.shape[1]))


def _chosen_anew(chosen: Path, shard: Predictions) -> Predictions:
    """The shard as `choose` made it anew, of the same images and from the same model in the same mode."""
    found = Predictions(chosen, shard.classes)
    other = [key for key in ("model", "mode") if found.attributes.get(key) != shard.attributes.get(key)]
    other += ["images"] if found.images != shard.images or (found.shapes != shard.shapes).any() else []
    if other:
        found.close()
        raise UserError(f"{chosen}: differs in {' and '.join(other)} from {shard.path}; run choose again")
    return found


def _count(labels: Labels, classes: int) -> npt.NDArray[np.int64]:
    """Pixels of each class, (classes,)."""
    return np.bincount(labels.ravel(), minlength=classes)[:classes]
