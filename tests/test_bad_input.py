"""Bad input, a row a case: the command line says what is wrong, where, and what would be right, and writes nothing."""

import ctypes
import errno
import json
import logging
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import yaml
from PIL import Image
from project import forked_snakemake
from safetensors.torch import load_file, save_file
from walking import ROOT, Job, call, walk

from selftrain.flow import model_at
from selftrain.graph import Graph
from selftrain.models import files
from selftrain.settings.config_file import parse

SAID = logging.ERROR


@pytest.fixture
def refused(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that is to fail; returns its one message, in which all of `told` must be."""

    def run(*arguments: Any, told: tuple[str, ...], outputs: list[Path] = []) -> str:  # noqa: B006
        caplog.clear()
        assert call(*arguments) == 1
        (record,) = [one for one in caplog.records if one.levelno >= SAID]
        said = record.getMessage()
        assert "Traceback" not in said and record.exc_info is None
        assert not [part for part in told if part not in said], said
        assert not [path for path in outputs if path.exists()]
        assert not list(tmp_path.rglob(".*unfinished*"))
        return said

    return run


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's right to read and write what it may not, where root runs this (Linux)."""
    header, before = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, before) == 0
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of the effective ones
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        libc.capset(header, before)


# Configs. A change is a mapping of paths such as `tasks.tiny.classes` to values, or the text of the file.

CONFIGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "an empty file": ("", ("config.yaml: should be a mapping of keys",)),
    "no mapping": ("- a\n", ("config.yaml: should be a mapping of keys, not ['a']",)),
    "no YAML": ("a: [1\nb: 2", ("config.yaml: not readable as YAML", "line 2")),
    "no UTF-8": (b"\xff\xfe\x00", ("config.yaml: not readable as YAML",)),
    "two documents": ("a: 1\n---\nb: 2\n", ("not readable as YAML", "another document")),
    "nested without end": ("[" * 2000, ("config.yaml: not readable as YAML",)),
    "no such date": ("seeds: 2021-13-45", ("config.yaml: not readable as YAML", "month")),
    "a number too long": ("seeds: " + "9" * 5000, ("config.yaml: not readable as YAML",)),
    "no such truth value": ("seeds: !!bool x", ("config.yaml: not readable as YAML: 'x' is no bool", "line 1")),
    "no time": ("shards: 1\nseeds: !!timestamp x", ("not readable as YAML: 'x' is no timestamp", "line 2")),
    "an empty number": ("seeds: !!int ''", ("config.yaml: not readable as YAML: '' is no int", "line 1")),
    "a null character in an include": (
        'include: ["a\\0b"]',
        ("not readable as YAML: a null character", "line 1"),
    ),
    "a null character": ('data_root: "a\\0b"', ("config.yaml: not readable as YAML: a null character", "line 1")),
    "code": ("seeds: !!python/object/apply:os.system ['touch code-ran']\n", ("not readable as YAML", "python/object")),
    "two experiments of one name": ("experiments:\n  a: {}\n  a: {}\n", ("the key 'a' is there twice", "line 2")),
    "a file to include that is not there": (
        {"include": ["no.yaml"]},
        ("config.yaml: include: ", "no such config file"),
    ),
    "a file that includes itself": ({"include": ["config.yaml"]}, ("includes this file; take one of the two out",)),
    "an unknown key": ({"shrads": 3}, ("shrads: unknown key 'shrads'; did you mean 'shards'?",)),
    "an unknown key deep inside": ({"pretrain.base.train.stpes": 1}, ("pretrain.base.train.stpes: ", "'steps'")),
    "text for a number": ({"batch_size": "many"}, ("batch_size: should be a whole number, not 'many'",)),
    "a number for a list": ({"seeds": 3}, ("seeds: should be a list, not 3",)),
    "a list for a mapping": ({"model": [1]}, ("model: should be a mapping of keys",)),
    "nothing": ({"data_root": None}, ("data_root: should be text, not empty",)),
    "no number": ({"train.steps": float("nan")}, ("train.steps: should be a finite number",)),
    "a portion above 1": ({"experiments.dars.rounds.0.portion": 1.5}, ("rounds[0].portion: ", "equal to 1, not 1.5")),
    "a portion below 0": ({"experiments.dars.rounds.1.portion": -0.1}, ("rounds[1].portion: ", "equal to 0, not -0.1")),
    "a round without a portion": ({"experiments.dars.rounds.0": {}}, ("rounds[0].portion: is missing", "from 0 to 1")),
    "no rounds": ({"experiments.dars.rounds": []}, ("experiments.dars.rounds: has too few entries",)),
    "an unknown policy": ({"experiments.dars.policy": "dasr"}, ("experiments.dars.policy: unknown name", "'dars'")),
    "an unknown algorithm": ({"experiments.dars.algorithm": "self"}, ("dars.algorithm: unknown name", "supervised")),
    "an unknown encoder": ({"model.encoder": "resnet81"}, ("pretrain.base.model.encoder: timm has no", "resnet18")),
    "an unknown decoder": ({"model.decoder": "asp"}, ("model.decoder: unknown name 'asp'; did you mean 'aspp'?",)),
    "an unknown experiment": ({"only": ["drs"]}, ("only[0]: unknown experiment 'drs'; did you mean 'dars'?",)),
    "an unknown pretraining": ({"experiments.dars.pretrain": "bas"}, ("dars.pretrain: unknown pretraining", "'base'")),
    "an unknown task": ({"experiments.dars.tasks": ["tny"]}, ("dars.tasks[0]: unknown task 'tny'", "'tiny'")),
    "an unknown data set": ({"tasks.tiny.labeled": {"dataset": "vok"}}, ("tiny.labeled.dataset.name: ", "'voc'")),
    "an unknown split": (
        {"tasks.tiny.labeled": {"dataset": {"name": "camvid", "split": "trian", "folder": "."}}},
        ("tasks.tiny.labeled: ", "'trian'", "train"),
    ),
    "a split under another's name": (
        {"tasks.tiny.evaluation.truth": {"list": "x"}},
        ("tiny.evaluation.truth: the name of another split; choose another name",),
    ),
    "no evaluation": ({"tasks.tiny.evaluation": {}}, ("tasks.tiny.evaluation: has too few entries",)),
    "no classes": ({"tasks.tiny.classes": []}, ("tasks.tiny.classes: has too few entries",)),
    "a class without a name": ({"tasks.tiny.classes": ["a", "", "c"]}, ("tasks.tiny.classes: '' cannot stand in",)),
    "a class of two lines": ({"tasks.tiny.classes": ["a", "b\nc", "d"]}, ("classes: 'b\\nc' cannot stand in",)),
    "a class twice": ({"tasks.tiny.classes": ["a", "b", "a"]}, ("tasks.tiny.classes: a named twice",)),
    "an ignore id that is a class": ({"tasks.tiny.ignore_index": 2}, ("ignore_index: 2 is the class 'car'",)),
    "an id for no class": ({"tasks.tiny.labeled.ids": {7: 3}}, ("labeled.ids.7: maps to 3", "0 to 2")),
    "a batch of 0 to predict": ({"batch_size": 0}, ("batch_size: should be greater than or equal to 1, not 0",)),
    "a batch of 0 to train": ({"train.batch_size": 0}, ("train.batch_size: should be greater than or equal to 1",)),
    "a seed twice": ({"seeds": [0, 1, 0]}, ("seeds: [0, 1, 0] has a seed twice",)),
    "a name that is a folder of its own": (
        {"experiments.logs": {"policy": "dars", "rounds": [{"portion": 0.5}]}},
        ("experiments.logs: this name is a folder of its own in results; choose another",),
    ),
    "a name with a slash": ({"experiments.a/b": {}}, ("a/b", "a name is made of letters, digits, '-' and '_'")),
    "no results": ({"results": ""}, ("config.yaml: results: should be a path, not empty",)),
    "results that are the folder itself": ({"results": "./"}, ("results: should be a folder of its own, such as",)),
    "results with braces": ({"results": "a{b}"}, ("results: 'a{b}' has braces or control characters", "rename it")),
    "results with a line break": ({"results": "a\nb"}, ("results: 'a\\nb' has braces or control characters",)),
    "weights with braces": ({"pretrain.base.start": "{a}.pth"}, ("pretrain.base.start: '{a}.pth' has braces",)),
    "weights that are not there": ({"pretrain.base.start": "no.pth"}, ("pretrain.base.start: no.pth: no such file",)),
}


def changed(config: Any, changes: dict[str, Any]) -> Any:
    """A config with values at paths such as `experiments.dars.rounds.0.portion`."""
    config = deepcopy(config)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        node = config
        for part in parents:
            node = node[part] if isinstance(node, list) else node.setdefault(part, {})
        node[last] = value
    return config


def written(folder: Path, config: Any) -> Path:
    path = folder / "config.yaml"
    text = config if isinstance(config, str | bytes) else yaml.safe_dump(config, sort_keys=False)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(case, folder_task, tmp_path, refused, monkeypatch):
    change, told = CONFIGS[case]
    monkeypatch.chdir(tmp_path)
    content = change if isinstance(change, str | bytes) else changed(folder_task, change)
    said = refused("check", written(tmp_path, content), told=told, outputs=[tmp_path / "results"])
    assert "config.yaml" in said or "pretrain.base" in said or "tasks.tiny" in said
    assert not (tmp_path / "code-ran").exists()


def test_a_config_that_is_not_there_or_may_not_be_read(tmp_path, folder_task, refused):
    refused("check", tmp_path / "no.yaml", told=("no.yaml: no such config file",))
    refused("check", tmp_path, told=(f"{tmp_path}: no such config file",))
    path = written(tmp_path, folder_task)
    path.chmod(0)
    with unprivileged():
        refused("check", path, told=("config.yaml: not readable as YAML", "Permission denied"))


# Data. A change is made to the files of a task that is well; `images` are those of a split.


def png(path: Path, pixels: Any, mode: str | None = None, **options: Any) -> None:
    picture = Image.fromarray(np.asarray(pixels))
    (picture if mode is None else picture.convert(mode)).save(path, **options)


def hidden(root: Path) -> None:
    (root / "hidden").mkdir()
    (root / "hidden/list.txt").write_text("a.png\n")
    (root / "hidden").chmod(0)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    png(path, COLOR, exif=exif)


def listed(root: Path, line: str) -> dict[str, Any]:
    (root / "list.txt").write_text(f"unlabeled/images/unlabeled-0.png\n{line}\n")
    return {"tasks.tiny.unlabeled": {"list": "list.txt"}}


def same(root: Path, split: str, of: str) -> None:
    shutil.rmtree(root / split / "images")
    shutil.copytree(root / of / "images", root / split / "images")


def bomb(path: Path) -> dict[str, Any]:
    """A small file of a million and a half pixels, where one million is allowed."""
    png(path, np.zeros((1500, 1000), np.uint8))
    assert path.stat().st_size < 4000
    return {"tasks.tiny.pixels": {"limit": 1}}


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n"
"""For which Pillow would start Ghostscript."""
COLOR = np.full((6, 8, 3), 90, np.uint8)
IMAGE, LABEL = "labeled/images/labeled-0.png", "labeled/labels/labeled-0.png"
DATA: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a missing image": (lambda root: listed(root, "no.png"), ("unlabeled: ", "no.png: no such file")),
    "a missing label": (lambda root: (root / LABEL).unlink(), ("labeled-0.png: no label", "labeled/labels/*")),
    "no images": (lambda root: shutil.rmtree(root / "unlabeled"), ("unlabeled/images/*: no file matches",)),
    "an empty list": (lambda root: (listed(root, ""), (root / "list.txt").write_text("\n"))[0], ("split is empty",)),
    "a missing list": (lambda root: {"tasks.tiny.unlabeled": {"list": "no.txt"}}, ("no.txt: no such list file",)),
    "a list of bytes": (
        lambda root: (listed(root, ""), (root / "list.txt").write_bytes(b"\xff\x80"))[0],
        ("list.txt: not readable as a list",),
    ),
    "a line of three": (lambda root: listed(root, "a b c"), ("list.txt:2: 'a b c' should be an image",)),
    "a line that leaves the data": (
        lambda root: listed(root, "../../etc/passwd"),
        ("list.txt:2: '../../etc/passwd' points outside data_root", "only `outside_data_root: true` allows"),
    ),
    "an empty image": (lambda root: (root / IMAGE).write_bytes(b""), (IMAGE, "not readable as an image")),
    "a truncated image": (lambda root: cut(root / IMAGE), (IMAGE, "not readable as an image")),
    "text for an image": (lambda root: (root / IMAGE).write_text("text"), (IMAGE, "not readable as an image")),
    "a pickle for an image": (lambda root: (root / IMAGE).write_bytes(pickle.dumps(Code())), (IMAGE, "not readable")),
    "a pipe for an image": (
        lambda root: (os.mkfifo(root / "pipe.png"), listed(root, "pipe.png"))[1],
        ("unlabeled: ", "pipe.png: a pipe, not a file"),
    ),
    "a program for an image": (
        lambda root: (root / IMAGE).write_bytes(POSTSCRIPT),
        (IMAGE, "not readable as an image", "cannot identify"),
    ),
    "a line that is too long": (lambda root: listed(root, "a" * 5000), ("unlabeled: ", "aaa", "File name too long")),
    "a list that may not be read": (
        lambda root: (hidden(root), {"tasks.tiny.unlabeled": {"list": "hidden/list.txt"}})[1],
        ("hidden/list.txt: not readable as a list", "Permission denied"),
    ),
    "CMYK": (
        lambda root: png(root / "labeled/images/labeled-0.png", COLOR, "CMYK", format="jpeg"),
        ("CMYK", "8-bit RGB or gray is needed"),
    ),
    "alpha": (lambda root: png(root / IMAGE, COLOR, "RGBA"), (IMAGE, "RGBA; 8-bit RGB or gray is needed")),
    "16 bits": (lambda root: png(root / IMAGE, np.zeros((6, 8), np.uint16)), (IMAGE, "I;16", "8-bit RGB or gray")),
    "turned by EXIF": (lambda root: turned(root / IMAGE), (IMAGE, "EXIF orientation; save it upright")),
    "a bomb": (
        lambda root: bomb(root / IMAGE),
        (IMAGE, "image of 2 million pixels; at most 1", "pixels: {limit: ...}"),
    ),
    "a bomb for a label": (lambda root: bomb(root / LABEL), (LABEL, "image of 2 million pixels", "limit")),
    "a label of another size": (
        lambda root: png(root / LABEL, np.zeros((3, 4), np.uint8)),
        (LABEL, "label of 3×4, its image is 6×8"),
    ),
    "a label of other ids": (
        lambda root: png(root / LABEL, np.full((6, 8), 77, np.uint8)),
        (LABEL, "label ids 77 are neither classes 0 to 2 nor the ignore index 255"),
    ),
    "a label of floats": (
        lambda root: (
            png(root / "labeled/labels/labeled-0.tif", np.zeros((6, 8), np.float32)),
            (root / LABEL).unlink(),
        ),
        ("labeled-0.tif: label of floating-point numbers; integer class ids are needed",),
    ),
    "a label of colors": (lambda root: png(root / LABEL, COLOR), (LABEL, "mode RGB; a palette or gray image")),
    "a name with a line break": (
        lambda root: (root / IMAGE).rename(root / "labeled/images/labeled\n0.png"),
        ("labeled\\n0.png': a name with a line break", "rename it"),
    ),
    "a name that is no text": (
        lambda root: (root / IMAGE).rename(os.fsdecode(os.fsencode(root) + b"/labeled/images/labeled-0\xff.png")),
        ("labeled-0\\udcff.png': a name", "rename it"),
    ),
    "a stem twice": (
        lambda root: shutil.copy(root / IMAGE, root / "labeled/images/labeled-0.bmp"),
        ("labeled-0.bmp", "the same stem 'labeled-0' 2 times"),
    ),
    "a link that leads nowhere": (
        lambda root: (root / "labeled/images/x.png").symlink_to(root / "gone.png"),
        ("labeled/images/x.png: a link that leads nowhere",),
    ),
    "a link to itself": (
        lambda root: (root / "labeled/images/x.png").symlink_to(root / "labeled/images/x.png"),
        ("labeled/images/x.png: a link that leads nowhere",),
    ),
    "no permission": (lambda root: (root / IMAGE).chmod(0), (IMAGE, "not readable as an image", "Permission denied")),
    "a disk that fails": (
        lambda root: ((root / IMAGE).unlink(), (root / IMAGE).symlink_to("/proc/self/mem")),
        (IMAGE, "not readable as an image", "Input/output error"),
    ),
    "learned and evaluated on": (
        lambda root: shutil.copy(root / IMAGE, root / "val/images/val-0.png"),
        ("val: ", "val-0.png is in the labeled split too", IMAGE),
    ),
    "unlabeled images that are those to evaluate on": (
        lambda root: same(root, "unlabeled", of="val"),
        ("val: has the images of the unlabeled split", "transductive: true"),
    ),
}


class Code:
    """What makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch code-ran",)


@pytest.mark.parametrize("case", DATA)
def test_data(case, folder_task, tmp_path, refused, monkeypatch):
    change, told = DATA[case]
    monkeypatch.chdir(tmp_path)
    changes = change(tmp_path)
    config = changed(folder_task, changes if isinstance(changes, dict) else {})
    job = Graph(parse(config))
    settings = Path(job.told(job.check("tiny")))
    with unprivileged():
        refused("check", written(tmp_path, config), told=("task 'tiny': ", *told))
        refused(
            "stage", "check", "--settings", settings, "--output", "out.csv", told=told, outputs=[tmp_path / "out.csv"]
        )
    assert not (tmp_path / "code-ran").exists()


def test_files_outside_of_the_data_may_be_allowed(folder_task, tmp_path):
    shutil.copy(tmp_path / "unlabeled/images/unlabeled-0.png", tmp_path.parent / "other.png")
    change = listed(tmp_path, "../other.png") | {"outside_data_root": True}
    assert call("check", written(tmp_path, changed(folder_task, change))) == 0


def test_images_may_be_learned_from_without_labels_and_evaluated_on(folder_task, tmp_path):
    same(tmp_path, "unlabeled", of="val")
    assert call("check", written(tmp_path, changed(folder_task, {"tasks.tiny.transductive": True}))) == 0


def test_links_that_lead_in_circles_are_followed_once(folder_task, tmp_path):
    """Each of two such links in a folder doubles what a walk finds at every level."""
    for name in ("a", "b", "c"):
        (tmp_path / "unlabeled/images" / name).symlink_to(tmp_path / "unlabeled/images")
    change = {"tasks.tiny.unlabeled.images": "unlabeled/images/**/*.png"}
    assert call("check", written(tmp_path, changed(folder_task, change))) == 0


# Artifacts: those of a whole run on tiny data, of which each case breaks one.

SPLITS = {"labeled": 3, "unlabeled": 4, "val": 2}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Job]]:
    """A folder in which the whole graph has run, and its jobs."""
    folder = tmp_path_factory.mktemp("ran")
    for number, (name, count) in enumerate(SPLITS.items()):
        tiny.split(folder / name, [tiny.SIZE] * count, seed=number)
    split = {name: {"images": f"{name}/images/*", "labels": f"{name}/labels/*"} for name in SPLITS}
    config = {
        "batch_size": 2,
        "shards": 2,
        "tasks": {
            "toy": {
                "classes": list(tiny.CLASSES),
                "labeled": split["labeled"],
                "unlabeled": split["unlabeled"],
                "truth": True,
                "evaluation": {"val": split["val"]},
            }
        },
        "train": {"steps": 2, "batch_size": 2, "augmentation": {"crop": [24, 24]}},
        "pretrain": {"base": {"model": {"module": "tiny:network"}}},
        "experiments": {
            "dars": {
                "policy": "dars",
                "rounds": [{"portion": 0.5}, {"portion": 0.5, "prediction": {"spatial_prior": {}}}],
            }
        },
    }
    return folder, walk(folder, config)


@pytest.fixture
def results(ran: tuple[Path, list[Job]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which a case runs."""
    shutil.copytree(ran[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".finished"))
    monkeypatch.chdir(tmp_path / "copy")
    return Path("results/toy")


def job_of(ran: tuple[Path, list[Job]], output: str) -> Job:
    """The job that makes a file, without that file and the others that it makes."""
    (job,) = [job for job in ran[1] if any(path.endswith(output) for path in job.outputs)]
    for path in job.outputs:
        if Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)
    return job


ROUND, BASE = "results/toy/dars/seed-0/round-1", "results/toy/pretrained/base/seed-0"
PREDICTION = f"{BASE}/predictions/single/shard-0-of-2.h5"
MODEL = f"{BASE}/model.safetensors"


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


TRAIN, LABELS = f"{ROUND}/model.safetensors", f"{ROUND}/pseudo_labels.h5"
SHARD = f"{ROUND}/pseudo_labels-0-of-2.h5"
OTHER = SHARD.replace("round-1", "round-2")
CLASSES = "results/toy/data/labeled/classes.csv"
STATISTICS = "results/toy/data/labeled/statistics.h5"
PREVIEW, PAGE = "results/toy/preview.h5", "results/report/index.html"
LABELED, IMAGES, VAL, TRUTH = (
    f"results/toy/data/{name}/images.csv" for name in ("labeled", "unlabeled", "val", "truth")
)
SUMMARY = "results/summary.csv"
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


# What the system refuses.

WRITERS = [
    "data/checked.csv",
    "data/labeled/images.csv",
    STATISTICS,
    MODEL,
    PREDICTION,
    f"{BASE}/confusion.csv",
    f"{ROUND}/cut.csv",
    f"{ROUND}/signs.csv",
    f"{ROUND}/alarms.csv",
    SHARD,
    LABELS,
    f"{ROUND}/pseudo_label_scores.csv",
    "results/summary.csv",
    PREVIEW,
    PAGE,
]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "failing"])
@pytest.mark.parametrize("output", WRITERS)
def test_a_disk_that_is_full_or_fails(output, number, ran, results, refused, monkeypatch):
    """Every job: what was written is no longer taken when it is to reach the disk."""

    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    job = job_of(ran, output)
    monkeypatch.setattr(os, "fsync", failing)
    told = ("cannot be written", os.strerror(number), {errno.ENOSPC: "free some space"}.get(number, "the disk"))
    refused(*job.arguments, told=told, outputs=[Path(path) for path in job.outputs if Path(path).suffix])


@pytest.mark.parametrize("output", [MODEL, PREDICTION, STATISTICS, SHARD, LABELS, PREVIEW, PAGE])
def test_a_file_that_ends_half_way(output, ran, results, refused):
    """Libraries in C write these files; here each gets some bytes and then an error of the system's."""
    job = job_of(ran, output)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        refused(*job.arguments, told=("cannot be written (File too large; ",), outputs=[Path(output)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_results_that_may_only_be_read(ran, results, refused):
    job = job_of(ran, "summary.csv")
    Path("results").chmod(0o555)
    with unprivileged():
        refused(*job.arguments, told=("results/summary.csv: cannot be written (Permission denied; let it be writable",))
    Path("results").chmod(0o755)


def test_a_file_where_a_folder_is_needed(ran, results, refused):
    job = job_of(ran, SHARD)
    shutil.rmtree(ROUND.rpartition("/")[0])
    Path(ROUND).parent.write_text("")
    refused(*job.arguments[:-1], f"{ROUND}/x.h5", told=(f"{ROUND}/", "cut.csv"))
    job = job_of(ran, MODEL)
    shutil.rmtree(BASE)
    Path(BASE).write_text("")
    refused(*job.arguments, told=("cannot be written", "a file is where a folder is needed"))


# Runs


def test_a_gpu_that_is_asked_for_and_not_there(ran, results, refused, monkeypatch):
    job = job_of(ran, PREDICTION)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    told = ("CUDA_VISIBLE_DEVICES=1 asks for a GPU, and torch sees none; ", "to compute on the CPU")
    refused(*job.arguments, told=told, outputs=list(map(Path, job.outputs)))


SETTINGS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "more memory than there is": (
        MODEL,
        {"model.arguments": {"width": 10**11}},
        ("out of memory (", "can't allocate memory", "lower train.batch_size or train.augmentation.crop"),
    ),
    "a scale beyond all numbers": (PREDICTION, {"prediction.scales": [1e30]}, ("prediction.scales.0",)),
    "a size beyond all numbers": (
        PREDICTION,
        {"prediction.scales": [1e9]},
        ("out of memory (", "smaller ones"),
    ),
    "more memory than there is to predict": (
        PREDICTION,
        {"prediction.scales": [30000.0]},
        ("out of memory (", "let fewer images pass at once (batch_size)"),
    ),
    "a crop that no image fills": (
        MODEL,
        {"train.augmentation.crop": [24, 49]},
        ("train.augmentation.crop: 49 is more than any image is wide, 48 at the largest scale; give a smaller crop",),
    ),
    "a loss that is no number": (
        MODEL,
        {"train.optimizer": {"name": "sgd", "lr": 1e30}, "train.steps": 10},
        ("step 2: the loss 'labeled' is nan; images: labeled-", "Lower the learning rate, set clip_gradient"),
    ),
    "settings of another version": (MODEL, {"old": 1}, ("not the settings of this job", "run it by Snakemake")),
    "no number in settings": (
        MODEL,
        {"train.optimizer.lr": None},
        ("not the settings of this job (train.optimizer.lr",),
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_of_a_job(case, ran, results, refused):
    output, changes, told = SETTINGS[case]
    job = job_of(ran, output)
    settings = Path(job.arguments[job.arguments.index("--settings") + 1])
    settings.write_text(json.dumps(changed(json.loads(settings.read_text()), changes)))
    refused(*job.arguments, told=told, outputs=list(map(Path, job.outputs)))


TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a task": ("results/tyo/data/checked.csv", ("unknown task 'tyo'; did you mean 'toy'?",)),
    "a split": ("results/toy/data/vla/images.csv", ("tasks.toy: unknown split 'vla'; did you mean 'val'?",)),
    "a split that is not drawn": ("results/toy/data/val/drawn", ("tasks.toy.evaluation.val: is not drawn",)),
    "a review": ("results/toy/data/review.csv", ("tasks.toy.review: is missing",)),
    "a pretraining": (MODEL.replace("base", "bsae"), ("unknown pretraining 'bsae'; did you mean 'base'?",)),
    "an experiment": (LABELS.replace("dars", "drs"), ("unknown experiment 'drs'; did you mean 'dars'?",)),
    "a round": (LABELS.replace("round-1", "round-9"), ("round-9: no round 9; 'dars' has rounds 1 to 2",)),
    "a seed": (TRAIN.replace("seed-0", "seed-7"), ("seed-7/round-1: no seed 7; the config has seeds 0",)),
    "a seed in other digits": (TRAIN.replace("seed-0", "seed-00"), ("MissingRuleException",)),
    "a shard of pseudo-labels": (
        SHARD.replace("-0-of", "-5-of"),
        ("no shard 5-of-2; with `shards: 2` there are 0-of",),
    ),
    "a shard of predictions": (PREDICTION.replace("-0-of", "-9-of"), ("no shard 9-of-2; ", "0-of-2 to 1-of-2")),
    "other shards": (PREDICTION.replace("-of-2", "-of-1"), ("no shard 0-of-1; ", "0-of-2 to 1-of-2")),
    "a mode": (PREDICTION.replace("single", "sngle"), ("unknown prediction mode 'sngle'; did you mean 'single'?",)),
    "a calibrator": (f"{BASE}/calibration/matrix/calibrator.json", ("tasks.toy: unknown split 'calibration'",)),
    "a file": (f"{ROUND}/metrix.csv", ("MissingRuleException", f"{ROUND}/metrix.csv")),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets_that_do_not_exist(case, ran, results):
    target, told = TARGETS[case]
    code, said = snakemake("--cores", "1", "--", target)
    assert code == 1 and "Traceback" not in said and not [part for part in told if part not in said], said
    assert not Path(target).exists() and not list(Path(".snakemake").glob("locks/*"))


def test_settings_that_cannot_be_written(ran, results):
    """Those of a job, which are written while Snakemake plans."""
    graph = Graph.load("config.yaml")
    settings = Path(graph.told(graph.select(model_at("toy", "dars/seed-0/round-1"))))
    settings.unlink()
    settings.mkdir()
    code, said = snakemake("--dry-run", "--force", "--", f"{ROUND}/cut.csv")
    assert code == 1 and "Traceback" not in said, said
    assert f"error: {settings}: cannot be written (Is a directory; a folder is where a file is needed)" in said


@pytest.mark.parametrize("folder", ["/proc", "x" * 300], ids=["system", "long"])
def test_results_that_cannot_be_written(folder, ran, results):
    code, said = snakemake("--dry-run", "--config", f"results={folder}")
    assert code == 1 and "Traceback" not in said and f"error: {folder}/.settings" in said, said


def test_two_runs_in_one_directory(ran, results):
    """The lock of a run that is at work, as Snakemake keeps it."""
    locks = Path(".snakemake/locks")
    locks.mkdir(parents=True, exist_ok=True)
    (locks / "0.output.lock").write_text(f"{PREDICTION}\n")
    Path(PREDICTION).unlink()
    code, said = snakemake("--cores", "1", "--", PREDICTION)
    assert code != 0 and "LockException" in said and "Traceback" not in said, said
    assert not Path(PREDICTION).exists()


def snakemake(*arguments: str) -> tuple[int | None, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    options = ["--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", "none", "--configfile", "config.yaml"]
    return forked_snakemake(Path.cwd(), {**os.environ, "PYTHONPATH": path}, *options, *arguments)


def test_a_traceback_is_there_for_who_asks_for_it(tmp_path):
    for option in ([], ["--debug"]):
        command = [sys.executable, "-m", "selftrain", *option, "check", tmp_path / "no.yaml"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and "no.yaml" in done.stderr
        assert ("Traceback" in done.stderr) == bool(option), done.stderr
