"""The signs stage: what two rounds' predictions say without any truth.

It knows no limits, so that these are cheap to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from selftrain import artifacts
from selftrain.confidence import BINS, groups
from selftrain.errors import UserError
from selftrain.predict.store import Predictions, read_histograms
from selftrain.settings.data import IGNORE
from selftrain.written import read_table

Counts = npt.NDArray[np.int64]

COLUMNS = ["class", "predicted", "predicted_share", "before_share", "left", "saturated"]

SATURATED = int(groups("float32")[BINS - 1])
"""The lowest bin, log-odds 17.3, whose probability is 1 in float32: nobody who stored that could tell these apart."""


def write_signs(predictions: Sequence[Path], before: Sequence[Path], output: Path) -> None:
    """Measure, and write one row over all (its class is empty), then one per class.

    Args:
        predictions: the shards that a round selects from.
        before: the shards that the round before selected from, in the same order; none in the first round.
        output: the table to write, with `COLUMNS`.
    """
    artifacts.write_csv(output, measure(predictions, before))


def measure(predictions: Sequence[Path], before: Sequence[Path] = ()) -> pd.DataFrame:
    """The signs as a table; all shares are from 0 to 1, empty where there is nothing to count.

    Columns: `predicted`, pixels predicted as the class (without those that a filter takes out); `predicted_share`, and
    `before_share` in the round before, of all of them; `left`, the share of the class's pixels in the round before
    that have another class now, over all the disagreement of the two rounds; `saturated`, the share of the class's
    pixels whose probability would be 1 in float32.

    Raises:
        UserError: shards that cannot be compared.
    """
    histograms, classes = read_histograms(predictions), _classes(predictions)
    predicted = histograms.sum(1)
    moved = _moved(predictions, before, classes)
    earlier = read_histograms(before, classes).sum(1) if before else np.zeros_like(predicted)
    columns = {
        "class": ["", *classes],
        "predicted": _with_total(predicted),
        "predicted_share": _shares(_with_total(predicted), predicted.sum()),
        "before_share": _shares(_with_total(earlier), earlier.sum()),
        "left": _shares(_with_total(moved.sum(1) - moved.diagonal()), _with_total(moved.sum(1))),
        "saturated": _shares(_with_total(histograms[:, SATURATED:].sum(1)), _with_total(predicted)),
    }
    return pd.DataFrame(columns, columns=COLUMNS)


def _classes(predictions: Sequence[Path]) -> tuple[str, ...]:
    with Predictions(predictions[0]) as shard:
        return shard.classes


def _moved(predictions: Sequence[Path], before: Sequence[Path], classes: Sequence[str]) -> Counts:
    """Pixels by class in the round before and class now, (C, C), of those that have one in both; an image at a time."""
    moved = np.zeros((len(classes), len(classes)), np.int64)
    if before and len(before) != len(predictions):
        raise UserError(f"{len(predictions)} shards of predictions, and {len(before)} of the round before")
    for path, earlier in zip(predictions, before, strict=False):
        with Predictions(path, classes) as new, Predictions(earlier, classes) as old:
            if new.images != old.images:
                raise UserError(f"{earlier}: has other images than {path}; run predict again")
            for position in range(len(new)):
                moved += _pairs(old.read_classes(position), new.read_classes(position), len(classes))
    return moved


def _pairs(old: npt.NDArray[np.uint8], new: npt.NDArray[np.uint8], count: int) -> Counts:
    cells = old.astype(np.int32) * count + new
    either = (old == IGNORE) | (new == IGNORE)
    return np.bincount(cells[~either] if either.any() else cells.ravel(), minlength=count**2).reshape(count, count)


def _with_total(counts: Counts) -> Counts:
    return np.concatenate([[counts.sum()], counts])


def _shares(counts: Counts, total: Counts | np.int64) -> npt.NDArray[np.float64]:
    total = np.broadcast_to(total, counts.shape)
    return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def read_signs(path: Path | str) -> pd.DataFrame:
    """The table that `write_signs` wrote.

    Raises:
        UserError: it is missing, or another table.
    """
    return read_table(path, COLUMNS, "run signs again")
