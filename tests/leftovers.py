"""Results of a run that was interrupted, compared with those of one that was left alone."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd


def files_below(folder: Path) -> Iterator[Path]:
    """All files, also while others remove some."""
    return (Path(where, name) for where, _, names in os.walk(folder) for name in names)


def is_result(place: Path) -> bool:
    """Whether a file below results/ is one, and not a log, a setting or what an interrupted job needs."""
    return place.parts[0] != "logs" and not any(part.startswith(".") for part in place.parts)


def differences(results: Path, reference: Path, *, whole: bool) -> list[str]:
    """What is not as in a run that was left alone.

    Args:
        results: of a run that was killed, perhaps in the middle.
        reference: of the other.
        whole: whether the run is over, so that nothing may be missing, or left over.
    """
    found, names = [], set[Path]()
    for path in files_below(results):
        place = path.relative_to(results)
        if is_result(place):
            names.add(place)
            with suppress(FileNotFoundError):  # Snakemake, or a job that works on, has just replaced it
                found += _difference(path, reference / place)
    if whole:
        expected = {path.relative_to(reference) for path in files_below(reference)}
        found += [f"{place} is missing" for place in sorted(expected - names) if is_result(place)]
        left = [path for name in ("*unfinished*", ".*.lock", ".finished", ".resume/*") for path in results.rglob(name)]
        found += [f"{path} is left over" for path in [*sorted(names - expected), *left]]
    return found


def _difference(path: Path, expected: Path) -> list[str]:
    """Whether a file is that of the reference, apart from what the clock says; an intermediate file has to open."""
    if path.suffix == ".html" or path.match("report/figures/*/models/*.svg"):  # they tell seconds
        return [] if path.read_text().rstrip().endswith(f"</{path.suffix[1:]}>") else [f"{path} is not whole"]
    if not expected.exists():
        try:
            h5py.File(path, "r", locking=False).close()
        except OSError as error:
            return [] if not path.exists() else [f"{path} is not whole ({error})"]
        return []
    if _without_time(path) == _without_time(expected):
        return []
    where = f" in {', '.join(_parts_that_differ(path, expected))}" if path.suffix == ".h5" else ""
    return [f"{path} is not that of the run that was left alone{where}"]


def _parts_that_differ(path: Path, expected: Path) -> list[str]:
    """The attributes and datasets of two HDF5 files that are not alike, and how."""
    one, other = _contents(path), _contents(expected)
    found = [
        f"{name}{_how(one.get(name), other.get(name))}"
        for name in sorted({*one, *other})
        if not np.array_equal(one.get(name), other.get(name))
    ]
    return found or ["no value, but its bytes"]


def _how(one: Any, other: Any) -> str:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.shape == other.shape:
        places = np.argwhere(one != other)
        return f" ({len(places)} of {one.size} values, the first at {places[0].tolist()})"
    return f" ({str(one)[:200]}, not {str(other)[:200]})"


def _contents(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r", locking=False) as file:
        told = {f"the attribute {name}": str(value) for name, value in file.attrs.items()}
        values = {name: dataset[:] for name, dataset in file.items()}
    return told | {name: str(one.tolist()) if one.dtype.kind in "OV" else one for name, one in values.items()}


def _without_time(path: Path) -> bytes:
    if path.name == "train.csv":
        return pd.read_csv(path).drop(columns="images_per_second").to_csv().encode()
    if path.name == "manifest.json":
        told = json.loads(path.read_text())
        return json.dumps({name: value for name, value in told.items() if name not in ("seconds", "waited")}).encode()
    return path.read_bytes()
