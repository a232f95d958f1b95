"""Data that is odd and right: it goes through every stage of the graph."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from torch import nn
from walking import call, walk

SIZE = (16, 24)


class One(nn.Module):
    """A network that predicts the first class, and may learn."""

    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 1)
        with torch.no_grad():
            self.layer.weight.mul_(1e-3)
            self.layer.bias.copy_(torch.tensor([5.0] + [0.0] * (classes - 1)))

    def forward(self, images):
        return self.layer(images)


def write(folder: Path, ids: dict[str, np.ndarray]) -> None:
    for number, (name, label) in enumerate(ids.items()):
        pixels = np.random.default_rng(number + len(str(folder))).integers(0, 256, (*label.shape, 3), np.uint8)
        for kind, picture in (("images", pixels), ("labels", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / kind / f"{name}.png")


def config(classes, module="tiny:network", **experiments):
    split = {
        name: {"images": f"{name}/images/*", "labels": f"{name}/labels/*"} for name in ("labeled", "unlabeled", "val")
    }
    tasks = {"classes": list(classes), "labeled": split["labeled"], "unlabeled": split["unlabeled"], "truth": True}
    rounds = [{"portion": 0.5}]
    return {
        "batch_size": 2,
        "shards": 2,
        "tasks": {"odd": tasks | {"evaluation": {"val": split["val"]}}},
        "train": {"steps": 2, "batch_size": 4, "augmentation": {"crop": list(SIZE)}},
        "pretrain": {"base": {"model": {"module": module}, "train": {"steps": 0}}},
        "experiments": experiments
        or {name: {"policy": name, "rounds": rounds} for name in ("st", "cbst", "da", "dars")},
    }


def ids(values, seed=0, size=SIZE):
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), size)


MIXED = {"classmix": {"algorithm": "mean_teacher_mixing"}}
CHOSEN = {"cbst": {"policy": {"name": "cbst", "choice": "normalized"}, "rounds": [{"portion": 0.5}]}}
CASES = {
    "absent from the labels": ("tiny:network", [0, 1, 255], {}),
    "absent from the predictions": ("test_odd_data:One", [0, 1, 2, 255], {}),
    "absent from both": ("test_odd_data:One", [0, 1, 255], {}),
    "absent from both, classes chosen": ("test_odd_data:One", [0, 1, 255], CHOSEN),
    "absent from both, mixed": ("test_odd_data:One", [0, 1, 255], MIXED),
    "everything ignored": ("tiny:network", [255], {}),
    "everything ignored, mixed": ("tiny:network", [255], MIXED),
}


QUICK = ("absent from both", "everything ignored")
"""Of which the others have a part each."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_a_class_that_is_nowhere_goes_through_every_stage(case, tmp_path):
    module, values, experiments = CASES[case]
    for number, name in enumerate(("labeled", "unlabeled", "val")):
        write(tmp_path / name, {f"{name}-{one}": ids(values, 10 * number + one) for one in range(3)})
    walk(tmp_path, config(tiny.CLASSES, module, **experiments))
    summary = pd.read_csv(tmp_path / "results/summary.csv")
    assert set(summary.experiment) == set(experiments or ("st", "cbst", "da", "dars"))
    if values == [255]:
        assert summary.miou.isna().all()
    else:
        assert summary.miou.between(0, 1).all()
    for table in tmp_path.glob("results/odd/*/seed-0/round-1/pseudo_labels.csv"):
        labels = pd.read_csv(table).set_index("class")
        if "One" in module and "chosen" not in case:
            assert labels.predicted["car"] == labels.pixels["car"] == 0
        assert (labels.pixels <= labels.predicted).all() or "chosen" in case


SCRIPT = """<script>alert(1)</script>&"' $x$"""
NAMES = ["with space", "ünï-空", "a..b", "c..", "per%cent&amp;", "<img src=x onerror=alert(1)>", "$x_1$", "x" * 200]


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.handlers = [], "", []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def test_names_of_every_kind_go_through_and_are_only_text_on_the_page(tmp_path, monkeypatch):
    """And images of one pixel."""
    classes = ["sky", SCRIPT, "空 /\\'"]
    for name, number in (("labeled", 0), ("val", 1)):
        write(tmp_path / name, {f"{name} {one}": ids([0, 1, 2], 10 * number + one) for one in range(2)})
    shapes = {name: SIZE if place else (1, 1) for place, name in enumerate(NAMES)}
    write(tmp_path / "unlabeled", {name: ids([0, 1, 2, 255], 50 + len(name), shape) for name, shape in shapes.items()})
    experiments = {"dars": {"policy": "dars", "rounds": [{"portion": 0.9}]}} | MIXED
    walk(tmp_path, config(classes, **experiments))
    page = (tmp_path / "results/report/index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert SCRIPT in reader.text
    assert "<script>alert" not in page and "<img src=x" not in page and not reader.handlers
    monkeypatch.chdir(tmp_path)
    labels = "results/odd/dars/seed-0/round-1/pseudo_labels.h5"
    for name in NAMES:
        assert call("show", labels, "-o", "shown.png", "--image", name) == 0
    assert call("export-labels", labels, "-o", "masks") == 0
    assert {path.stem for path in (tmp_path / "masks").iterdir()} == set(NAMES)
