"""Every file of a task is verified, and all problems are told at once."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from selftrain.data.check import check
from selftrain.errors import UserError
from selftrain.settings.data import CheckedSplit, CheckSettings, ListSettings, ReadSettings

Writes = Callable[..., Path]
SPLITS = ("labeled", "unlabeled", "val")


@pytest.fixture
def task(tmp_path: Path, folder_task: dict[str, Any]) -> CheckSettings:
    read = ReadSettings(classes=tuple(folder_task["tasks"]["tiny"]["classes"]), ignore_index=255)
    splits = {}
    for split in SPLITS:
        labeled = split != "unlabeled"
        listing = ListSettings(
            root=str(tmp_path),
            data_root=str(tmp_path),
            images=(f"{split}/images/*",),
            labels=(f"{split}/labels/*",) if labeled else None,
            list=None,
            labeled=labeled,
        )
        splits[split] = CheckedSplit(list=listing, read=read)
    return CheckSettings(task="tiny", splits=splits)


def problems(task: CheckSettings) -> list[str]:
    with pytest.raises(UserError) as error:
        check(task)
    count, *lines = str(error.value).split("\n  ")
    assert re.fullmatch(rf"task 'tiny': {len(lines)} problems? with the data", count)
    return lines


def test_a_good_task_is_counted(task: CheckSettings, tmp_path: Path) -> None:
    table = check(task, tmp_path / "out" / "checked.csv")
    assert table.to_dict("list") == {"split": list(SPLITS), "images": [3, 4, 2]}
    assert pd.read_csv(tmp_path / "out" / "checked.csv").equals(table)


def test_all_problems_of_all_splits_are_told_at_once(task: CheckSettings, tmp_path: Path, mask: Writes) -> None:
    (tmp_path / "labeled/images/labeled-0.png").write_text("text")
    (tmp_path / "labeled/labels/labeled-1.png").unlink()
    mask(tmp_path / "labeled/labels/labeled-2.png", np.full((3, 4), 77, np.uint8))
    whole = (tmp_path / "unlabeled/images/unlabeled-3.png").read_bytes()
    (tmp_path / "unlabeled/images/unlabeled-3.png").write_bytes(whole[:-40])
    shutil.copy(tmp_path / "unlabeled/images/unlabeled-0.png", tmp_path / "unlabeled/images/unlabeled-0.jpg")
    Image.fromarray(np.zeros((6, 8), np.float32)).save(tmp_path / "val/labels/val-0.tif")
    (tmp_path / "val/labels/val-0.png").unlink()
    told = problems(task)
    for start, part in (
        ("labeled: ", "labeled-0.png: not readable as an image"),
        ("labeled: ", "labeled-1.png: no label"),
        ("labeled: ", "labeled-2.png: label of 3×4, its image is 6×8"),
        ("labeled: ", "labeled-2.png: label ids 77 are neither"),
        ("unlabeled: ", "unlabeled-3.png: not readable as an image"),
        ("unlabeled: ", "the same stem 'unlabeled-0' 2 times"),
        ("val: ", "val-0.tif: label of floating-point numbers"),
    ):
        assert len([line for line in told if line.startswith(start) and part in line]) == 1, part
    assert len(told) == 7


def test_every_one_of_many_problems_is_told(task: CheckSettings, tmp_path: Path) -> None:
    for number in range(120):
        (tmp_path / f"unlabeled/images/bad-{number}.png").write_text("text")
    assert len(problems(task)) == 120


def test_a_missing_file_of_a_list_hides_no_broken_one(task: CheckSettings, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        "labeled/images/labeled-0.png labeled/labels/no.png\n"
        "labeled/images/labeled-1.png labeled/labels/labeled-1.png\n"
        "../outside.png labeled/labels/labeled-2.png\n"
    )
    (tmp_path / "labeled/images/labeled-1.png").write_text("text")
    of_list = {"list": "list.txt", "images": None, "labels": None}
    listing = task.splits["labeled"].list.model_copy(update=of_list)
    labeled = task.splits["labeled"].model_copy(update={"list": listing})
    told = problems(task.model_copy(update={"splits": {"labeled": labeled}}))
    assert [next(part for part in ("outside", "no such", "readable") if part in line) for line in told] == [
        "outside",
        "no such",
        "readable",
    ]


def test_labels_beside_unlabeled_images_may_be_broken(task: CheckSettings, tmp_path: Path) -> None:
    (tmp_path / "unlabeled/labels/unlabeled-0.png").write_text("text")
    check(task)


def test_an_image_both_trained_and_evaluated_on_is_an_error_whatever_its_name(
    task: CheckSettings, tmp_path: Path, mask: Writes
) -> None:
    image, copy = tmp_path / "labeled/images/labeled-1.png", tmp_path / "val/images/other.bmp"
    Image.open(image).save(copy)  # other bytes, the same pixels
    mask(tmp_path / "val/labels/other.png", np.zeros((6, 8), np.uint8))
    assert problems(task) == [f"val: {copy} is in the labeled split too ({image})"]


def test_an_image_both_unlabeled_and_evaluated_on_is_a_warning(
    task: CheckSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check(task)
    assert not caplog.records
    shutil.copy(tmp_path / "val/images/val-0.png", tmp_path / "unlabeled/images/copy.png")
    with caplog.at_level(logging.WARNING):
        check(task)
    assert "1 images are both unlabeled and evaluated on" in caplog.text
    assert "val-0.png" in caplog.text


def test_hidden_truth_is_verified_and_is_no_leak(task: CheckSettings, tmp_path: Path) -> None:
    unlabeled = task.splits["unlabeled"]
    hidden = {"labels": ("unlabeled/labels/*",), "labeled": True}
    truth = unlabeled.model_copy(update={"list": unlabeled.list.model_copy(update=hidden)})
    task = task.model_copy(update={"splits": {**task.splits, "truth": truth}})
    assert check(task).images.tolist() == [3, 4, 2, 4]
    (tmp_path / "unlabeled/labels/unlabeled-0.png").write_text("text")
    (line,) = problems(task)
    assert line.startswith("truth: ")
