"""Which file it is, told by its content and not by its name, and the table that says what is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import pandas as pd

from selftrain import hdf5
from selftrain.data.tables import STATISTICS
from selftrain.errors import UserError
from selftrain.inspection import labels, tables
from selftrain.label import pseudo_labels
from selftrain.predict import store
from selftrain.preview import file as preview
from selftrain.train import examples
from selftrain.written import read_json, read_table

FORMATS = (pseudo_labels.FORMAT.name, store.FORMAT.name, STATISTICS.name, preview.FORMAT.name, examples.FORMAT.name)
KNOWN = (
    "inspect reads pseudo_labels.h5, a shard of predictions, statistics.h5, preview.h5, examples.h5, "
    f"model.safetensors, manifest.json, calibrator.json, and the tables {', '.join(tables.BY_NAME)} and train as .csv"
)
FACTS = {"manifest": {"selftrain", "settings", "inputs"}, "calibrator": {"format", "model", "parameters"}}
"""JSON files, and keys that tell them."""


def inspect(path: Path | str, *, images: bool = False, portions: Sequence[float] = ()) -> pd.DataFrame:
    """What is in a file.

    Args:
        path: anything that the graph makes but the page.
        images: one row per image instead of one per class.
        portions: what the policy of pseudo_labels.h5 would select at each of these, from the histograms alone.

    Raises:
        UserError: the file is another one, or cannot answer.
    """
    path = Path(path)
    kind = kind_of(path)
    if portions and kind != pseudo_labels.FORMAT.name:
        raise UserError(f"{path}: does not say what other portions would select; give the pseudo_labels.h5")
    if kind == pseudo_labels.FORMAT.name:
        return labels.of_pseudo_labels(path, images, portions)
    if kind == store.FORMAT.name:
        return labels.of_predictions(path, images)
    if kind == STATISTICS.name:
        return _statistics(path, images)
    if kind == preview.FORMAT.name:
        return labels.of_preview(path, images)
    if images:
        raise UserError(f"{path}: has no images; give the pseudo_labels.h5, a shard of predictions or statistics.h5")
    if kind == examples.FORMAT.name:
        return _examples(path)
    if kind == "model":
        return _model(path)
    if kind in FACTS:
        return _facts(read_json(path))
    return tables.of_confusion(path) if kind == "confusion" else read_table(path, empty=True)


def kind_of(path: Path) -> str:
    """The format name of an HDF5 file, 'model', one of `FACTS`, or which table it is.

    Raises:
        UserError: it is none of them.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if h5py.is_hdf5(path):
        kind = _hdf5_kind(path)
    elif path.suffix == ".safetensors":
        kind = "model"
    elif path.suffix == ".json":
        kind = next((name for name, keys in FACTS.items() if _has(path, keys)), None)
    else:
        kind = tables.kind_of(path)
    if kind is None:
        raise UserError(f"{path}: {KNOWN}; this is none of them")
    return kind


def _hdf5_kind(path: Path) -> str | None:
    try:
        with h5py.File(path, "r") as file:
            name = file.attrs.get("format")
    except OSError as error:
        raise UserError(f"{path}: not a whole HDF5 file ({error})") from None
    return name if name in FORMATS else None


def _has(path: Path, keys: set[str]) -> bool:
    """Whether it is JSON with these keys."""
    try:
        return keys <= json.loads(path.read_text()).keys()
    except (ValueError, AttributeError):
        return False


def _statistics(path: Path, images: bool) -> pd.DataFrame:
    """Labeled pixels and images of each class; or of each image, the pixels of each class."""
    with STATISTICS.read(path) as file:
        classes, counts = json.loads(file.attrs["classes"]), file["counts"][:]
        names = hdf5.read_names(file, "images")
    if images:
        table = pd.DataFrame(counts, columns=classes)
        table.insert(0, "image", names)
        return table
    pixels = counts.sum(0)
    share = pixels / max(1, pixels.sum())
    return pd.DataFrame({"class": classes, "pixels": pixels, "share": share, "images": (counts > 0).sum(0)})


def _examples(path: Path) -> pd.DataFrame:
    """The steps of a training that are kept, and the pictures and maps that there are of each."""
    kept = examples.read(path)
    return pd.DataFrame({"step": list(kept), "pictures": [", ".join(sorted(of_step)) for of_step in kept.values()]})


def _model(path: Path) -> pd.DataFrame:
    """What its metadata say, and the manifest beside it, if there is one."""
    from selftrain.models import files  # not above: it brings torch

    about = files.read_about(path)
    about["classes"] = ", ".join(about["classes"])
    about.pop("colors", None)
    manifest = path.with_name("manifest.json")
    made = json.loads(manifest.read_text()) if manifest.is_file() and _has(manifest, FACTS["manifest"]) else {}
    return pd.concat([_facts(about), _facts(made)], ignore_index=True)


def _facts(facts: dict[str, object]) -> pd.DataFrame:
    """Nested facts, a row each: `fact` (its keys, joined by dots) and `value`."""
    rows: list[tuple[str, str]] = []

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            rows.append((prefix, value if isinstance(value, str) else json.dumps(value)))

    walk("", facts)
    return pd.DataFrame(rows if facts else [], columns=["fact", "value"])
