"""The tables of docs/results.md, from the rows that are measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from claims import CLAIMS, Claim, verdict
from rows import Row

from selftrain.errors import UserError
from selftrain.report.figures.scores import seeds_figure
from selftrain.report.figures.style import svg

BEGIN = "<!-- The study's tables: `python benchmarks/study --update` writes what is between here and the end. -->"
REFERENCES = ("start", "oracle")
METHODS = ("labels-only", "cbst", "dars", "mlsl", "classmix", "dacs", "curriculum", "dars-sisc", "hybrid")
"""What the first table compares, with the references."""
WHAT = {
    "test_miou": "",
    "val_miou": ": val",
    "pseudo_labels_kl": ": KL",
    "pseudo_labels_right": ": pseudo-labels right",
}
"""What a claim compares, by the column that it is in."""
END = "<!-- The end of the study's tables. -->"


def text(rows: Sequence[Row], measured: pd.DataFrame) -> str:
    """A table of all tasks, one per task, and one of the claims, as Markdown."""
    table = _joined(rows, measured)
    done = measured[measured.digest.isin({row.digest for row in rows})]
    cost = f"{done.cpu_minutes.sum():.0f} CPU-minutes and {done.gpu_minutes.sum():.0f} GPU-minutes"
    parts = [f"{len(done)} of {len(rows)} rows are measured, in {cost}.", _overview(table)]
    for task, of_task in table.groupby("task", sort=False):
        parts.append(_task_table(str(task), of_task))
        if of_task.test_miou.notna().any():
            parts.append(f"![{task}: test mIoU of each seed, hollow, and their mean](images/study-{task}.svg)")
    return "\n\n".join([*parts, _claims_table(table)])


def figures(rows: Sequence[Row], measured: pd.DataFrame) -> dict[str, str]:
    """A figure per task as an SVG file, by its name: every experiment's test mIoU, seed by seed."""
    table = _joined(rows, measured).assign(miou=lambda of: of.test_miou)
    return {
        f"study-{task}.svg": svg(seeds_figure(of.dropna(subset=["miou"]), REFERENCES), str(task))
        for task, of in table.groupby("task", sort=False)
        if of.miou.notna().any()
    }


def put_into(page: str, tables: str) -> str:
    """A page with its tables replaced.

    Raises:
        UserError: it has no place for them.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise UserError(f"the page needs one line '{BEGIN}', and '{END}' after it")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _joined(rows: Sequence[Row], measured: pd.DataFrame) -> pd.DataFrame:
    """Every planned row with its scores, NaN where it is not measured, and the name of the row that it starts from.

    The names are those of the plan: a row is known by its digest, whatever it was called when it was measured.
    """
    planned = [
        {
            "digest": row.digest,
            "task": row.model.task,
            "experiment": row.experiment,
            "seed": row.model.seed,
            "start": row.graph.experiment(row.model).pretrain if row.model.round else "",
        }
        for row in rows
    ]
    scores = measured.drop(columns=["task", "experiment", "seed"])
    return pd.DataFrame(planned).merge(scores, on="digest", how="left")


def _overview(table: pd.DataFrame) -> str:
    """What the headline's experiments have on the test frames of each task."""
    tasks = table.task.unique()
    lines = ["| test mIoU | " + " | ".join(tasks) + " |", "|---|" + "---|" * len(tasks)]
    for name in (name for name in ("start", *METHODS, "oracle") if name in set(table.experiment)):
        scores = [table[(table.task == task) & (table.experiment == name)].test_miou for task in tasks]
        lines.append(f"| {name} | " + " | ".join(_mean(100 * of_task) for of_task in scores) + " |")
    return "\n".join(lines)


def _task_table(task: str, table: pd.DataFrame) -> str:
    heading = (
        f"| {task} | seeds | val | test | gain | of the gap | pixel accuracy | pseudo-labels right | KL | CPU-min. |"
    )
    lines = [heading, "|---|" + "---|" * (heading.count("|") - 2)]
    return "\n".join([*lines, *(_line(name, table) for name in table.experiment.unique())])


def _line(name: str, table: pd.DataFrame) -> str:
    """An experiment: means over seeds, with deviations; the gain of a seed is over the same seed's start."""
    own = _by_seed(table, name)
    count = own.test_miou.notna().sum()
    if count == 0:
        return f"| {name} | 0 |" + " |" * 8
    start, oracle = _by_seed(table, own.start.iloc[0]), _by_seed(table, "oracle")
    gain = 100 * (own.test_miou - start.test_miou) if own.start.iloc[0] else pd.Series(dtype=float)
    gap = gain / (oracle.test_miou - start.test_miou) if len(gain) else gain
    gap = gap[own.steps.eq(oracle.steps).reindex(gap.index)]  # of others it would say what more steps do, too
    cells = [
        _mean(100 * own.val_miou),
        _mean(100 * own.test_miou),
        _mean(gain, form="+.1f"),
        _mean(gap, form=".0f", unit=" %"),
        _mean(100 * own.test_pixel_accuracy),
        _mean(100 * own.pseudo_labels_right),
        _mean(own.pseudo_labels_kl, form=".2g"),
        _mean(own.cpu_minutes, deviation=False),
    ]
    return f"| {name} | {count} | " + " | ".join(cells) + " |"


def _by_seed(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table.experiment == name].set_index("seed")


def _mean(values: pd.Series, *, form: str = ".1f", deviation: bool = True, unit: str = "") -> str:
    values = values.dropna().astype(float)
    if values.empty:
        return ""
    spread = f" ± {values.std():{form.removeprefix('+')}}" if len(values) > 1 and deviation else ""
    return f"{values.mean():{form}}{spread}{unit}"


def _claims_table(table: pd.DataFrame) -> str:
    lines = ["| claim | where | published | task | pairs | difference | |", "|---|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(line for claim in CLAIMS for line in _claim_lines(claim, table))])


def _claim_lines(claim: Claim, table: pd.DataFrame) -> Iterator[str]:
    """A line for each task that has both experiments, and one of all of them together."""
    form, factor = ("+.2g", 1) if claim.column == "pseudo_labels_kl" else ("+.1f", 100)
    published = "" if claim.published is None else f"+{claim.published:g}"
    name = f"{claim.better} {'>' if claim.sign > 0 else '<'} {claim.worse}{WHAT[claim.column]}"
    by_task = {}
    for task, of_task in table.groupby("task", sort=False):
        better, worse = (_by_seed(of_task, one)[claim.column] for one in (claim.better, claim.worse))
        if len(better) and len(worse):
            by_task[str(task)] = factor * (better - worse).dropna().astype(float)
    if len(by_task) > 1:
        by_task["all"] = pd.concat(by_task.values())
    for task, differences in by_task.items():
        told = verdict(claim.sign * differences.to_numpy(dtype=np.float64))
        mean = _mean(differences, form=form)
        yield f"| {name} | {claim.source} | {published} | {task} | {len(differences)} | {mean} | {told} |"
