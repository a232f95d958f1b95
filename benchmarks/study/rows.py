"""The rows of the study: which there are, which of them are measured, and the file that holds those."""

from __future__ import annotations

import csv
import io
import json
import logging
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from chain import Chain

from selftrain import artifacts
from selftrain.errors import UserError
from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.select.cut import kl_divergence
from selftrain.settings.base import Settings

VERSION = 1
"""Of the study. To be raised when a change of code makes other results than those that are there, whose rows then
count as missing; a digest holds this number and the settings, not the code."""

COLUMNS = (
    "digest",
    "task",
    "experiment",
    "seed",
    "steps",
    "val_miou",
    "val_pixel_accuracy",
    "test_miou",
    "test_pixel_accuracy",
    "test_iou",
    "pseudo_labels_right",
    "pseudo_labels_kl",
    "cpu_minutes",
    "gpu_minutes",
    "device",
    "python",
    "torch",
    "timm",
    "commit",
    "date",
)
"""Of the file; docs/data/README.md says what each is."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A model that is trained and scored: a pretraining, or the last round of an experiment."""

    graph: Graph
    experiment: str
    model: Model

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model.task} {self.experiment} seed {self.model.seed}"

    @cached_property
    def digest(self) -> str:
        """Of everything that determines the result and is set: of no path of a machine, and of nothing but the defaults
        that a config leaves out, so that a new key of the settings leaves the digests as they are."""
        graph, model = self.graph, self.model
        config = graph.config
        task = _told(config.tasks[model.task], without={"colors", "review", "subsets", "groups"})
        pretrain = _told(graph.pretraining(model), without={"tasks"})
        if "weights" in pretrain.get("model", {}):
            pretrain["model"]["weights"] = Path(pretrain["model"]["weights"]).name
        without = {"pretrain", "tasks", "upper_bound"}
        experiment = _told(graph.experiment(model), without=without) if model.round else None
        evaluation = _told(config.evaluation, without=set())
        return artifacts.digest([VERSION, model.seed, model.round, task, pretrain, experiment, evaluation])

    @property
    def steps(self) -> int:
        """Of all trainings behind it, one after the other."""
        graph, model, steps = self.graph, self.model, 0
        while True:
            steps += round((graph.train(model).train.steps or 0) * graph.train(model).train.length_factor)
            if "start" not in graph.train_files(model) or model.round == 0:
                return steps
            model = graph.before(model)

    def measure(self) -> dict[str, Any]:
        """Make the model and whatever it is made from, unless it is there, and score it: a row of the file.

        Raises:
            UserError: of a stage.
        """
        chain = Chain(self.graph, version=VERSION, owner=self.digest)
        metrics = pd.read_csv(chain.evaluated(self.model))
        manifest = json.loads(Path(self.graph.model_path(self.model, "manifest.json")).read_text())
        on_gpu = manifest["device_name"] != "cpu"
        return {
            "digest": self.digest,
            "task": self.model.task,
            "experiment": self.experiment,
            "seed": self.model.seed,
            "steps": self.steps,
            **_scores(metrics),
            **self._pseudo_labels(),
            "cpu_minutes": round(chain.spent["cpu_seconds"] / 60, 2),
            "gpu_minutes": round(chain.spent["seconds"] / 60, 2) if on_gpu else 0,
            "device": manifest["device_name"] if on_gpu else f"{platform.machine()}, {manifest['threads']} thread(s)",
            "python": manifest["python"],
            "torch": manifest["packages"]["torch"],
            "timm": manifest["packages"]["timm"],
            "commit": manifest["commit"] or "",
            "date": datetime.now(UTC).date().isoformat(),
        }

    def _pseudo_labels(self) -> dict[str, Any]:
        """How right those of round 1 are, and how far their shares from the prior: all select from one model there."""
        if not self.graph.is_offline(self.model):
            return {"pseudo_labels_right": "", "pseudo_labels_kl": ""}
        first = Model(self.model.task, self.model.name, self.model.seed, 1)
        table = pd.read_csv(self.graph.model_path(first, "pseudo_labels.csv"))
        divergence, _ = kl_divergence(table.prior.to_numpy(), table.pixels.to_numpy(), table["class"].to_list())
        scores = Path(self.graph.model_path(first, "pseudo_label_scores.csv"))
        right = round(pd.read_csv(scores).accuracy[0], 5) if scores.is_file() else ""
        return {"pseudo_labels_right": right, "pseudo_labels_kl": float(f"{divergence:.4g}")}


def _told(settings: Settings, without: set[str]) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude_unset=True, exclude=without)


def _scores(metrics: pd.DataFrame) -> dict[str, Any]:
    """Of the splits `val` and `test`, from 0 to 1; the IoU of each class on `test` in the order of the classes."""
    values = metrics[metrics.metric.isin(["miou", "pixel_accuracy"])].set_index(["split", "metric"]).value
    told = {
        f"{split}_{metric}": round(value, 5) for (split, metric), value in values.items() if split in ("val", "test")
    }
    each = metrics[(metrics.split == "test") & (metrics.metric == "iou")].value
    return told | {"test_iou": " ".join("-" if pd.isna(value) else f"{value:.4f}" for value in each)}


def planned(configs: Sequence[Path], over: Sequence[Path] = ()) -> list[Row]:
    """All rows, the most important first: config by config, seed by seed, task by task, in the order of the file.

    Args:
        configs: config files.
        over: config files whose values go over those of each.

    Raises:
        UserError: a config is wrong.
    """
    rows: dict[str, Row] = {}
    for path in configs:
        graph = Graph.load(path, *over)
        for row in sorted(_of(graph), key=lambda row: _place(graph, row)):
            rows.setdefault(row.digest, row)
    return list(rows.values())


def _of(graph: Graph) -> Iterator[Row]:
    """A row per pretraining, and one per experiment, of its last round."""
    yield from (Row(graph, model.name, model) for model in graph.pretrained)
    last = {(model.task, model.name, model.seed): model for model in graph.rounds}
    yield from (Row(graph, model.name, model) for model in last.values())


def _place(graph: Graph, row: Row) -> tuple[int, int]:
    return row.model.seed, list(graph.config.tasks).index(row.model.task)


def read(file: Path) -> pd.DataFrame:
    """The rows that are measured; none where there is no file yet.

    Raises:
        UserError: the file has other columns, or a row twice.
    """
    if not file.is_file():
        return pd.DataFrame(columns=COLUMNS)
    with file.open(newline="") as text:
        header = next(csv.reader(text), [])
    if header != list(COLUMNS):
        raise UserError(
            f"{file}: its header is {','.join(header)}, not {','.join(COLUMNS)}; "
            "bring it into this form, or take another file with --csv"
        )
    table = pd.read_csv(file, dtype={"digest": str, "commit": str, "test_iou": str})
    twice = table.digest[table.digest.duplicated()]
    if not twice.empty:
        raise UserError(f"{file}: the digest {twice.iloc[0]} is there twice; take one of the two rows out")
    return table


def append(file: Path, row: dict[str, Any]) -> None:
    """Add a row to the file, which is always whole; one that is there is left as it is.

    Raises:
        UserError: the file has other columns.
    """
    if row["digest"] in set(read(file).digest):
        return
    text = file.read_text() if file.is_file() else ",".join(COLUMNS) + "\n"
    line = io.StringIO()
    csv.DictWriter(line, COLUMNS, lineterminator="\n").writerow(row)
    artifacts.write_text(file, text + line.getvalue())


def missing(rows: Iterable[Row], measured: pd.DataFrame) -> list[Row]:
    """Those that are not in the file, in their order."""
    there = set(measured.digest)
    return [row for row in rows if row.digest not in there]
