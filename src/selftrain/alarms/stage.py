"""The alarms stage: from the signs and the cut of a round to alarms.csv."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from selftrain import artifacts
from selftrain.alarms.kinds import COLUMNS, Round, raised
from selftrain.alarms.signs import read_signs
from selftrain.errors import UserError
from selftrain.select.cut import read_cut
from selftrain.settings.alarms import AlarmSettings

log = logging.getLogger(__name__)


def alarms(settings: AlarmSettings, signs: Path, cut: Path, output: Path) -> None:
    """Write one row per alarm, the worst first; none where all is well. Each is logged as a warning, too.

    Args:
        settings: the limits.
        signs: the table that the signs stage wrote.
        cut: the table that select wrote, for the prior and the pixels aimed at.
        output: the table to write, with the columns of `selftrain.alarms.kinds.COLUMNS`.

    Raises:
        UserError: the tables are missing, or not about the same classes.
    """
    measured, decided = read_signs(signs), read_cut(cut)
    if measured["class"].to_list()[1:] != decided["class"].to_list():
        raise UserError(f"{signs}: has other classes than {cut}; run signs again")
    found = raised(settings, Round.of(measured, decided))
    for alarm in found:
        log.warning("%s (%s in %s)", alarm.message, alarm.alarm, output)
    artifacts.write_csv(output, pd.DataFrame([alarm.row() for alarm in found], columns=COLUMNS))
