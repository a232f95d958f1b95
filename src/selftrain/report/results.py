"""What a report tells of: the files beside each model, joined into one table per subject.

Rows keep the order of the config. A name may look like a number or like a missing value ("NA"): names stay text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from selftrain.alarms import kinds
from selftrain.evaluate.tables import METRICS, SCORES, SIZES
from selftrain.label.pseudo_labels import CLASS_COLUMNS, FORMAT
from selftrain.report.summary import COLUMNS
from selftrain.settings.report import ReportSettings, RoundReport, TaskReport
from selftrain.written import read_json, read_table

KEYS = ["task", "experiment", "seed", "round"]
MADE = ("selftrain", "settings")
"""Facts that every manifest has."""


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that was measured; each table begins with task, experiment, seed and round.

    Attributes:
        settings: the tasks and rounds told of.
        summary: summary.csv.
        iou: split, class, value, and `gain` over the same seed's round 0.
        subsets: the same of the mean IoU over subsets of the classes, whose names stand as classes.
        groups: the same of the mean IoU over groups of classes by frequency and size.
        sizes: sizes.csv, one row per split, class and octave of objects' sizes.
        alarms: alarms.csv of every round from 1 on, one row per alarm.
        pseudo_labels: pseudo_labels.csv of every round from 1 on, one row per class.
        scores: pseudo_label_scores.csv where there is hidden truth, per class and, without a class, over all.
        selections: one row per round: policy, portion.
        curves: train.csv, with `at`, the step counted through all rounds.
        manifests: a manifest per model folder, in the order of the rounds.
    """

    settings: ReportSettings
    summary: pd.DataFrame
    iou: pd.DataFrame
    subsets: pd.DataFrame
    groups: pd.DataFrame
    sizes: pd.DataFrame
    alarms: pd.DataFrame
    pseudo_labels: pd.DataFrame
    scores: pd.DataFrame
    selections: pd.DataFrame
    curves: pd.DataFrame
    manifests: dict[str, dict[str, Any]]

    def upper_bounds(self, task: TaskReport) -> pd.DataFrame:
        """Of experiments that name one, after their last round: experiment, seed, split, class, `gain`, and `possible`,
        the upper bound's gain over the same round 0."""
        keys = ["experiment", "seed", "split", "class"]
        of_task = self.iou[self.iou.task == task.name]
        found = []
        for one in self.rounds(task):
            last = max(other.round for other in self.rounds(task) if other.experiment == one.experiment)
            if one.upper_bound is None or one.round < last:
                continue
            mine = of_task[of_task.folder == one.folder].assign(experiment=one.experiment)[[*keys, "value", "gain"]]
            bound = of_task[of_task.folder == one.upper_bound].drop_duplicates(["split", "class"])
            best = bound.set_index(["split", "class"]).value.reindex(pd.MultiIndex.from_frame(mine[["split", "class"]]))
            found.append(mine.assign(possible=best.to_numpy() - (mine.value - mine.gain)))
        return pd.concat(found) if found else pd.DataFrame(columns=[*keys, "gain", "possible"])

    def by_size(self, task: TaskReport) -> pd.DataFrame:
        """How many pixels of objects are right, over all classes and seeds, by octave of the objects' sizes: split,
        model, lower, upper, pixels, correct. Of round 0 of each pretraining, and of each experiment's last round."""
        rows = self.sizes[self.sizes.task == task.name]
        if rows.empty:
            return rows
        start = rows[rows["round"] == 0].drop_duplicates(["folder", "split", "class", "lower"])
        start = start.assign(model=[f"{Path(folder).parent.name}, round 0" for folder in start.folder])
        last = rows[rows["round"] == rows.groupby("experiment")["round"].transform("max")]
        last = last[last["round"] > 0].assign(model=lambda of: of.experiment)
        keys = ["split", "model", "lower", "upper"]
        return pd.concat([start, last]).groupby(keys, sort=False)[["pixels", "correct"]].sum().reset_index()

    def rounds(self, task: TaskReport) -> list[RoundReport]:
        """The rounds of a task."""
        return [one for one in self.settings.rounds if one.task == task.name]


def read_results(settings: ReportSettings, summary: Path) -> Results:
    """Read all that stands beside the models."""
    metrics = _joined(settings, "metrics.csv", METRICS)
    files = {one.folder: Path(one.folder, "manifest.json") for one in settings.rounds}
    return Results(
        settings=settings,
        summary=read_summary(summary),
        iou=_with_gain(metrics, "iou"),
        subsets=_with_gain(metrics, "subset_miou"),
        groups=_with_gain(metrics, "group_miou"),
        sizes=_joined(settings, "sizes.csv", SIZES, empty=True),
        alarms=_joined(settings, "alarms.csv", kinds.COLUMNS, empty=True),
        pseudo_labels=_joined(settings, "pseudo_labels.csv", CLASS_COLUMNS),
        scores=_joined(settings, "pseudo_label_scores.csv", SCORES),
        selections=_selections(settings),
        curves=_in_sequence(_joined(settings, "train.csv", ["step"], empty=True, more=True)),
        manifests={folder: read_json(file, MADE) if file.is_file() else {} for folder, file in files.items()},
    )


def read_summary(path: Path | str) -> pd.DataFrame:
    """Read summary.csv.

    Raises:
        UserError: it is missing or another table.
    """
    return read_table(path, COLUMNS)


def _present(rounds: Sequence[RoundReport], name: str) -> Iterator[tuple[RoundReport, Path]]:
    """The rounds that have a file of this name."""
    for one in rounds:
        path = Path(one.folder, name)
        if one.has(name) and path.is_file():
            yield one, path


def last_of_first_seed(rounds: Sequence[RoundReport], name: str) -> list[tuple[RoundReport, Path]]:
    """Of each experiment's first seed the last round that has a file of this name, and the file."""
    last: dict[str, tuple[RoundReport, Path]] = {}
    for one, path in _present(rounds, name):
        known = last.get(one.experiment)
        if known is None or known[0].seed == one.seed:
            last[one.experiment] = one, path
    return list(last.values())


def _joined(
    settings: ReportSettings, name: str, columns: Sequence[str], *, empty: bool = False, more: bool = False
) -> pd.DataFrame:
    """One kind of table over all rounds; where there is none, an empty one with these columns."""
    tables = []
    for one, path in _present(settings.rounds, name):
        table = read_table(path, columns, empty=empty, more=more)
        for position, key in enumerate([*KEYS, "folder"]):
            table.insert(position, key, getattr(one, key))
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*KEYS, "folder", *columns])


def _with_gain(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    table = metrics[metrics.metric == metric].drop(columns=["metric", "pixels"])
    keys = ["task", "experiment", "seed", "split", "class"]
    start = table[table["round"] == 0].set_index(keys).value
    table["gain"] = table.value - start.reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy()
    return table


def _selections(settings: ReportSettings) -> pd.DataFrame:
    """By which policy, and which portion, each round selected."""
    rows = []
    for one, path in _present(settings.rounds, "pseudo_labels.h5"):
        with FORMAT.open(path) as file:
            portion = file.attrs["portion"]  # NaN where a policy has a fixed threshold
            said = {"policy": str(file.attrs["method"]), "portion": "" if np.isnan(portion) else str(portion)}
        rows.append(one.model_dump(include=set(KEYS)) | said)
    return pd.DataFrame(rows, columns=[*KEYS, "policy", "portion"])


def _in_sequence(curves: pd.DataFrame) -> pd.DataFrame:
    """Add `at`: the step counted on from the end of the round before."""
    if curves.empty:
        return curves.assign(at=[])
    lengths = curves.groupby(KEYS, sort=False).step.max()
    before = lengths.groupby(KEYS[:3], sort=False).cumsum() - lengths
    return curves.assign(at=curves.step + before.reindex(pd.MultiIndex.from_frame(curves[KEYS])).to_numpy())
