"""The summary: one row per task, experiment, seed, round and evaluation split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from selftrain import artifacts
from selftrain.evaluate.tables import METRICS, SCORES
from selftrain.label.pseudo_labels import CLASS_COLUMNS
from selftrain.settings.report import RoundReport, SummarySettings
from selftrain.written import read_table

COLUMNS = [
    "task",
    "experiment",
    "seed",
    "round",
    "split",
    "miou",
    "pixel_accuracy",
    "gain",
    "labeled_share",
    "pseudo_label_accuracy",
]


def write_summary(settings: SummarySettings, output: Path) -> None:
    """Write summary.csv from the tables beside each model."""
    artifacts.write_csv(output, summarize(settings))


def summarize(settings: SummarySettings) -> pd.DataFrame:
    """The summary; `gain` is over the same seed's round 0, shares are from 0 to 1."""
    table = pd.concat([_rows(one) for one in settings.rounds], ignore_index=True)
    start = table[table["round"] == 0].set_index(["task", "experiment", "seed", "split"]).miou
    keys = pd.MultiIndex.from_frame(table[["task", "experiment", "seed", "split"]])
    table["gain"] = table.miou - start.reindex(keys).to_numpy()
    return table[COLUMNS]


def _rows(one: RoundReport) -> pd.DataFrame:
    folder = Path(one.folder)
    metrics = read_table(folder / "metrics.csv", METRICS)
    means = metrics[metrics.metric.isin(["miou", "pixel_accuracy"])]
    rows = means.pivot(index="split", columns="metric", values="value").reindex(means.split.unique()).reset_index()
    of_round = one.model_dump(include={"task", "experiment", "seed", "round"})
    return rows.assign(**of_round, **_pseudo_labels(one))


def _pseudo_labels(one: RoundReport) -> dict[str, float | None]:
    """What is known of the pseudo-labels a round was trained on."""
    if not one.offline:
        return {"labeled_share": None, "pseudo_label_accuracy": None}
    folder = Path(one.folder)
    table = read_table(folder / "pseudo_labels.csv", CLASS_COLUMNS)
    labeled, available = table.pixels.sum(), (table.predicted + table.filtered).sum()
    right = read_table(folder / "pseudo_label_scores.csv", SCORES).accuracy[0] if one.scored else None
    return {"labeled_share": labeled / available if available else 0.0, "pseudo_label_accuracy": right}
