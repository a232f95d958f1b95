"""The report's table of calibrators: how far probabilities could be trusted, before and after."""

from __future__ import annotations

from selftrain.calibrate import CALIBRATION_COLUMNS
from selftrain.errors import UserError
from selftrain.report.tables import Cell, Rows, Table, number, tone_of
from selftrain.settings.report import TaskReport
from selftrain.written import AGAIN, read_table


def calibration_table(task: TaskReport) -> Table:
    """Per model and calibrator: ECE in percent and the loss in nats, before and after, on each split."""
    rows: Rows = []
    splits = ["calibration", *task.evaluation]
    for one in task.calibrations:
        table = read_table(one.file, CALIBRATION_COLUMNS)
        scores = {(row["split"], row["calibrated"]): row for row in table.to_dict("records")}
        if missing := [split for split in splits if not {(split, "before"), (split, "after")} <= set(scores)]:
            raise UserError(f"{one.file}: broken inside (it has no scores of '{missing[0]}'); {AGAIN}")
        cells = []
        for split in splits:
            before, after = (scores[split, when] for when in ("before", "after"))
            better = tone_of([before["ece"] - after["ece"]])
            cells += [Cell(number(100 * before["ece"]), (number(before["nll"], 3),))]
            cells += [Cell(number(100 * after["ece"]), (number(after["nll"], 3),), tone=better)]
        rows.append(((one.model, one.mode), cells))
    groups = [(f"{split}: ECE, %", 2) for split in splits]
    caption = "Expected calibration error, below it the negative log-likelihood"
    return Table(caption, ("model", "calibrator"), ["before", "after"] * len(splits), rows, groups)
