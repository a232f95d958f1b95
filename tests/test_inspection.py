"""Every kind of artifact can be inspected; what changed between two rounds, against counting pixel by pixel."""

import json

import numpy as np
import pandas as pd
import pytest
import tiny
from rich.console import Console

from selftrain.cli import app
from selftrain.errors import UserError
from selftrain.evaluate.tables import confusion_table
from selftrain.inspection import printing
from selftrain.inspection.artifact import inspect
from selftrain.inspection.difference import difference

NAMES = ["a", "b"]
SIZES = [(20, 30), (16, 32)]


def labels(seed):
    draw = np.random.default_rng(seed)
    return [draw.choice(np.array([0, 1, 255], np.uint8), size, p=[0.5, 0.2, 0.3]) for size in SIZES]


@pytest.fixture
def rounds(tmp_path):
    return [tiny.write_pseudo_labels(tmp_path / f"{seed}.h5", NAMES, labels(seed)) for seed in (1, 2)]


def test_the_difference_of_two_rounds_is_counted_pixel_by_pixel(rounds):
    table = difference(*rounds)
    pixels = [
        pair for one, two in zip(labels(1), labels(2), strict=True) for pair in zip(one.flat, two.flat, strict=True)
    ]
    for index, row in enumerate(table.itertuples()):
        assert row[1] == tiny.CLASSES[index]
        assert row.before == sum(old == index for old, _ in pixels)
        assert row.after == sum(new == index for _, new in pixels)
        assert row.same == sum(old == new == index for old, new in pixels)
        assert row.dropped == sum(old == index and new == 255 for old, new in pixels)
        assert row.left == sum(old == index and new not in (index, 255) for old, new in pixels)
        assert row.added == sum(old == 255 and new == index for old, new in pixels)
        assert row.came == sum(new == index and old not in (index, 255) for old, new in pixels)
        assert row.before == row.same + row.dropped + row.left and row.after == row.same + row.added + row.came
    assert table.mostly_to.tolist() == ["road", "sky", ""]


def test_the_difference_by_image(rounds):
    table = difference(*rounds, images=True)
    one, two = labels(1)[1], labels(2)[1]
    both = (one != 255) & (two != 255)
    assert table.image.tolist() == NAMES
    assert table.changed[1] == (both & (one != two)).sum()
    assert table.changed_share[1] == pytest.approx((one != two)[both].mean())
    assert not difference(rounds[0], rounds[0], images=True).changed.any()


def test_files_that_cannot_be_compared(rounds, tmp_path):
    other = tiny.write_pseudo_labels(tmp_path / "other.h5", ["a", "c"], labels(1))
    with pytest.raises(UserError, match=r"other\.h5: its images are not those of"):
        difference(rounds[0], other)
    classes = tiny.write_pseudo_labels(tmp_path / "classes.h5", NAMES, labels(1), classes=("sky", "sea", "car"))
    with pytest.raises(UserError, match=r"classes\.h5: of the classes \['sky', 'sea', 'car'\], not"):
        difference(rounds[0], classes)
    halves = [one[: len(one) // 2] for one in labels(1)]
    smaller = tiny.write_pseudo_labels(tmp_path / "smaller.h5", NAMES, halves)
    with pytest.raises(UserError, match=rf"smaller\.h5: '{NAMES[0]}' is \d+ × \d+, not \d+ × \d+ as in "):
        difference(rounds[0], smaller)
    table = tmp_path / "confusion.csv"
    confusion_table("val", tiny.CLASSES, np.eye(3, dtype=np.int64)).to_csv(table, index=False)
    with pytest.raises(UserError, match=r"confusion\.csv: has no classes of pixels to compare"):
        difference(rounds[0], table)


def test_a_confusion_is_told_by_class(tmp_path):
    matrix = np.array([[6, 3, 1], [0, 5, 5], [0, 0, 0]])
    confusion_table("val", tiny.CLASSES, matrix).to_csv(tmp_path / "confusion.csv", index=False)
    table = inspect(tmp_path / "confusion.csv")
    assert table.pixels.tolist() == [10, 10, 0]
    assert table.iou.tolist() == pytest.approx([0.6, 5 / 13, 0])
    assert table.recall[:2].tolist() == pytest.approx([0.6, 0.5]) and np.isnan(table.recall[2])
    assert table.precision.tolist() == pytest.approx([1, 5 / 8, 0])
    assert table.taken_for.tolist() == ["road", "car", ""]
    assert table.taken_for_share[:2].tolist() == pytest.approx([0.3, 0.5])


def test_a_model_tells_what_it_is_and_what_made_it(tmp_path):
    tiny.save_model(tmp_path / "model.safetensors")
    facts = inspect(tmp_path / "model.safetensors").set_index("fact").value
    assert facts["classes"] == "sky, road, car" and facts["model.module"] == "tiny:network"
    assert "packages.torch" not in facts
    made = {"selftrain": "0", "settings": {"seed": 7}, "inputs": {}, "packages": {"torch": "2.11"}}
    (tmp_path / "manifest.json").write_text(json.dumps(made))
    facts = inspect(tmp_path / "model.safetensors").set_index("fact").value
    assert facts["packages.torch"] == "2.11" and facts["settings.seed"] == "7"
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(UserError, match="none of them"):
        inspect(tmp_path / "other.json")


def run(capsys, *arguments):
    app(["inspect", *map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


def test_it_is_printed_for_a_pipe_as_csv_and_as_json(rounds, capsys):
    plain = run(capsys, rounds[0], "--diff", rounds[1])
    header, first, *_ = plain.splitlines()
    assert header.split() == difference(*rounds).columns.to_list() and first.split()[0] == "sky"
    assert "\x1b" not in plain and "│" not in plain
    csv = run(capsys, rounds[0], "--diff", rounds[1], "--csv")
    assert csv == difference(*rounds).to_csv(index=False)
    rows = json.loads(run(capsys, rounds[0], "--images", "--json"))
    assert [row["image"] for row in rows] == NAMES


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_terminal_gets_numbers_and_names_whole(width):
    """In as many tables as it takes, each with the classes."""
    console = Console(force_terminal=True, width=width, record=True, highlight=False)
    table = pd.DataFrame({"class": ["building", "road"]} | {f"a_column_{at}": [1234567 + at, 7] for at in range(9)})
    printing._draw(table, [], console)
    told = console.export_text()
    words = told.split()
    assert all(words.count(f"a_column_{at}") == 1 and words.count(str(1234567 + at)) == 1 for at in range(9))
    assert words.count("7") == 9
    assert words.count("building") == words.count("road") == words.count("class") > 1
    assert max(map(len, told.splitlines())) <= width


def test_a_terminal_gets_all_of_it_however_narrow_it_is(capsys):
    console = Console(force_terminal=True, width=40, record=True, highlight=False)
    table = pd.DataFrame(
        {"class": ["a class of a long name", "[bold]"], "share": [0.123456789, np.nan], "n": [12345, 1]}
    )
    printing._draw(table, ["a note"], console)
    told = console.export_text()
    assert all(word in told for word in ("class", "long", "[bold]", "0.123457", "12345", "a note"))
    assert max(map(len, told.splitlines())) <= 40
