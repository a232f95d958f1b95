"""Several runs side by side: what their summaries say of the last round of each experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from selftrain.errors import UserError
from selftrain.evaluate.rescore import short_names
from selftrain.report.results import read_summary


def compare(paths: Sequence[Path]) -> pd.DataFrame:
    """One row per task, experiment, split and run: its last round's scores, over seeds.

    Args:
        paths: results folders, or their summary.csv.

    Returns:
        Columns task, experiment, split, run (what tells the paths apart), round, seeds; miou, miou_deviation (the
        sample's, empty for one seed), pixel_accuracy, gain (over the same seed's round 0), each a mean from 0 to 1;
        experiments in the order in which they come first.

    Raises:
        UserError: a path without a summary, or named twice.
    """
    files = [str(path / "summary.csv" if path.is_dir() else path) for path in paths]
    if twice := {file for file in files if files.count(file) > 1}:
        raise UserError(f"{min(twice)}: is named twice; a run is compared with others")
    names = short_names(files)
    each = [read_summary(file).assign(run=names[file] or Path(file).parent.name) for file in files]
    rows = pd.concat([_last_rounds(table) for table in each], ignore_index=True)
    keys = ["task", "experiment", "split"]
    order = {key: place for place, key in enumerate(dict.fromkeys(rows[keys].itertuples(index=False, name=None)))}
    places = [order[key] for key in rows[keys].itertuples(index=False, name=None)]
    return rows.iloc[sorted(range(len(rows)), key=lambda row: places[row])].reset_index(drop=True)


def _last_rounds(table: pd.DataFrame) -> pd.DataFrame:
    of = ["task", "experiment", "split", "run"]
    last = table[table["round"] == table.groupby(of)["round"].transform("max")]
    return last.groupby([*of, "round"], sort=False, as_index=False).agg(
        seeds=("seed", "nunique"),
        miou=("miou", "mean"),
        miou_deviation=("miou", "std"),
        pixel_accuracy=("pixel_accuracy", "mean"),
        gain=("gain", "mean"),
    )
