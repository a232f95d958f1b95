"""index.html: one page that opens from disk. Its text, style and script are page.html, page.css and page.js."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from selftrain import artifacts
from selftrain.evaluate.groups import Groups, read_groups
from selftrain.progress import followed
from selftrain.report import alarms, browser, pictures, tables
from selftrain.report.calibration import calibration_table
from selftrain.report.figures import style
from selftrain.report.gallery import drawings
from selftrain.report.results import Results, read_results
from selftrain.report.tables import Table
from selftrain.settings.report import ReportSettings, TaskReport

HERE = Path(__file__).parent
MANY = 8
"""Experiments from which on long tables, and figures of one experiment each, begin folded."""
SHOWN = 8
"""Alarms of a task beyond which the rest of them begins folded."""

Figures = dict[str, list[tuple[str, Markup]]]
"""By section: titles, and the figures as markup."""


def write_report(settings: ReportSettings, summary: Path, output: Path) -> None:
    """Write the page and, beside it, the folders `figures` and `images`.

    Args:
        settings: the tasks and rounds to tell of.
        summary: summary.csv.
        output: the page; it needs no network and, unless there are too many images for one file, no other file. The
            figures are on it, and in their folder as SVG files, by task and section; the images are on it or, where
            they are too many, in their folder, which is empty else.
    """
    results = read_results(settings, summary)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    # The folders get their names when all is there, and the page, which is of them, after them.
    with (
        artifacts.writing(output) as page,
        artifacts.writing_folder(output.with_name("figures")) as figures,
        artifacts.writing_folder(output.with_name("images")) as images,
    ):
        drawn, browsers = _draw(results, figures), browser.browsers(results, images)
        text = _template().render(
            tasks=[TaskSection(results, task, drawn[task.name]) for task in settings.tasks],
            rounds=any(one.offline for one in settings.rounds),
            versions=tables.versions(results),
            runs=tables.runs_table(results),
            settings={name: json.dumps(one.get("settings", {}), indent=1) for name, one in results.manifests.items()},
            many=MANY,
            shown=SHOWN,
            style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            browsers={one["task"]: one for one in browsers},
            told={"tasks": browsers, "ramp": browser.ramp()},
        )
        page.write_text(text, encoding="utf-8")


def _draw(results: Results, folder: Path) -> dict[str, Figures]:
    """Draw every figure once, for the page and for a file of its own below a folder."""
    drawn: dict[str, Figures] = {task.name: defaultdict(list) for task in results.settings.tasks}
    wanted = [(task, one) for task in results.settings.tasks for one in drawings(results, task)]
    for task, one in followed(wanted, "draw", len(wanted)):
        svg = style.svg(one.draw(), one.label)
        drawn[task.name][one.section].append((one.title, style.inline(svg, one.label)))
        file = folder / task.name / one.section / f"{one.name}.svg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(svg, encoding="utf-8")
    return drawn


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


@dataclass(frozen=True, eq=False)
class TaskSection:
    """What the page shows of one task; each attribute is a part of it."""

    results: Results
    task: TaskReport
    figures: Figures

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @cached_property
    def experiments(self) -> list[str]:
        """Their names, and those of pretrainings that stand alone."""
        return list(dict.fromkeys(one.experiment for one in self.results.rounds(self.task)))

    @cached_property
    def alarms(self) -> list[alarms.Line]:
        """What looks wrong, seen without any truth."""
        return alarms.lines(self.results, self.task)

    @cached_property
    def summary(self) -> Table:
        """MIoU by round."""
        summary = self.results.summary
        return tables.summary_table(summary[summary.task == self.task.name], self.oracles)

    @cached_property
    def oracles(self) -> list[str]:
        """The experiments that may have learned from hidden truth."""
        return list(dict.fromkeys(one.experiment for one in self.results.rounds(self.task) if one.oracle))

    @cached_property
    def classes(self) -> list[Table]:
        """A table per split."""
        iou = self.results.iou
        splits = iou[iou.task == self.task.name].split.unique()
        return [tables.class_table(self.results, self.task, split) for split in splits]

    @cached_property
    def groups(self) -> Groups:
        """Which classes are in which group by frequency and size."""
        return read_groups(self.task.labeled, self.task.classes, self.task.groups) if self.task.labeled else {}

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
    def strips(self) -> list[pictures.Strip]:
        """What trainings made of unlabeled images, step by step."""
        return pictures.strips(self.results, self.task)

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Classes and colors."""
        return pictures.legend(self.task)
