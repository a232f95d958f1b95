"""The report's alarms: one line for what several seeds tell alike, and a mark for a round."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from selftrain.alarms.kinds import KINDS
from selftrain.report.results import Results
from selftrain.settings.report import TaskReport


@dataclass(frozen=True)
class Line:
    """An alarm of one round: its kind as words, what the seed in which it goes farthest says, and where it was."""

    kind: str
    message: str
    where: str


def lines(results: Results, task: TaskReport) -> list[Line]:
    """The alarms of a task, the worst first: the kinds in their order, of one kind what goes farthest."""
    table = _of(results, task)
    ranked = table.assign(rank=table.alarm.map(list(KINDS).index), beyond=-table.value)
    groups = ranked.sort_values(["rank", "beyond"]).groupby(["alarm", "experiment", "round", "class"], sort=False)
    return [
        Line(_words(str(kind)), of.message.iloc[0], f"{experiment}, round {round_}, {_seeds(of)}")
        for (kind, experiment, round_, _), of in groups
    ]


def mark(results: Results, task: TaskReport, experiment: str, round_: object) -> tuple[str, tuple[str, ...]]:
    """How many alarms a round has, those of several seeds counted once; and how many of each kind."""
    table = _of(results, task)
    of = table[(table.experiment == experiment) & (table["round"] == round_)].drop_duplicates(["alarm", "class"])
    kinds = Counter(of.alarm)
    return str(len(of)), tuple(f"{count} {_words(kind)}" for kind, count in kinds.items())


def alarming(results: Results, task: TaskReport, experiment: str, round_: object) -> set[str]:
    """The classes that a round has alarms about."""
    table = _of(results, task)
    return set(table[(table.experiment == experiment) & (table["round"] == round_)]["class"])


def _of(results: Results, task: TaskReport) -> pd.DataFrame:
    return results.alarms[results.alarms.task == task.name]


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _seeds(of: pd.DataFrame) -> str:
    return f"seed{'s' if len(of) > 1 else ''} {', '.join(str(seed) for seed in sorted(of.seed))}"
