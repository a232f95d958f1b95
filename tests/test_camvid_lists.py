"""The lists of CamVid that configs name are made from its folder."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "configs/camvid/lists.py"
SHARED = ROOT.parent / "shared/data/camvid"


@pytest.mark.skipif(not SHARED.exists(), reason="needs CamVid in ../shared")
def test_they_are_those_that_the_study_has_used():
    made = runpy.run_path(str(SCRIPT))["lists"](SHARED)
    used = {file.stem: file.read_text().splitlines() for file in SHARED.glob("lists/*.txt")}
    assert made == used


def test_the_folder_may_be_as_it_is_published(tmp_path):
    for split, names in {"train": 50, "val": 2, "test": 3}.items():
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
            for number in range(names):
                (tmp_path / folder / f"{'0001TP' if number % 2 else '0006R0'}_{number:03}.png").touch()
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True)
    made = {file.stem: file.read_text().splitlines() for file in tmp_path.glob("lists/*.txt")}
    assert made["train"][0] == "train/0001TP_001.png trainannot/0001TP_001.png" and len(made["train"]) == 50
    assert all("0001TP" in frame for frame in made["dusk_train"]) and len(made["dusk_train"]) == 25
    assert sorted(made["day_test"] + made["dusk_test"]) == made["test"]
    for share, count in (("1_8", 46), ("1_30", 12)):
        labeled, unlabeled = made[f"ssl_{share}_labeled"], made[f"ssl_{share}_unlabeled"]
        assert len(labeled) == count and sorted(labeled + unlabeled) == made["train"]


def test_a_folder_of_something_else_is_refused(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "train has no images; give the folder of CamVid" in done.stderr
    assert not (tmp_path / "lists").exists()
