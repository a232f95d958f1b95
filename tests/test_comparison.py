"""Several runs side by side; pseudo-labels as masks."""

import json

import numpy as np
import pandas as pd
import pytest
import tiny
from PIL import Image

import selftrain
from selftrain.cli import app
from selftrain.data.reading import read_label
from selftrain.errors import UserError
from selftrain.inspection.comparison import compare
from selftrain.label.masks import export_labels
from selftrain.report.summary import COLUMNS

NAMES = ["a", "b"]
LABELS = [tiny.blocks((16, 24), 1), tiny.blocks((20, 30), 2)]


def summary(folder, experiments):
    """Rows of two seeds; the last mIoU of each experiment is given for the first, and is .1 more for the other."""
    rows = [
        ("t", name, seed, number, "val", miou + 0.1 * seed - 0.2 * (last - number), 0.8, 0.2 * number, None, None)
        for name, (last, miou) in experiments.items()
        for seed in (0, 1)
        for number in range(last + 1)
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "summary.csv", index=False)
    return folder


def test_runs_are_compared_by_the_last_rounds_of_each_experiment(tmp_path):
    one = summary(tmp_path / "one/results", {"dars": (2, 0.4), "st": (1, 0.3)})
    two = summary(tmp_path / "two/results", {"st": (1, 0.5)})
    table = compare([one, two / "summary.csv"])
    assert table[["experiment", "run", "round", "seeds"]].to_numpy().tolist() == [
        ["dars", "one", 2, 2],
        ["st", "one", 1, 2],
        ["st", "two", 1, 2],
    ]
    assert table.miou.tolist() == pytest.approx([0.45, 0.35, 0.55])
    assert table.miou_deviation.tolist() == pytest.approx([0.1 / np.sqrt(2)] * 3)
    assert table.gain.tolist() == pytest.approx([0.4, 0.2, 0.2])
    assert compare([one]).run.unique().tolist() == ["results"]


def test_what_is_no_run_or_named_twice(tmp_path):
    run = summary(tmp_path / "one", {"st": (1, 0.3)})
    with pytest.raises(UserError, match="named twice"):
        compare([run, run])
    with pytest.raises(UserError, match=r"two: no such file; run snakemake"):
        compare([run, tmp_path / "two"])


def test_the_comparison_as_json(tmp_path, capsys):
    app(["compare", str(summary(tmp_path / "one", {"st": (1, 0.3)})), "--json"], standalone_mode=False)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["experiment"] == "st" and row["miou"] == pytest.approx(0.35)


@pytest.fixture
def file(tmp_path):
    return tiny.write_pseudo_labels(tmp_path / "pseudo_labels.h5", NAMES, LABELS)


def test_masks_read_as_the_labels_they_are(file, tmp_path):
    app(["export-labels", str(file), "-o", str(tmp_path / "masks")], standalone_mode=False)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a.png", "b.png"]
    for name, label in zip(NAMES, LABELS, strict=True):
        assert np.array_equal(read_label(tmp_path / f"masks/{name}.png", tiny.READ), label)
        assert Image.open(tmp_path / f"masks/{name}.png").mode == "P"


def test_one_mask_or_none_of_that_name(file, tmp_path):
    export_labels(file, tmp_path / "one", images=["b"])
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["b.png"]
    with pytest.raises(UserError, match="unknown image 'bb'; did you mean 'b'"):
        export_labels(file, tmp_path / "none", images=["bb"])
    assert not (tmp_path / "none").exists()


def test_the_reader_is_at_hand(file):
    assert selftrain.PseudoLabels(file).images.image.tolist() == NAMES
    with pytest.raises(AttributeError, match="has no attribute 'PseudoLabel'"):
        selftrain.PseudoLabel  # noqa: B018
