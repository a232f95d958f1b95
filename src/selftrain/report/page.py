"""index.html: one page that stands alone. Its text and style are in page.html, beside this file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from selftrain import artifacts
from selftrain.evaluate.groups import Groups, read_groups
from selftrain.report import alarms, pictures, plots, tables
from selftrain.report.calibration import calibration_table
from selftrain.report.results import Results, read_results
from selftrain.report.tables import Table
from selftrain.settings.report import ReportSettings, TaskReport

MANY = 6
"""Rows of experiments from which on a long table begins folded."""
SHOWN = 8
"""Alarms of a task beyond which the rest of them begins folded."""
NOT_LOSSES = ["step", "learning_rate", "images_per_second", "seed", "round", "at", *plots.SHARES]

Figures = list[tuple[str, Markup]]
"""Captions, and the pictures as markup."""


def write_report(settings: ReportSettings, summary: Path, output: Path) -> None:
    """Write the page.

    Args:
        settings: the tasks and rounds to tell of.
        summary: summary.csv.
        output: the page; it needs no other file and no network.
    """
    results = read_results(settings, summary)
    runs = {folder: json.dumps(one.get("settings", {}), indent=1) for folder, one in results.manifests.items()}
    page = _template().render(
        tasks=[TaskSection(results, task) for task in settings.tasks],
        rounds=any(one.offline for one in settings.rounds),
        versions=tables.versions(results),
        runs=tables.runs_table(results),
        settings=runs,
        many=MANY,
        shown=SHOWN,
    )
    with artifacts.writing(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


@dataclass(frozen=True, eq=False)
class TaskSection:
    """What the page shows of one task; each attribute is a part of it."""

    results: Results
    task: TaskReport

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @cached_property
    def alarms(self) -> list[alarms.Line]:
        """What looks wrong, seen without any truth."""
        return alarms.lines(self.results, self.task)

    @cached_property
    def summary(self) -> Table:
        """MIoU by round."""
        return tables.summary_table(self._of(self.results.summary), self.oracles)

    @cached_property
    def oracles(self) -> list[str]:
        """The experiments that may have learned from hidden truth."""
        return list(dict.fromkeys(one.experiment for one in self.results.rounds(self.task) if one.oracle))

    @cached_property
    def scores(self) -> Figures:
        """A figure per split."""
        summary = self._of(self.results.summary)
        return [
            (str(split), plots.inline(plots.scores_figure(of), f"mIoU over rounds on {split}"))
            for split, of in summary.groupby("split", sort=False)
        ]

    @cached_property
    def classes(self) -> list[Table]:
        """A table per split."""
        splits = self._of(self.results.iou).split.unique()
        return [tables.class_table(self.results, self.task, split) for split in splits]

    @cached_property
    def groups(self) -> Groups:
        """Which classes are in which group by frequency and size."""
        return read_groups(self.task.labeled, self.task.classes, self.task.groups) if self.task.labeled else {}

    @cached_property
    def gains(self) -> Figures:
        """A figure per experiment with an upper bound and split."""
        bounds = self.results.upper_bounds(self.task)
        return [
            (
                f"{name} on {split}",
                plots.inline(plots.gains_figure(of, self.task.classes), f"gains of {name} on {split}"),
            )
            for (name, split), of in bounds.groupby(["experiment", "split"], sort=False)
        ]

    @cached_property
    def sizes(self) -> Figures:
        """A figure per split."""
        objects = self.results.by_size(self.task)
        if objects.empty:
            return []
        return [
            (str(split), plots.inline(plots.sizes_figure(of), f"accuracy by object size on {split}"))
            for split, of in objects.groupby("split", sort=False)
        ]

    @cached_property
    def selection(self) -> Table:
        """What each round was trained on."""
        return tables.selection_table(self.results, self.task)

    @cached_property
    def thresholds(self) -> Table:
        """Thresholds and kept fractions."""
        return tables.threshold_table(self.results, self.task)

    @cached_property
    def weak_labels(self) -> Table:
        """Which classes images were said to show."""
        return tables.weak_label_table(self.results, self.task)

    @cached_property
    def calibration(self) -> Table:
        """How far calibrated probabilities can be trusted."""
        return calibration_table(self.task)

    @cached_property
    def shares(self) -> Figures:
        """A figure per experiment, all on one scale."""
        labels = self._of(self.results.pseudo_labels)
        if labels.empty:
            return []
        seen = labels[["share", "prior"]].to_numpy(float)
        lowest = 10 ** np.floor(np.log10(seen[seen > 0].min())) if (seen > 0).any() else 1e-3
        return [
            (str(name), plots.inline(plots.shares_figure(of, self.task.classes, lowest), f"class shares of {name}"))
            for name, of in labels.groupby("experiment", sort=False)
        ]

    @cached_property
    def training(self) -> Figures:
        """A figure per experiment, all on one scale."""
        curves = self._of(self.results.curves)
        terms = [str(name) for name in curves.select_dtypes("number") if name not in NOT_LOSSES]
        limits = _limits(curves[terms])
        return [
            (str(name), plots.inline(plots.training_figure(of, terms, limits), f"training curves of {name}"))
            for name, of in curves.groupby("experiment", sort=False)
        ]

    @cached_property
    def scenes(self) -> list[pictures.Scene]:
        """A few images."""
        return pictures.scenes(self.results, self.task)

    @cached_property
    def strips(self) -> list[pictures.Strip]:
        """What online trainings made of unlabeled images."""
        return pictures.strips(self.results, self.task)

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Classes and colors."""
        return pictures.legend(self.task)

    def _of(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[table.task == self.task.name]


def _limits(losses: pd.DataFrame) -> tuple[float, float]:
    """A range that holds all losses above zero, on a log axis."""
    values = losses.to_numpy(float)
    seen = values[np.isfinite(values) & (values > 0)]
    return (seen.min() / 1.3, seen.max() * 1.6) if len(seen) else (0.1, 1)
