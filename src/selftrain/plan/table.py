"""The plan as a table, a row per kind of job, and what it cannot say in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from selftrain.graph import Graph
from selftrain.plan.jobs import Job, jobs_to_run
from selftrain.plan.timing import Rates, remembered, timed
from selftrain.plan.work import Work, Workload

FLOW = (
    *("draw", "check", "list", "review", "statistics", "pretrain", "calibrate", "reliability", "predict", "select"),
    *("signs", "alarms", "choose", "label", "merge", "score", "train", "evaluate", "preview", "summary", "report"),
)
"""The rules, in the order of the flow."""
COLUMNS = ["job", "jobs", "images", "forward_passes", "steps", "disk_mb", "hours"]


def plan(configs: Sequence[Path], *, time: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """What is yet to run: a row per rule, their sum, and remarks.

    Args:
        configs: config files, as for snakemake.
        time: time a few steps of each network first.

    Returns:
        the rules in the order of the flow, `hours` (of jobs one after the other) being NaN where nothing was timed.
    """
    graph = Graph.load(*configs)
    graph.check_files()
    jobs = jobs_to_run(configs)
    load = Workload(graph)
    each = [(job, load.of(job)) for job in jobs]
    rates = _rates(load, [work for _, work in each], time=time)
    rows = pd.DataFrame([_row(job, work, rates) for job, work in each], columns=COLUMNS)
    named = [(rule, rows[rows.job == rule]) for rule in FLOW if rule in set(rows.job)]
    table = pd.DataFrame([_sum(rule, of_rule) for rule, of_rule in [*named, ("all", rows)]], columns=COLUMNS)
    return table, _remarks(graph, table, timed=bool(rates))


def _sum(name: str, rows: pd.DataFrame) -> list[object]:
    counts = [round(rows[column].sum()) for column in COLUMNS[1:-1]]
    return [name, *counts, rows.hours.sum(min_count=1) if len(rows) else float("nan")]


def _row(job: Job, work: Work, rates: dict[str | None, Rates]) -> list[object]:
    rule = "train" if job.rule == "train_showing" else job.rule
    rate = rates.get(work.pretrain)
    seconds = float("nan")
    if rate is not None:
        start = rate.light_start if work.pretrain is None else rate.start
        seconds = start + rate.learned * work.learned + rate.seen * work.seen
    return [rule, 1, work.images, work.forward, work.steps, work.bytes / 1e6, seconds / 3600]


def _rates(load: Workload, works: Sequence[Work], *, time: bool) -> dict[str | None, Rates]:
    """By the pretraining whose network works, and of jobs without a network; nothing unless all of them are known."""
    wanted = {work.pretrain for work in works if work.pretrain is not None}
    models = {model.name: model for model in reversed(load.graph.pretrained) if model.name in wanted}
    found: dict[str | None, Rates] = {}
    for name, model in models.items():
        rates = timed(load.graph, model, load.crop(model)) if time else remembered(load.graph, model)
        if rates is None:
            return {}
        found[name] = rates
    return found if not found else found | {None: next(iter(found.values()))}


def _remarks(graph: Graph, table: pd.DataFrame, *, timed: bool) -> list[str]:
    remarks = []
    if len(table) == 1:
        return ["nothing to do: everything is up to date"]
    if "check" in set(table.job) and "list" not in set(table.job):
        remarks.append("images or how they are read have changed: what follows from them is not in this table")
    if timed:
        hours = table.hours.iloc[-1]
        remarks.append(f"about {hours:.2g} hours of jobs one after the other, fewer where several run at once")
    else:
        remarks.append("hours: `selftrain plan --time` times a few steps of each network on this machine")
    if not graph.config.keep_predictions:
        remarks.append("disk: without predictions, which go as soon as nothing needs them (keep_predictions: false)")
    return remarks
