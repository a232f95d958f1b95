"""All figures of a report, each under the section of the page that shows it: the page and Snakemake's report take
theirs from here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from selftrain.calibrate import RELIABILITY_COLUMNS
from selftrain.data.tables import STATISTICS, read_classes
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.report.figures import training
from selftrain.report.figures.calibration import reliability_figure
from selftrain.report.figures.models import Node, models_figure
from selftrain.report.figures.pseudo_labels import Confidence, confidence_figure, places_figure, shares_figure
from selftrain.report.figures.scores import curves_figure, gains_figure, seeds_figure, sizes_figure
from selftrain.report.results import Results, last_of_first_seed
from selftrain.report.tables import last_rounds
from selftrain.settings.report import TaskReport
from selftrain.written import read_table

NOT_LOSSES = ["step", "learning_rate", "images_per_second", "seed", "round", "at", *training.SHARES]


@dataclass(frozen=True)
class Drawing:
    """A figure yet to be drawn.

    Attributes:
        section: of the page; the folder of its file.
        name: of its file, without an ending.
        title: what stands over it.
        label: what it shows, for who cannot see it.
        draw: makes it.
    """

    section: str
    name: str
    title: str
    label: str
    draw: Callable[[], Figure]


def drawings(results: Results, task: TaskReport) -> Iterator[Drawing]:
    """Everything that can be drawn of a task, in the order of the page."""
    yield from _scores(results, task)
    yield from _data(task)
    yield from _pseudo_labels(results, task)
    yield from _calibration(task)
    yield from _training(results, task)
    yield Drawing(
        "models",
        "models",
        task.name,
        f"the models of {task.name}, and which started from which",
        partial(models_figure, _nodes(results, task)),
    )


def _scores(results: Results, task: TaskReport) -> Iterator[Drawing]:
    # Where nothing is labeled there is nothing to measure.
    summary = results.summary[(results.summary.task == task.name) & results.summary.miou.notna()]
    for split, of in summary.groupby("split", sort=False):
        yield Drawing("scores", str(split), str(split), f"mIoU over rounds on {split}", partial(curves_figure, of))
    if summary.seed.nunique() > 1:
        for split, of in last_rounds(summary).groupby("split", sort=False):
            label = f"mIoU of each seed on {split}"
            yield Drawing("seeds", str(split), f"{split}, each seed", label, partial(seeds_figure, of))
    bounds = results.upper_bounds(task)
    for name, split in bounds[["experiment", "split"]].drop_duplicates().itertuples(index=False):
        of = bounds[(bounds.experiment == name) & (bounds.split == split)]
        draw = partial(gains_figure, of, task.classes)
        yield Drawing("gains", f"{name}-{split}", f"{name} on {split}", f"gains of {name} on {split}", draw)
    objects = results.by_size(task)
    for split in objects.split.unique() if len(objects) else []:
        draw = partial(sizes_figure, objects[objects.split == split])
        yield Drawing("sizes", str(split), str(split), f"accuracy by object size on {split}", draw)


def _data(task: TaskReport) -> Iterator[Drawing]:
    if task.statistics is not None:
        label = "how often each place of the labeled images shows each class"
        yield Drawing("places", "labeled", "labeled", label, partial(_places, task))


def _places(task: TaskReport) -> Figure:
    with STATISTICS.open(str(task.statistics)) as file:
        return places_figure(file["frequency"][:], task.classes)


def _pseudo_labels(results: Results, task: TaskReport) -> Iterator[Drawing]:
    labels = results.pseudo_labels[results.pseudo_labels.task == task.name]
    if labels.empty:
        return
    seen = labels[["share", "prior"]].to_numpy(float)
    lowest = float(10 ** np.floor(np.log10(seen[seen > 0].min()))) if (seen > 0).any() else 1e-3
    truth = None if task.truth_classes is None else _shares_of(task.truth_classes, task.classes)
    for name, of in labels.groupby("experiment", sort=False):
        draw = partial(shares_figure, of, task.classes, lowest, truth)
        yield Drawing("shares", str(name), str(name), f"class shares of {name}", draw)
    for one, path in last_of_first_seed(results.rounds(task), "pseudo_labels.h5"):
        title = f"{one.experiment}, round {one.round}"
        label = f"histograms of confidence of {title}, by class, with the cut"
        yield Drawing("confidence", one.experiment, title, label, partial(_confidence, path, task))


def _shares_of(classes_csv: str, classes: Sequence[str]) -> dict[str, float]:
    table = read_classes(classes_csv, classes)
    return dict(zip(table["class"], table.share, strict=True))


def _confidence(path: Path, task: TaskReport) -> Figure:
    labels = PseudoLabels(path)
    return confidence_figure(Confidence.of(labels.histogram, labels.cut), task.classes)


def _calibration(task: TaskReport) -> Iterator[Drawing]:
    for one in task.calibrations:
        title = f"{one.model}, {one.mode}"
        draw = partial(_reliability, one.reliability)
        name = f"{one.model.replace('/', '-')}-{one.mode}"
        yield Drawing("calibration", name, title, f"reliability of {title}, before and after calibration", draw)


def _reliability(file: str) -> Figure:
    return reliability_figure(read_table(file, RELIABILITY_COLUMNS))


def _training(results: Results, task: TaskReport) -> Iterator[Drawing]:
    curves = results.curves[results.curves.task == task.name]
    terms = [str(name) for name in curves.select_dtypes("number") if name not in NOT_LOSSES]
    limits = _limits(curves[terms])
    for name, of in curves.groupby("experiment", sort=False):
        draw = partial(training.training_figure, of, terms, limits)
        yield Drawing("training", str(name), str(name), f"training curves of {name}", draw)


def _limits(losses: pd.DataFrame) -> tuple[float, float]:
    """A range that holds all losses above zero, on a log axis."""
    values = losses.to_numpy(float)
    seen = values[np.isfinite(values) & (values > 0)]
    return (seen.min() / 1.3, seen.max() * 1.6) if len(seen) else (0.1, 1)


def _nodes(results: Results, task: TaskReport) -> list[Node]:
    """The trainings of the first seed, each once."""
    rounds = results.rounds(task)
    first = [one for one in rounds if one.seed == rounds[0].seed]
    before = {one.experiment: Path(one.folder).parent.name for one in first if one.round == 0}
    nodes = {}
    for one in first:
        manifest = results.manifests[one.folder]
        start = "start" in manifest.get("inputs", {})
        seconds = float(manifest.get("seconds", "nan"))
        note = f"{seconds:,.0f} s" if np.isfinite(seconds) else ""
        name = before[one.experiment] if one.round == 0 else one.experiment
        nodes[one.folder] = Node(name, one.round, before[one.experiment], start, note)
    return list(nodes.values())
