"""The select stage: from the histograms of all predictions to cut.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from selftrain import artifacts
from selftrain.confidence import BINS, log_odds_of, probability_of
from selftrain.data.tables import read_classes
from selftrain.predict.store import read_histograms
from selftrain.select.cut import COLUMNS, Counts, Cut
from selftrain.select.policies import decide
from selftrain.settings.selection import SelectSettings


def select(
    settings: SelectSettings,
    predictions: Sequence[Path],
    classes_csv: Path,
    cut: Path,
) -> None:
    """Decide what to keep, and write it as one row per class.

    Args:
        settings: classes, policy and portion.
        predictions: all shards; only their histograms are read, so memory does not grow with the images.
        classes_csv: the labeled split's statistics; its `share` is the prior, its `mean_size` is handed on.
        cut: the table to write, with the columns of `selftrain.select.cut.COLUMNS`.
    """
    labeled = read_classes(classes_csv, settings.classes)
    histograms = read_histograms(predictions, settings.classes)
    decided = decide(settings, histograms, labeled.share.to_numpy())
    artifacts.write_csv(cut, describe(labeled, histograms, decided))


def describe(labeled: pd.DataFrame, histograms: Counts, cut: Cut) -> pd.DataFrame:
    """The cut as a table, one row per class; the threshold is empty where nothing is kept."""
    predicted = histograms.sum(1)
    none = cut.threshold == BINS
    columns = {
        "class": labeled["class"],
        "predicted": predicted,
        "predicted_share": predicted / max(1, predicted.sum()),
        "prior": labeled.share,
        "mean_size": labeled.mean_size,
        "target": cut.target,
        "threshold_bin": cut.threshold,
        "threshold_log_odds": np.where(none, np.nan, log_odds_of(cut.threshold)),
        "threshold_probability": np.where(none, np.nan, probability_of(cut.threshold)),
        "selected": cut.selected(histograms),
        "kept_fraction": cut.kept_fraction,
    }
    return pd.DataFrame(columns, columns=list(COLUMNS))
