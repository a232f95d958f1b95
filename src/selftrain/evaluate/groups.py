"""Groups of classes by how often they appear and how large they are (DARS section 4.4, Figure 5a)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from selftrain.data.tables import read_classes
from selftrain.errors import UserError
from selftrain.settings.data import GroupSettings

NAMES = {
    (True, True): "frequent_large",
    (True, False): "frequent_small",
    (False, True): "rare_large",
    (False, False): "rare_small",
}
"""By (frequent, large), in the order of DARS."""

Groups = dict[str, tuple[str, ...]]
"""The classes of each group that has some."""


def read_groups(classes_csv: Path | str, classes: Sequence[str], settings: GroupSettings) -> Groups:
    """The groups of a labeled split's classes.

    Raises:
        UserError: the table is missing, another one, of other classes, or has no `image_share`.
    """
    table = read_classes(classes_csv, classes)
    try:
        table = table.astype({"image_share": float})
    except (KeyError, ValueError):
        raise UserError(
            f"{classes_csv}: does not say which share of images shows a class; run statistics again"
        ) from None
    return groups(table, settings)


def groups(table: pd.DataFrame, settings: GroupSettings) -> Groups:
    """The classes of each group; a group without classes is left out.

    DARS takes sizes relative to the crop's area, we to the image's, as MLSL does and as classes.csv has them: the crop
    is a setting of a training, and the groups are to be the same for all trainings of a task.

    Args:
        table: classes.csv, with `class`, `image_share` and `mean_size` from 0 to 1.
        settings: what is frequent and what is large; a class at the threshold is neither.
    """
    frequent = table.image_share > settings.frequency
    large = table.mean_size > settings.size
    found = {name: tuple(table["class"][(frequent == often) & (large == big)]) for (often, big), name in NAMES.items()}
    return {name: members for name, members in found.items() if members}
