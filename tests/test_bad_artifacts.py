"""Broken artifacts, a row a case: jobs and commands that read one say which, and what to do, and write nothing."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from finished_run import (
    BASE,
    CLASSES,
    IMAGES,
    LABELED,
    LABELS,
    MODEL,
    OTHER,
    PAGE,
    PREDICTION,
    PREVIEW,
    ROUND,
    SHARD,
    STATISTICS,
    SUMMARY,
    TRAIN,
    TRUTH,
    VAL,
    job_of,
)
from PIL import Image
from refusals import COLOR, Code, cut
from safetensors.torch import load_file, save_file
from walking import call

from selftrain.models import files


def edit(path: str, change: Callable[[h5py.File], Any]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replaced(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


def spoiled(path: str, name: str) -> None:
    """Flips bits in each chunk of a dataset."""
    with h5py.File(path) as file:
        chunks = file[name].id
        places = [chunks.get_chunk_info(number) for number in range(chunks.get_num_chunks())]
    content = bytearray(Path(path).read_bytes())
    for place in places:
        content[place.byte_offset + place.size // 2] ^= 255
    Path(path).write_bytes(content)


def elsewhere(file: h5py.File) -> None:
    """A link to another file in place of a dataset."""
    del file["histogram"]
    file["histogram"] = h5py.ExternalLink("/etc/other.h5", "/histogram")


def raw_bytes(file: h5py.File) -> None:
    """A dataset that is the bytes of a file elsewhere."""
    shape = file["shapes"].shape
    del file["shapes"]
    file.create_dataset("shapes", shape, np.int32, external=[(str(Path("config.yaml").absolute()), 0, 1000)])


def pickled(path: str) -> None:
    Path(path).write_bytes(pickle.dumps(Code()))


def remade(path: str, about: dict[str, Any] | None = None, **tensors: torch.Tensor) -> None:
    """A model file with other metadata, or tensors."""
    told = files.read_about(Path(path)) | (about or {})
    save_file(load_file(path) | tensors, path, metadata={"selftrain": json.dumps(told)})


def ruined(path: str) -> None:
    remade(path, **{name: tensor * torch.nan for name, tensor in load_file(path).items() if "weight" in name})


def huge(path: str) -> None:
    """Weights whose logits are infinite."""
    remade(path, **{name: torch.full_like(tensor, 3e38) for name, tensor in load_file(path).items() if "4." in name})


def table(path: str, **columns: Any) -> None:
    pd.read_csv(path, keep_default_na=False).assign(**columns).to_csv(path, index=False)


def headed(path: str) -> None:
    """Leaves the first line of a table."""
    Path(path).write_text(Path(path).read_text().partition("\n")[0] + "\n")


AGAIN = "run predict again to make it"
ARTIFACTS: dict[str, tuple[Callable[[], Any], str, tuple[str, ...]]] = {
    "a truncated shard": (
        lambda: cut(Path(PREDICTION)),
        f"{ROUND}/cut.csv",
        (PREDICTION, "not a whole HDF5 file", AGAIN),
    ),
    "an empty shard": (
        lambda: Path(PREDICTION).write_bytes(b""),
        f"{ROUND}/cut.csv",
        (PREDICTION, "not a whole", AGAIN),
    ),
    "a missing shard": (lambda: Path(PREDICTION).unlink(), f"{ROUND}/cut.csv", (PREDICTION, "no such file", AGAIN)),
    "a shard of another version": (
        lambda: edit(PREDICTION, lambda file: file.attrs.update(version=99)),
        f"{ROUND}/cut.csv",
        (PREDICTION, "version 99, not selftrain-predictions version 2", AGAIN),
    ),
    "another file for a shard": (
        lambda: shutil.copy(STATISTICS, PREDICTION),
        f"{ROUND}/cut.csv",
        (PREDICTION, "is selftrain-statistics version 2, not selftrain-predictions", AGAIN),
    ),
    "a pickle for a shard": (lambda: pickled(PREDICTION), f"{ROUND}/cut.csv", (PREDICTION, "not a whole HDF5 file")),
    "a shard without its histogram": (
        lambda: edit(PREDICTION, replaced("histogram", None)),
        f"{ROUND}/cut.csv",
        (PREDICTION, "broken inside (no dataset 'histogram')", AGAIN),
    ),
    "a group for a dataset": (
        lambda: edit(PREDICTION, lambda file: (replaced("shapes", None)(file), file.create_group("shapes"))),
        SHARD,
        (PREDICTION, "no dataset 'shapes'", AGAIN),
    ),
    "a link to another file": (lambda: edit(PREDICTION, elsewhere), f"{ROUND}/cut.csv", (PREDICTION, "no dataset")),
    "the bytes of another file": (lambda: edit(PREDICTION, raw_bytes), SHARD, (PREDICTION, "no dataset 'shapes'")),
    "floats for integers": (
        lambda: edit(PREDICTION, replaced("histogram", np.full((3, 5), np.nan))),
        f"{ROUND}/cut.csv",
        (PREDICTION, "'histogram' is of type float64", AGAIN),
    ),
    "other bins": (
        lambda: edit(PREDICTION, replaced("histogram", np.zeros((3, 5), np.int64))),
        f"{ROUND}/cut.csv",
        (PREDICTION, "'histogram' has the shape (3, 5)", AGAIN),
    ),
    "fewer sizes than images": (
        lambda: edit(PREDICTION, replaced("shapes", np.zeros((1, 2), np.int32))),
        SHARD,
        (PREDICTION, "'shapes' has the shape (1, 2), where 2 are needed in place of 1", AGAIN),
    ),
    "classes that are no names": (
        lambda: edit(PREDICTION, lambda file: file.attrs.update(classes="{")),
        f"{ROUND}/cut.csv",
        (PREDICTION, "broken inside", AGAIN),
    ),
    "a class less": (
        lambda: edit(PREDICTION, lambda file: file.attrs.update(classes='["sky", "road"]')),
        f"{ROUND}/cut.csv",
        (PREDICTION, "has the shape (3, 65536), where 2 are needed", AGAIN),
    ),
    "flipped bits in a shard": (lambda: spoiled(PREDICTION, "class"), SHARD, (PREDICTION, "broken inside", AGAIN)),
    "flipped bits in a histogram": (
        lambda: spoiled(PREDICTION, "histogram"),
        f"{ROUND}/cut.csv",
        (PREDICTION, "broken inside", AGAIN),
    ),
    "flipped bits in pseudo-labels": (
        lambda: spoiled(LABELS, "label"),
        TRAIN,
        (LABELS, "broken inside", "label again"),
    ),
    "pseudo-labels of other images": (
        lambda: edit(LABELS, lambda file: file["images"].write_direct(np.array(list("abcd"), object))),
        TRAIN,
        (LABELS, "its images are not those of", "make it again"),
    ),
    "a class id that there is not": (
        lambda: edit(LABELS, lambda file: file["label"].__setitem__(..., 250)),
        TRAIN,
        (LABELS, "broken inside ('/label' has the class id 250, and there are 3 classes)", "label again"),
    ),
    "a class id that there is not in a shard": (
        lambda: edit(PREDICTION, lambda file: file["class"].__setitem__((0, 0, 0), 3)),
        SHARD,
        (PREDICTION, "'/class' has the class id 3, and there are 3 classes", AGAIN),
    ),
    "images of no pixels": (
        lambda: edit(LABELS, lambda file: file["shapes"].__setitem__(0, 0)),
        f"{ROUND}/pseudo_label_scores.csv",
        (LABELS, "broken inside (an image is 0×0 on a canvas of", "label again"),
    ),
    "images beyond the canvas": (
        lambda: edit(PREDICTION, lambda file: file["shapes"].__setitem__(0, 9999)),
        SHARD,
        (PREDICTION, "broken inside (an image is 9999×9999 on a canvas of", AGAIN),
    ),
    "a name that leads elsewhere": (
        lambda: edit(LABELS, lambda file: file["images"].__setitem__(0, "../../escaped")),
        TRAIN,
        (LABELS, "broken inside (an image is called '../../escaped')", "label again"),
    ),
    "no name": (
        lambda: edit(PREDICTION, lambda file: file["images"].__setitem__(0, "")),
        SHARD,
        (PREDICTION, "broken inside (an image is called '')", AGAIN),
    ),
    "a cut of other columns": (
        lambda: edit(LABELS, replaced("cut", np.zeros(3, [("prior", float), ("threshold_bin", int)]))),
        TRAIN,
        (LABELS, "broken inside ('cut' has no column 'class' of text)", "label again"),
    ),
    "colors that are none": (
        lambda: edit(PREDICTION, lambda file: file.attrs.update(colors="[[1, 2, 256]]")),
        SHARD,
        (PREDICTION, "broken inside (its attribute 'colors' is '[[1, 2, 256]]')", AGAIN),
    ),
    "an agreement of no number": (
        lambda: edit(PREDICTION, lambda file: file.attrs.update(least_agreement="x")),
        f"{ROUND}/cut.csv",
        (PREDICTION, "its attribute 'least_agreement' is 'x'", AGAIN),
    ),
    "a shard of labels whose images have no names": (
        lambda: edit(SHARD, lambda file: file["images"].__setitem__(0, "a/../../b")),
        LABELS,
        (SHARD, "broken inside (an image is called 'a/../../b')", "label again"),
    ),
    "labels of another round": (lambda: shutil.copy(OTHER, SHARD), LABELS, (SHARD, "of another round", "label again")),
    "a missing shard of labels": (lambda: Path(SHARD).unlink(), LABELS, (SHARD, "no such file; run label again")),
    "a cut of other predictions": (
        lambda: table(f"{ROUND}/cut.csv", predicted=7),
        LABELS,
        ("another cut than", "run label again"),
    ),
    "a cut that is no table": (
        lambda: Path(f"{ROUND}/cut.csv").write_text("class,predicted\na,1\n"),
        SHARD,
        (f"{ROUND}/cut.csv: has columns", "run select again"),
    ),
    "a cut of other classes": (
        lambda: table(f"{ROUND}/cut.csv", **{"class": list("abc")}),
        SHARD,
        (f"{ROUND}/cut.csv: is about ('a', 'b', 'c'), not ('sky', 'road', 'car'); run select again",),
    ),
    "a prior that is no number": (
        lambda: table(CLASSES, share=["0.5", "nan", "0.5"]),
        f"{ROUND}/cut.csv",
        (CLASSES, "NaN or infinite shares", "run statistics again"),
    ),
    "statistics of other classes": (
        lambda: table(CLASSES, **{"class": list("abc")}),
        f"{ROUND}/cut.csv",
        (f"{CLASSES}: is about ('a', 'b', 'c'), not",),
    ),
    "a list of no images": (
        lambda: headed(VAL),
        f"{BASE}/confusion.csv",
        (VAL, "broken inside (it has no rows); delete it, and run snakemake to make it again"),
    ),
    "an empty list of images": (lambda: Path(VAL).write_text(""), f"{BASE}/confusion.csv", (VAL, "(it is empty)")),
    "half a list of images": (lambda: cut(Path(VAL)), f"{BASE}/confusion.csv", (VAL, "its last line has no end")),
    "bytes for a list of images": (
        lambda: Path(IMAGES).write_bytes(b"\xff\xfe\n"),
        PREDICTION,
        (IMAGES, "broken inside (it is no text)"),
    ),
    "zeros in a list of images": (
        lambda: Path(IMAGES).write_text(Path(IMAGES).read_text().replace("png", "\0\0\0")),
        PREDICTION,
        (IMAGES, "broken inside (it is no text)"),
    ),
    "sizes that are none": (
        lambda: table(IMAGES, height="nan"),
        PREDICTION,
        (IMAGES, "broken inside (height is 'nan', which is no count)"),
    ),
    "sizes below 0": (lambda: table(LABELED, width=-7), STATISTICS, (LABELED, "width is -7, which is no count")),
    "sizes of 0": (lambda: table(LABELED, width=0), MODEL, (LABELED, "an image has no size")),
    "an image twice in a list": (
        lambda: table(LABELED, image="x"),
        MODEL,
        (LABELED, "broken inside (the image 'x' is there twice)"),
    ),
    "a list of other columns": (
        lambda: Path(TRUTH).write_text("image\na\n"),
        f"{ROUND}/pseudo_label_scores.csv",
        (f"{TRUTH}: has columns ['image'], not ['image', 'image_file', 'label_file', 'height'",),
    ),
    "metrics without rows": (lambda: headed(f"{ROUND}/metrics.csv"), SUMMARY, (f"{ROUND}/metrics.csv", "no rows")),
    "half of the metrics": (lambda: cut(Path(f"{ROUND}/metrics.csv")), SUMMARY, ("metrics.csv: broken inside",)),
    "an empty table of pseudo-labels": (
        lambda: Path(f"{ROUND}/pseudo_labels.csv").write_text(""),
        SUMMARY,
        (f"{ROUND}/pseudo_labels.csv: broken inside (it is empty)",),
    ),
    "scores that are no numbers": (
        lambda: table(f"{ROUND}/pseudo_label_scores.csv", accuracy="x"),
        SUMMARY,
        ("pseudo_label_scores.csv: broken inside (accuracy is 'x', which is no number)",),
    ),
    "a table of more cells": (
        lambda: Path(f"{ROUND}/sizes.csv").write_text(Path(f"{ROUND}/sizes.csv").read_text() + "1,2,3\n"),
        PAGE,
        (f"{ROUND}/sizes.csv: broken inside (line ", "has 3 cells, not 7)"),
    ),
    "alarms with a quote without end": (
        lambda: Path(f"{ROUND}/alarms.csv").write_text('alarm,class,value,limit,message\n"a,b,1,1,c\n'),
        PAGE,
        (f"{ROUND}/alarms.csv: broken inside (line ", "unexpected end of data"),
    ),
    "a training curve without steps": (
        lambda: Path(f"{ROUND}/train.csv").write_text("a,b\n1,2\n"),
        PAGE,
        (f"{ROUND}/train.csv: has columns ['a', 'b'], not ['step']",),
    ),
    "half a manifest": (
        lambda: cut(Path(f"{ROUND}/manifest.json")),
        PAGE,
        (f"{ROUND}/manifest.json: broken inside (", "delete it, and run snakemake"),
    ),
    "a manifest of nothing": (
        lambda: Path(f"{ROUND}/manifest.json").write_text("{}"),
        PAGE,
        (f"{ROUND}/manifest.json: broken inside (it has no 'selftrain')",),
    ),
    "truncated statistics": (
        lambda: cut(Path(STATISTICS)),
        f"{ROUND}/predictions/prior-0.02/shard-0-of-2.h5",
        (STATISTICS, "not a whole HDF5 file", "run statistics again"),
    ),
    "a truncated preview": (
        lambda: cut(Path(PREVIEW)),
        PAGE,
        (PREVIEW, "not a whole HDF5 file", "run preview again"),
    ),
    "a preview without its models": (
        lambda: edit(PREVIEW, lambda file: file.__delitem__("models")),
        PAGE,
        (PREVIEW, "broken inside", "run preview again"),
    ),
    "a preview without a model's classes": (
        lambda: edit(PREVIEW, lambda file: file.__delitem__("models/pretrained/base/seed-0/label")),
        PAGE,
        (PREVIEW, "broken inside", "run preview again"),
    ),
    "a missing model": (lambda: Path(MODEL).unlink(), PREDICTION, (MODEL, "not a readable model file")),
    "a truncated model": (lambda: cut(Path(MODEL)), PREDICTION, (MODEL, "not a readable model file")),
    "a pickle for a model": (lambda: pickled(MODEL), PREDICTION, (MODEL, "not a readable model file")),
    "a pickle to start from": (lambda: pickled(MODEL), TRAIN, (MODEL, "not a safetensors file or a state dict")),
    "a model of another version": (
        lambda: remade(MODEL, {"version": 9}),
        PREDICTION,
        (MODEL, "version 9; this selftrain"),
    ),
    "a model of nothing": (
        lambda: save_file({}, MODEL, metadata={"selftrain": "[1"}),
        PREDICTION,
        (MODEL, "its metadata are not those of a model", "train it again"),
    ),
    "a model without a network": (
        lambda: remade(MODEL, {"model": {"encodr": "x"}}),
        PREDICTION,
        (MODEL, "not those of a model", "encodr"),
    ),
    "a model of other classes": (
        lambda: remade(MODEL, {"classes": ["a", "b", "c"]}),
        PREDICTION,
        (MODEL, "made for the classes ['a', 'b', 'c'], not ['sky', 'road', 'car']"),
    ),
    "a model of more classes": (
        lambda: remade(MODEL, {"classes": list("abcd")}),
        f"{BASE}/confusion.csv",
        (MODEL, "weights do not fit the architecture it names"),
    ),
    "a model of another architecture": (
        lambda: remade(MODEL, {"model": {"encoder": "mobilenetv3_small_050"}}),
        PREDICTION,
        (MODEL, "weights do not fit the architecture it names"),
    ),
    "arguments that a network does not take": (
        lambda: remade(MODEL, {"model": {"module": "tiny:network", "arguments": {"widht": 6}}}),
        PREDICTION,
        ("model.arguments: 'tiny:network' does not take them", "'widht'"),
    ),
    "weights to start from that fit nothing": (
        lambda: save_file({"x": torch.zeros(2)}, MODEL),
        TRAIN,
        (MODEL, "no weight fits the model; it has x, the model has encoder"),
    ),
    "weights that are no numbers": (
        lambda: ruined(MODEL),
        PREDICTION,
        (MODEL, "NaN or infinite weights", "train it again"),
    ),
    "no numbers to start from": (lambda: ruined(MODEL), TRAIN, (MODEL, "NaN or infinite weights in")),
    "infinite predictions": (lambda: huge(MODEL), PREDICTION, ("NaN or infinite logits for unlabeled-0", "diverged?")),
    "infinite predictions to be scored": (
        lambda: huge(MODEL),
        f"{BASE}/confusion.csv",
        ("NaN or infinite logits for val-0", "diverged?"),
    ),
    "an image that is gone": (
        lambda: Path("unlabeled/images/unlabeled-1.png").unlink(),
        PREDICTION,
        ("unlabeled/images/unlabeled-1.png: no such file",),
    ),
    "an image that is gone in training": (
        lambda: [path.unlink() for path in Path("labeled/images").iterdir()],
        MODEL,
        ("labeled/images/labeled-", "no such file"),
    ),
    "an image that is broken since": (
        lambda: cut(Path("val/images/val-0.png")),
        f"{BASE}/confusion.csv",
        ("val/images/val-0.png: not readable as an image",),
    ),
}


@pytest.mark.parametrize("case", ARTIFACTS)
def test_artifacts(case, ran, results, refused):
    change, output, told = ARTIFACTS[case]
    change()
    job = job_of(ran, output)
    refused(*job.arguments, told=told, outputs=list(map(Path, job.outputs)))
    assert not Path("code-ran").exists()


READING = {
    "inspect": ("cut.csv", "model.safetensors", "manifest.json", "pseudo_labels.h5", "preview.h5", "confusion.csv"),
    "summary": ("summary.csv",),
    "score": ("confusion.csv",),
    "compare": ("summary.csv",),
    "show": ("pseudo_labels.h5", "shard.h5"),
    "export-labels": ("pseudo_labels.h5",),
    "predict": ("model.safetensors",),
    "export": ("model.safetensors",),
}
BROKEN: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("nothing, of, use\n1\n"),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "folder": lambda path: path.mkdir(),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Code())),
    "HDF5": lambda path: h5py.File(path, "w").close(),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize(("command", "name"), [(one, name) for one, names in READING.items() for name in names])
def test_commands_that_read(command, name, broken, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BROKEN[broken](tmp_path / name)
    images = [str(tmp_path / "images")] if command == "predict" else []
    output = ["-o", str(tmp_path / "out.png")] if command in ("show", "predict", "export", "export-labels") else []
    refused(command, tmp_path / name, *images, *output, told=(name,), outputs=[tmp_path / "out.png"])
    assert not (tmp_path / "code-ran").exists()


def named(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file["images"].__setitem__(0, name)


def told_of(name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.pop(name) if value is None else file.attrs.update({name: value})


OPENED = ("inspect", "show", "export-labels")
STRANGE: dict[str, tuple[Callable[[h5py.File], Any], str, tuple[str, ...]]] = {
    **{
        f"an image called {name!r}": (named(name), f"broken inside (an image is called {name!r}); run label", OPENED)
        for name in ("../../escaped", "/tmp/escaped", "", "a/../../escaped", "a\nb", "..", ".")
    },
    "an image twice": (named("unlabeled-1"), "broken inside (the image 'unlabeled-1' is there twice)", OPENED),
    "images of no pixels": (lambda file: file["shapes"].__setitem__(0, 0), "an image is 0×0 on a canvas of", OPENED),
    "another id": (
        lambda file: file["label"].__setitem__((0, 0, 0), 250),
        "broken inside ('/label' has the class id 250, and there are 3 classes); run label again to make it",
        ("show", "export-labels"),
    ),
    "branches without agreement": (told_of("branches", 2), "no dataset 'agreement', and there are 2", OPENED),
    "no table": (replaced("classes", np.zeros(3, [("a", float)])), "'classes' has no column 'class' of text", OPENED),
    "settings of nothing": (told_of("settings", "{}"), "broken inside (", ("inspect --portion 0.5",)),
    **{
        f"{name} {value!r}": (
            told_of(name, value),
            f"broken inside (no attribute '{name}')" if value is None else f"broken inside (its attribute '{name}' is ",
            OPENED,
        )
        for name, value in [
            ("colors", "x"),
            ("colors", "[[1]]"),
            ("settings", None),
            ("settings", 3),
            ("round", None),
            ("round", "x"),
            ("branches", -1),
            ("method", None),
            ("portion", "x"),
            ("review", '[{"image": 3}]'),
        ]
    },
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strangers_pseudo_labels(case, results, refused):
    """Whoever made them: nothing is written beside the folder that is named, and what is wrong is told."""
    change, told, commands = STRANGE[case]
    edit(LABELS, change)
    for command in commands:
        name, *options = command.split()
        output = [] if name == "inspect" else ["-o", {"show": "out/a.png"}.get(name, "out")]
        refused(name, LABELS, *options, *output, told=(f"{LABELS}: ", told), outputs=[Path("out")])
    assert not [*Path().absolute().parent.glob("**/*escaped*"), *Path("/tmp").glob("escaped*")]


@pytest.mark.parametrize("command", ["predict", "export", "show"])
def test_a_strangers_model_runs_no_code(command, tmp_path, refused, monkeypatch):
    """Its network may be named by an import path, which would be code of whoever made the file."""
    monkeypatch.chdir(tmp_path)
    tiny.save_model(tmp_path / "model.safetensors")
    remade("model.safetensors", {"model": {"module": "theirs:network"}})
    (tmp_path / "theirs.py").write_text("open('code-ran', 'w')")
    Image.fromarray(COLOR).save("a.png")
    arguments = {
        "predict": ["a.png", "-o", "out"],
        "export": ["-o", "out"],
        "show": ["--image", "a.png", "-o", "out.png"],
    }
    told = ("model.safetensors: its network is 'theirs:network'", "--own-code theirs:network")
    outputs = [tmp_path / "out", tmp_path / "out.png", tmp_path / "code-ran"]
    refused(command, "model.safetensors", *arguments[command], told=told, outputs=outputs)
    others = ("--own-code", "tiny:network")
    refused(command, "model.safetensors", *arguments[command], *others, told=told, outputs=outputs)
    remade("model.safetensors", {"model": {"module": "tiny:network"}})
    assert command == "export" or call(command, "model.safetensors", *arguments[command], *others) == 0


OPTIONS = {
    "predict": [
        *(["--size", *pair] for pair in (("0", "0"), ("-1", "5"))),
        *(["--scale", one] for one in ("0", "-1", "nan", "inf")),
        *(["--patch", *pair] for pair in (("0", "0"), ("8", "-8"))),
        ["--patch", "8", "8", "--patches", "0"],
        ["--limit", "0"],
    ],
    "export": [["--size", "-3", "4"]],
    "show": [["--image", "a.png", "--limit", "0"]],
}


@pytest.mark.parametrize(("command", "options"), [(one, each) for one, of in OPTIONS.items() for each in of])
def test_options(command, options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.save_model(tmp_path / "model.safetensors")
    Image.fromarray(COLOR).save("a.png")
    images = ["a.png"] if command == "predict" else []
    assert call(command, "model.safetensors", *images, "-o", "out", "--own-code", "tiny:network", *options) == 2
    said = capsys.readouterr().err
    assert f"Invalid value for '{options[-2] if len(options) != 3 else options[0]}'" in said and "Traceback" not in said
    assert not Path("out").exists()
