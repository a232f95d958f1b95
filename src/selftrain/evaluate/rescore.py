"""Scores of confusion.csv files, computed again without the models that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from selftrain.errors import UserError
from selftrain.evaluate.groups import Groups, read_groups
from selftrain.evaluate.tables import metrics_table, read_confusion
from selftrain.settings.base import nearest
from selftrain.settings.data import GroupSettings, SubsetSettings

TITLES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "iou": "IoU",
    "subset_miou": "mean of",
    "group_miou": "mean of",
}
"""What a metric is called where people read it; the class, subset or group follows."""


def score(
    files: Sequence[Path],
    subsets: Mapping[str, SubsetSettings],
    classes_csv: Path | None = None,
    settings: GroupSettings | None = None,
) -> tuple[pd.DataFrame, Groups]:
    """All scores that follow from confusion.csv files: `file`, then the columns of metrics.csv; and the groups.

    Args:
        files: confusion.csv of models of the same classes.
        subsets: classes over which a mean is taken, by name.
        classes_csv: of the labeled split, for means over groups of classes; none: there are none.
        settings: what is frequent and what is large.

    Raises:
        UserError: a file is another one or of other classes than the first, or a subset names no class of theirs.
    """
    tables: list[pd.DataFrame] = []
    groups: Groups = {}
    first: tuple[str, ...] | None = None
    for file in dict.fromkeys(files):
        classes, matrices = read_confusion(file)
        if first is None:
            first = classes
            _check_subsets(subsets, classes)
            groups = read_groups(classes_csv, classes, settings or GroupSettings()) if classes_csv else {}
        elif classes != first:
            raise UserError(f"{file}: is of the classes {', '.join(classes)}; {files[0]} is of {', '.join(first)}")
        for split, matrix in matrices.items():
            tables.append(metrics_table(split, classes, matrix, subsets, groups))
            tables[-1].insert(0, "file", str(file))
    return pd.concat(tables, ignore_index=True), groups


def _check_subsets(subsets: Mapping[str, SubsetSettings], classes: Sequence[str]) -> None:
    for name, subset in subsets.items():
        for one in subset.classes:
            if one not in classes:
                raise UserError(f"subset '{name}': {nearest(one, list(classes), 'class')}")


def parse_subsets(said: Sequence[str], others: str) -> dict[str, SubsetSettings]:
    """Subsets from texts such as `tail=pole,fence`.

    Raises:
        UserError: a text is another one, a name is there twice, or `others` is neither "counted" nor "ignored".
    """
    if others not in ("counted", "ignored"):
        raise UserError(f"--others is 'counted' or 'ignored', not '{others}'")
    found: dict[str, SubsetSettings] = {}
    for text in said:
        name, _, classes = text.partition("=")
        if not (name and classes):
            raise UserError(f"--subset {text}: give a name and classes, such as tail=pole,fence")
        if name in found:
            raise UserError(f"--subset {text}: there is another subset '{name}'; choose another name")
        found[name] = SubsetSettings.model_validate({"classes": classes.split(","), "others": others})
    return found


def as_text(table: pd.DataFrame, groups: Groups) -> str:
    """The scores in percent, a column per split, or per file and split; below them the classes of each group."""
    names = short_names(list(table.file.unique()))
    columns = (table.file.map(names) + " " + table.split).str.strip()
    score = (table.metric.map(TITLES) + " " + table["class"]).str.strip()
    # The metric too, since a subset may be called like a group.
    keyed = pd.DataFrame({"metric": table.metric, "score": score, "column": columns, "value": 100 * table.value})
    wide = keyed.pivot(index=["metric", "score"], columns="column", values="value")
    wide = wide.reindex(index=pd.MultiIndex.from_frame(keyed[["metric", "score"]].drop_duplicates()))
    wide = wide[columns.unique()].droplevel("metric").reset_index().rename(columns={"score": "%"})
    lines = [f"{name}: {', '.join(members)}" for name, members in groups.items()]
    return "\n".join([wide.to_string(index=False, float_format="%.1f", na_rep="–"), *lines])


def short_names(files: Sequence[str]) -> dict[str, str]:
    """Each path without the folders that all begin or end with; nothing of a single one.

    >>> short_names(["results/t/st/seed-0/round-2/confusion.csv", "results/t/dars/seed-0/round-2/confusion.csv"])
    {'results/t/st/seed-0/round-2/confusion.csv': 'st', 'results/t/dars/seed-0/round-2/confusion.csv': 'dars'}
    """
    if len(files) == 1:
        return {files[0]: ""}
    parts = [Path(file).parts for file in files]
    before = _same(parts)
    after = _same([own[before:][::-1] for own in parts])
    return {file: "/".join(own[before : len(own) - after]) for file, own in zip(files, parts, strict=True)}


def _same(paths: Sequence[Sequence[str]]) -> int:
    """How many first parts all paths share."""
    count = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count
