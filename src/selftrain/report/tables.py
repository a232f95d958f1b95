"""The report's tables, from numbers to text: what stands in each cell, and how it is colored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from selftrain.report.alarms import alarming, mark
from selftrain.report.results import Results
from selftrain.select.cut import kl_divergence
from selftrain.settings.report import TaskReport

DASH = "–"
"""What stands for a number that does not exist."""
SHARES = {"labeled_share": "labeled, %", "pseudo_label_accuracy": "labels right, %"}
"""Columns of the summary that tell of pseudo-labels, shown where there are any."""


@dataclass(frozen=True)
class Cell:
    """A number as text; smaller lines below it; from 0 to 1 how strongly it is colored; "up", "down" or "best"."""

    text: str
    notes: tuple[str, ...] = ()
    heat: float | None = None
    tone: str = ""


Rows = list[tuple[tuple[str, ...], list[Cell]]]
"""Names, then cells."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; `groups` span columns. `long` headings stand upright."""

    caption: str
    head: tuple[str, ...]
    columns: list[str]
    rows: Rows
    groups: list[tuple[str, int]] | None = None
    long: bool = False


def number(value: float, digits: int = 1, *, sign: bool = False) -> str:
    """A number with a typographic minus; a dash if there is none.

    >>> number(-1.25), number(2, 0, sign=True), number(float("nan"))
    ('−1.2', '+2', '–')
    """
    if not np.isfinite(value):
        return DASH
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def over_seeds(values: Sequence[float] | pd.Series, digits: int = 1, *, scale: float = 100, sign: bool = False) -> str:
    """The mean, in percent unless scaled otherwise; with the sample's standard deviation where there are several.

    >>> over_seeds([0.5]), over_seeds([0.5, 0.52])
    ('50.0', '51.0 ± 1.4')
    """
    known = pd.Series(values, dtype=float).dropna() * scale
    mean = number(known.mean(), digits, sign=sign)
    return f"{mean} ± {number(known.std(), digits)}" if len(known) > 1 else mean


def tone_of(values: Sequence[float] | pd.Series, smallest: float = 0.0005) -> str:
    """Whether a gain is one: "up" or "down", nothing where it rounds to zero."""
    mean = pd.Series(values, dtype=float).mean()
    return "up" if mean >= smallest else "down" if mean <= -smallest else ""


def last_rounds(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each experiment's last round."""
    return table[table["round"] == table.groupby(["task", "experiment"])["round"].transform("max")]


def summary_table(summary: pd.DataFrame, oracles: Collection[str] = ()) -> Table:
    """Of one task: mIoU per round, below it pixel accuracy, and the last round's gain for each split; then what is
    known of pseudo-labels.

    Experiments among `oracles` are marked as such.
    """
    rounds = sorted(summary["round"].unique())
    splits = list(summary.split.unique())
    known = {column: title for column, title in SHARES.items() if summary[column].notna().any()}
    later = [number for number in rounds if number > 0]
    groups = [(f"{split}: mIoU, %", len(rounds) + 1) for split in splits]
    groups += [(title, len(later)) for title in known.values() if later]
    rows: Rows = [
        (
            (_marked(name, name in oracles),),
            [*_scores(of, splits, rounds), *_shares(of, list(known), later)],
        )
        for name, of in summary.groupby("experiment", sort=False)
    ]
    columns = [*([str(one) for one in rounds] + ["gain"]) * len(splits), *[str(one) for one in later] * len(known)]
    _mark_best(rows, [(len(rounds) + 1) * (position + 1) - 1 for position in range(len(splits))])
    return Table("mIoU by round, below it pixel accuracy", ("experiment",), columns, rows, groups)


def _marked(name: object, oracle: bool) -> str:
    return f"{name} (oracle)" if oracle else str(name)


def _scores(of: pd.DataFrame, splits: list[str], rounds: list[int]) -> Iterator[Cell]:
    for split in splits:
        here = of[of.split == split]
        for number_ in rounds:
            of_round = here[here["round"] == number_]
            accuracy = (over_seeds(of_round.pixel_accuracy),) if len(of_round) else ()
            yield Cell(over_seeds(of_round.miou), accuracy)
        last = here[(here["round"] == here["round"].max()) & (here["round"] > 0)].gain
        yield Cell(over_seeds(last, sign=True), tone=tone_of(last))


def _shares(of: pd.DataFrame, known: list[str], rounds: list[int]) -> Iterator[Cell]:
    once = of.drop_duplicates(["seed", "round"])
    for column in known:
        for number_ in rounds:
            yield Cell(over_seeds(once[once["round"] == number_][column]))


def _mark_best(rows: Rows, positions: list[int]) -> None:
    """Set the highest of each of these columns off, if there is something to compare."""
    for position in positions:
        values = [_value(cells[position].text) for _, cells in rows]
        best = max(values)
        for value, (_, cells) in zip(values, rows, strict=True):
            if len(rows) > 1 and value == best and np.isfinite(best):
                cell = cells[position]
                cells[position] = Cell(cell.text, cell.notes, cell.heat, f"{cell.tone} best".strip())


def _value(text: str) -> float:
    first = text.split(" ")[0].replace("−", "-")
    return float("-inf") if first == DASH else float(first)


def class_table(results: Results, task: TaskReport, split: str) -> Table:
    """IoU per class, its mean over all, subsets and groups of classes, and pixel accuracy: round 0 of each pretraining,
    then each experiment's last round with its gain over round 0."""
    here, summary = (of[of.split == split] for of in (_of(results.iou, task), _of(results.summary, task)))
    subsets, groups = (of[of.split == split] for of in (_of(results.subsets, task), _of(results.groups, task)))
    names = tuple(groups["class"].unique())
    oracles = {one.folder for one in results.rounds(task) if one.oracle}
    rows: Rows = []
    start = here[here["round"] == 0].drop_duplicates(["folder", "class"])
    for name, of in start.groupby(start.folder.map(lambda folder: Path(folder).parent.name), sort=False):
        scores = _at(summary, of.experiment.iloc[0], 0)
        cell = Cell(over_seeds(scores.pixel_accuracy))
        title = _marked(name, of.folder.iloc[0] in oracles)
        means = [
            *_subset_cells(subsets, of, task.subsets, gain=False),
            *_subset_cells(groups, of, names, gain=False),
        ]
        mean = _iou_cell(scores.assign(value=scores.miou), gain=False)
        rows.append(((title, "0"), [*_class_cells(of, task.classes, gain=False), mean, *means, cell]))
    last = last_rounds(here)
    for (name, number_), of in last[last["round"] > 0].groupby(["experiment", "round"], sort=False):
        scores = _at(summary, name, number_)
        cell = _accuracy_cell(scores, _at(summary, name, 0))
        title = _marked(name, of.folder.iloc[0] in oracles)
        means = [*_subset_cells(subsets, of, task.subsets, gain=True), *_subset_cells(groups, of, names, gain=True)]
        mean = _iou_cell(scores.assign(value=scores.miou), gain=True)
        rows.append(((title, str(number_)), [*_class_cells(of, task.classes, gain=True), mean, *means, cell]))
    columns = [*task.classes, "mean", *[f"mean of {name}" for name in (*task.subsets, *names)], "pixel accuracy"]
    return Table(f"IoU by class on {split}, %", ("model", "round"), columns, rows, long=True)


def _accuracy_cell(last: pd.DataFrame, start: pd.DataFrame) -> Cell:
    """Pixel accuracy after the last round, and its gain over the same seed's round 0."""
    gain = last.set_index("seed").pixel_accuracy - start.set_index("seed").pixel_accuracy
    return Cell(over_seeds(last.pixel_accuracy), (over_seeds(gain, sign=True),), None, tone_of(gain))


def _class_cells(of: pd.DataFrame, classes: tuple[str, ...], *, gain: bool) -> list[Cell]:
    return [_iou_cell(of[of["class"] == name], gain) for name in classes]


def _subset_cells(subsets: pd.DataFrame, like: pd.DataFrame, names: tuple[str, ...], *, gain: bool) -> list[Cell]:
    """A cell per subset or group, of the models that `like` is about."""
    of = subsets[subsets.folder.isin(like.folder) & subsets.experiment.isin(like.experiment)]
    return [_iou_cell(of[of["class"] == name], gain) for name in names]


def _iou_cell(of: pd.DataFrame, gain: bool) -> Cell:
    mean = of.value.mean()
    notes = (over_seeds(of.gain, sign=True),) if gain else ()
    heat = None if np.isnan(mean) else round(float(mean), 3)
    return Cell(over_seeds(of.value), notes, heat, tone_of(of.gain) if gain else "")


def selection_table(results: Results, task: TaskReport) -> Table:
    """One row per round that made pseudo-labels: how, how many, how right, how far from the prior, what is alarming."""
    labels = _of(results.pseudo_labels, task)
    agreeing = len(labels) > 0 and labels.agreeing.notna().any()
    rows: Rows = []
    for (name, number_), of in labels.groupby(["experiment", "round"], sort=False):
        said = _at(_of(results.selections, task), name, number_)
        scores = _at(_of(results.summary, task), name, number_).drop_duplicates("seed")
        divergence, without = _divergence(of, task.classes)
        cells = [
            Cell(" ".join(said.policy.unique()) or DASH),
            Cell(" ".join(said.portion.unique()) or DASH),
            *([Cell(over_seeds(_agreeing(of)))] if agreeing else []),
            Cell(over_seeds(scores.labeled_share)),
            Cell(over_seeds(scores.pseudo_label_accuracy)),
            Cell(divergence),
            _alarm_cell(*mark(results, task, str(name), number_)),
            Cell(without or DASH),
        ]
        rows.append(((str(name), str(number_)), cells))
    columns = ["policy", "portion", *(["branches agree, %"] if agreeing else []), "labeled, %", "right, %"]
    columns += ["KL(prior ‖ shares)", "alarms", "without pixels"]
    return Table("What each round was trained on", ("experiment", "round"), columns, rows)


def _alarm_cell(count: str, kinds: tuple[str, ...]) -> Cell:
    return Cell(count, kinds, tone="down" if kinds else "")


def _agreeing(of: pd.DataFrame) -> pd.Series:
    """Per seed the share of all pixels on which enough branches agree: those that a filter retains."""
    pixels = of.predicted + of.filtered
    return (of.agreeing * pixels).groupby(of.seed).sum(min_count=1) / pixels.groupby(of.seed).sum()


def _divergence(of: pd.DataFrame, classes: tuple[str, ...]) -> tuple[str, str]:
    """KL in nats, averaged over seeds, and the classes it leaves out."""
    found = [
        kl_divergence(one.prior.to_numpy(float), one.pixels.to_numpy(), one["class"].to_list())
        for _, one in of.groupby("seed", sort=False)
    ]
    known = [value for value, _ in found if np.isfinite(value)]
    without = {name for _, left_out in found for name in left_out}
    text = f"{np.mean(known):.1e}".replace("-", "−") if known else DASH
    return text, ", ".join(name for name in classes if name in without)


def threshold_table(results: Results, task: TaskReport) -> Table:
    """Per class the threshold as probability, then as log-odds, and the fraction kept of what reaches it."""
    labels = _of(results.pseudo_labels, task)
    rows: Rows = []
    for (name, number_), of in labels.groupby(["experiment", "round"], sort=False):
        wrong = alarming(results, task, str(name), number_)
        cells = [_threshold_cell(of[of["class"] == one], one in wrong) for one in task.classes]
        rows.append(((str(name), str(number_)), cells))
    caption = "Thresholds by class: probability, log-odds, fraction kept"
    return Table(caption, ("experiment", "round"), list(task.classes), rows, long=True)


def _threshold_cell(of: pd.DataFrame, alarming: bool) -> Cell:
    probability, odds = of.threshold_probability.mean(), of.threshold_log_odds.mean()
    # A threshold that rounds to one would hide how high it is; its log-odds stand below.
    notes = (number(odds), f"× {number(of.kept_fraction.mean(), 2)}") if np.isfinite(probability) else ()
    return Cell(number(probability, 3), notes, tone="down" if alarming else "")


def weak_label_table(results: Results, task: TaskReport) -> Table:
    """Per class the images that have its weak label; where truth is known, precision and recall in percent."""
    labels = _of(results.pseudo_labels, task)
    labels = labels[labels.weak_images.notna()] if len(labels) else labels
    scores = _of(results.scores, task)
    rows: Rows = []
    for (name, number_), of in labels.groupby(["experiment", "round"], sort=False):
        known = _at(scores, name, number_)
        known_of = dict(list(known.groupby("class"))) if len(known) else {}
        cells = [_weak_label_cell(of[of["class"] == one], known_of.get(one, known[:0])) for one in task.classes]
        rows.append(((str(name), str(number_)), cells))
    caption = "Weak labels by class: images, precision and recall in percent"
    return Table(caption, ("experiment", "round"), list(task.classes), rows, long=True)


def _weak_label_cell(of: pd.DataFrame, known: pd.DataFrame) -> Cell:
    right = [known[column].mean() for column in ("weak_precision", "weak_recall")] if len(known) else []
    notes = tuple(f"{letter} {number(100 * value)}" for letter, value in zip("pr", right, strict=False))
    return Cell(number(of.weak_images.mean(), 0), notes)


def versions(results: Results) -> list[tuple[str, str]]:
    """What made the models: each fact once, with all its values where models differ."""
    facts: dict[str, list[str]] = {}
    for manifest in results.manifests.values():
        plain = {key: manifest.get(key) for key in ("selftrain", "commit", "python", "machine")}
        for key, value in {**plain, **manifest.get("packages", {})}.items():
            text = DASH if value is None else str(value)
            if text not in facts.setdefault(key, []):
                facts[key].append(text)
    return [(key, ", ".join(values)) for key, values in facts.items()]


def runs_table(results: Results) -> Table:
    """One row per training: device, threads, seconds, and the share of these in which it waited for images."""
    rows: Rows = []
    told = {one.folder: one for one in reversed(results.settings.rounds)}
    for folder, manifest in results.manifests.items():
        one, settings = told[folder], manifest.get("settings", {})
        name = one.experiment if one.round else Path(folder).parent.name
        facts = [
            settings.get("algorithm", {}).get("name"),
            manifest.get("device_name") or manifest.get("device"),
            manifest.get("threads"),
            number(float(manifest.get("seconds", "nan"))),
            _waiting(manifest),
        ]
        cells = [Cell(DASH if fact is None else str(fact)) for fact in facts]
        rows.append(((one.task, name, str(one.seed), str(one.round)), cells))
    head = ("task", "model", "seed", "round")
    return Table("Trainings", head, ["algorithm", "device", "threads", "seconds", "waiting for images"], rows)


def _waiting(manifest: dict[str, Any]) -> str | None:
    """The share of a training's time."""
    seconds, waited = manifest.get("seconds"), manifest.get("waited")
    return None if waited is None or not seconds else f"{waited / seconds:.0%}"


def _of(table: pd.DataFrame, task: TaskReport) -> pd.DataFrame:
    return table[table.task == task.name]


def _at(table: pd.DataFrame, experiment: object, number_: object) -> pd.DataFrame:
    return table[(table.experiment == experiment) & (table["round"] == number_)]
