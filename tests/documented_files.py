"""What is in the files of a run, as docs/files.md tells it: columns, datasets, attributes, keys."""

import json
from pathlib import Path

import h5py
import pandas as pd
from documents import spans, tables
from safetensors import safe_open

Parts = dict[str, set[str]]
"""By kind, `column`, `dataset`, `attribute` or `key`: the names of what a file has."""


def documented() -> dict[str, Parts]:
    """What docs/files.md has of each file, by its name there."""
    told: dict[str, Parts] = {}
    for table in tables("docs/files.md"):
        parts = told.setdefault(table.heading, {})
        parts[table.header[0]] = {name for row in table.rows for name in spans(row[0])}
    return told


def parts_of(path: Path) -> Parts:
    """What a file has."""
    if path.suffix == ".csv":
        return {"column": set(pd.read_csv(path, nrows=0).columns)}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return {"dataset": set(file), "attribute": set(file.attrs)}
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            return {"key": set(json.loads(file.metadata()["selftrain"]))}
    return {"key": set(json.loads(path.read_text()))}


def found(results: Path) -> dict[str, Parts]:
    """What the files of a run have, all of one name together."""
    whole: dict[str, Parts] = {}
    for path in results.rglob("*"):
        if path.suffix in (".csv", ".h5", ".json", ".safetensors") and ".settings" not in path.parts:
            name = "shard-K-of-N.h5" if path.name.startswith("shard-") else path.name
            for kind, names in parts_of(path).items():
                whole.setdefault(name, {}).setdefault(kind, set()).update(names)
    return whole
