"""What pseudo-labels and predictions say of each class and image; what other portions would select."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from selftrain.agreement import agreeing
from selftrain.alarms import kinds
from selftrain.confidence import BINS, log_odds_of, probability_of
from selftrain.errors import UserError
from selftrain.evaluate.tables import SCORES
from selftrain.label.pseudo_labels import FORMAT, PseudoLabels
from selftrain.predict.store import Predictions
from selftrain.preview.file import Preview
from selftrain.select.cut import Counts, at_or_above, kl_divergence
from selftrain.select.policies import decide, has_fixed_threshold
from selftrain.settings.selection import LabelSettings
from selftrain.written import read_table


def of_pseudo_labels(path: Path, images: bool, portions: Sequence[float]) -> pd.DataFrame:
    """Per class, with scores and alarms where they are beside the file; or per image; or of other portions."""
    labels = PseudoLabels(path)
    if portions:
        return select_portions(labels, portions)
    return labels.images if images else _with_alarms(_with_scores(labels), labels.path)


def _with_scores(labels: PseudoLabels) -> pd.DataFrame:
    """The classes of pseudo-labels; with what is known of them from hidden truth, where it was scored beside them."""
    unknown = ["weak_images"] * (labels.weak_labels is None) + ["filtered", "agreeing"] * (labels.branches == 1)
    table = labels.classes.drop(columns=unknown)
    scores = labels.path.with_name("pseudo_label_scores.csv")
    if not scores.is_file():
        return table
    of_classes = read_table(scores, SCORES)[1:]  # the first row is over all
    known = of_classes.drop(columns=["pixels", "correct"]).dropna(axis=1, how="all")
    return table.merge(known, on="class")


def _with_alarms(table: pd.DataFrame, labels: Path) -> pd.DataFrame:
    """The kinds of alarms that were raised about each class, where the table of alarms is beside its labels."""
    alarms = labels.with_name("alarms.csv")
    if not alarms.is_file():
        return table
    kinds_of = read_table(alarms, kinds.COLUMNS, empty=True).groupby("class").alarm.agg(", ".join)
    return table.assign(alarms=table["class"].map(kinds_of).fillna(""))


def of_predictions(path: Path, images: bool) -> pd.DataFrame:
    """Per class the predicted pixels (without filtered ones), the median confidence and, of a network with branches,
    the share of pixels on which they agree (as many as a filter asks for, else all); or the images and their sizes."""
    with Predictions(path) as shard:
        if images:
            sizes = {"height": shard.shapes[:, 0], "width": shard.shapes[:, 1]}
            return pd.DataFrame({"image": shard.images, **sizes})
        histograms, classes = shard.histogram(), shard.classes
        agree = {"agreeing": agreeing(shard.votes(), shard.least_agreement)} if shard.branches > 1 else {}
    predicted = histograms.sum(1)
    reaching = at_or_above(histograms) >= np.maximum(1, predicted[:, None] / 2)
    median = reaching.sum(1) - 1
    return pd.DataFrame(
        {
            "class": classes,
            "predicted": predicted,
            "predicted_share": predicted / max(1, predicted.sum()),
            "median_log_odds": np.where(predicted, log_odds_of(median), np.nan),
            "median_probability": np.where(predicted, probability_of(median), np.nan),
        }
        | agree
    )


def of_preview(path: Path, images: bool) -> pd.DataFrame:
    """Per class its share of the pixels that each model predicts; or the images, by what they were chosen."""
    with Preview(path) as preview:
        if images:
            height, width = preview.shapes.T
            worth = {"mean_confidence": preview.worth.confidence, "rarity": preview.worth.rarity}
            return pd.DataFrame({"image": preview.images, "height": height, "width": width, **worth})
        table = pd.DataFrame({"class": preview.classes})
        for folder in preview.models:
            predicted = [preview.predicted(folder, position).ravel() for position in range(len(preview.images))]
            pixels = np.bincount(np.concatenate(predicted), minlength=len(table))[: len(table)]
            table[folder] = pixels / max(1, pixels.sum())
        return table


def select_portions(labels: PseudoLabels, portions: Sequence[float]) -> pd.DataFrame:
    """What each portion would select under the policy of these pseudo-labels.

    One row per class: `class`, `prior`, and for each portion p the columns `p pixels` (expected), `p share` (of all
    selected pixels) and `p threshold` (probability; empty where nothing is selected).
    """
    with FORMAT.telling(labels.path):
        settings = LabelSettings.model_validate_json(labels.attributes["settings"]).select
    if has_fixed_threshold(settings):
        raise UserError(f"{labels.path}: was selected by a fixed threshold, which no portion changes")
    if not all(0 <= portion <= 1 for portion in portions):
        raise UserError(f"portions are numbers from 0 to 1, not {', '.join(f'{portion:g}' for portion in portions)}")
    prior = labels.cut["prior"].to_numpy()
    table = pd.DataFrame({"class": labels.class_names, "prior": prior})
    for portion in portions:
        cut = decide(settings.model_copy(update={"portion": portion}), labels.histogram, prior)
        pixels: Counts = cut.kept(labels.histogram)
        table[f"{portion:g} pixels"] = pixels
        table[f"{portion:g} share"] = pixels / max(1, pixels.sum())
        table[f"{portion:g} threshold"] = np.where(cut.threshold < BINS, probability_of(cut.threshold), np.nan)
    return table


def divergences(table: pd.DataFrame) -> list[str]:
    """What there is to say of KL(prior || shares of labels), in nats, of a table that `inspect` made.

    Of pseudo-labels it is about their pixels, of a cut about the pixels that it is expected to keep, of portions the
    same for each; classes without pixels are left out, and named (DARS Table 5). Other tables say nothing of it.
    """
    if not {"class", "prior"} <= set(table):
        return []
    if "kept_fraction" in table and "selected" in table:
        pixels = {"KL(prior || labels), expected": (table.selected * table.kept_fraction).round()}
    elif "pixels" in table:
        pixels = {"KL(prior || labels)": table.pixels}
    else:
        portions = [name.removesuffix(" pixels") for name in map(str, table) if name.endswith(" pixels")]
        pixels = {f"KL(prior || labels) at portion {one}, expected": table[f"{one} pixels"] for one in portions}
    return [_divergence(title, table, of.to_numpy(np.int64)) for title, of in pixels.items()]


def _divergence(title: str, table: pd.DataFrame, pixels: Counts) -> str:
    value, left_out = kl_divergence(table.prior.to_numpy(float), pixels, table["class"].to_list())
    said = f"{value:.2e}" if np.isfinite(value) else "no class has pixels"
    return f"{title}: {said}" + (f" (without pixels: {', '.join(left_out)})" if left_out else "")
