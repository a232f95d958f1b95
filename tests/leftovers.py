"""Results of a run that was interrupted, compared with those of one that was left alone."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
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
    same = _without_time(path) == _without_time(expected)
    return [] if same else [f"{path} is not that of the run that was left alone"]


def _without_time(path: Path) -> bytes:
    if path.name == "train.csv":
        return pd.read_csv(path).drop(columns="images_per_second").to_csv().encode()
    if path.name == "manifest.json":
        told = json.loads(path.read_text())
        return json.dumps({name: value for name, value in told.items() if name != "seconds"}).encode()
    return path.read_bytes()
