"""The signature of a split's files, and what the graph does again when one of them changes."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked_jobs import forked_jobs
from PIL import Image
from project import Project

from selftrain.data.signature import signature
from selftrain.errors import UserError


@pytest.fixture
def files(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text(name)
    return [str(tmp_path / name) for name in ("a.png", "b.png")]


def write_at(path, text, nanoseconds):
    Path(path).write_text(text)
    os.utime(path, ns=(nanoseconds, nanoseconds))


def test_a_signature_is_the_same_for_the_same_files(files):
    assert signature(files) == signature(iter(files))
    assert len(signature(files)) == len(signature([])) == 16


def test_it_changes_with_a_name_a_size_a_time_and_their_number(files, tmp_path):
    write_at(files[0], "a.png", 10**18)
    told = [signature(files)]
    write_at(files[0], "a.PNG", 10**18 + 1)  # a nanosecond later
    told.append(signature(files))
    write_at(files[0], "longer", 10**18 + 1)
    told.append(signature(files))
    told.append(signature(files[:1]))
    Path(files[1]).rename(tmp_path / "c.png")
    told.append(signature([files[0], str(tmp_path / "c.png")]))
    assert len(set(told)) == len(told)


def test_of_a_link_the_file_behind_it_counts(files, tmp_path):
    (tmp_path / "link.png").symlink_to(files[0])
    before = signature([str(tmp_path / "link.png")])
    write_at(files[0], "other", 10**18)
    assert signature([str(tmp_path / "link.png")]) != before


def test_names_that_are_no_utf8_are_told_apart(tmp_path):
    paths = [os.fsdecode(os.fsencode(tmp_path) + b"/\xff%d.png" % number) for number in range(2)]
    for path in paths:
        write_at(path, "", 10**18)
    assert signature(paths[:1]) != signature(paths[1:])


def test_a_file_that_is_gone_is_named(files):
    Path(files[1]).unlink()
    with pytest.raises(UserError, match=r"b\.png: No such file or directory; it was there when the split was listed"):
        signature(files)


SPLITS = ("labeled", "unlabeled", "val")
TABLES = [f"results/t/data/{split}/images.csv" for split in SPLITS]


def write_image(path, value):
    Image.fromarray(np.full((8, 16, 3), value, np.uint8)).save(path)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A project over files of its own, but for a split that is drawn, checked and listed."""
    folder = tmp_path_factory.mktemp("signature")
    for name in ("unlabeled", "labeled", "ids"):
        (folder / "data" / name).mkdir(parents=True)
    for number in range(3):
        write_image(folder / f"data/unlabeled/u{number}.png", 50 + number)
        write_image(folder / f"data/labeled/l{number}.png", 100 + number)
        Image.fromarray(np.full((8, 16), number, np.uint8)).save(folder / f"data/ids/l{number}.png")
    task = {
        "classes": "camvid",
        "root": "data",
        "labeled": {"images": "labeled/*.png", "labels": "ids/*.png"},
        "unlabeled": {"images": "unlabeled/*.png"},
        "evaluation": {"val": {"streets": {"domain": "real", "count": 2, "seed": 1, "size": [32, 64]}}},
    }
    offline = {"dars": {"policy": "dars", "rounds": [{"portion": 0.5}]}}
    project = Project(folder, {"tasks": {"t": task}, "pretrain": {"start": {}}, "experiments": offline})
    with forked_jobs(folder, networks=False) as project.python:
        make(project, "--", *TABLES)
        yield project


def make(project, *arguments):
    code, told = project.forked(*arguments)
    assert code == 0, told


def listed_again(project):
    """The splits that a run lists, and nothing is left for another run."""
    before = {split: (project.folder / table).stat().st_mtime_ns for split, table in zip(SPLITS, TABLES, strict=True)}
    make(project, "--", *TABLES)
    assert project.planned("--", *TABLES) == []
    return [
        split
        for split, table in zip(SPLITS, TABLES, strict=True)
        if (project.folder / table).stat().st_mtime_ns != before[split]
    ]


@pytest.mark.parametrize(
    ("change", "split"),
    [
        (lambda data: write_image(data / "unlabeled/u9.png", 7), "unlabeled"),
        (lambda data: (data / "unlabeled/u1.png").unlink(), "unlabeled"),
        (lambda data: write_image(data / "labeled/l0.png", 7), "labeled"),
        (lambda data: (data / "ids/l0.png").write_bytes((data / "ids/l1.png").read_bytes()), "labeled"),
    ],
    ids=["one more", "one less", "an image", "a label"],
)
def test_when_a_file_changes_all_is_checked_and_its_split_alone_listed_again_in_one_run(listed, change, split):
    change(listed.folder / "data")
    assert listed.planned("--", *TABLES) == ["check task=t"]
    assert listed_again(listed) == [split]


def test_other_files_in_the_folders_change_nothing(listed):
    (listed.folder / "data/labeled/notes.txt").write_text("no image")
    assert listed.planned("--", *TABLES) == []


def test_a_split_that_is_drawn_again_is_listed_again(listed):
    config = yaml.safe_load((listed.folder / "config.yaml").read_text())
    config["tasks"]["t"]["evaluation"]["val"]["streets"]["seed"] = 2
    listed.configure(config)
    assert listed_again(listed) == ["val"]


def test_images_copied_without_their_times_can_be_told_to_be_the_same(listed):
    for image in (listed.folder / "data/unlabeled").iterdir():
        os.utime(image)
    assert listed.planned("--", *TABLES) == ["check task=t"]
    before = (listed.folder / TABLES[1]).read_bytes()
    make(listed, "--touch", "--", *TABLES)
    assert listed.planned("--", *TABLES) == []
    assert (listed.folder / TABLES[1]).read_bytes() == before


def test_a_job_that_a_cluster_starts_looks_at_no_images_of_others(listed):
    told = ["--mode", "subprocess", "--nolock", "--force", "--allowed-rules", "list", "--target-jobs"]
    unlabeled = listed.folder / "data/unlabeled"
    before = (listed.folder / TABLES[0]).stat().st_mtime_ns
    unlabeled.rename(listed.folder / "away")
    try:
        done = listed.snakemake(*told, "list:split=labeled,task=t")
    finally:
        (listed.folder / "away").rename(unlabeled)
    assert done.returncode == 0, done.stderr
    assert (listed.folder / TABLES[0]).stat().st_mtime_ns > before
