"""What follows from a confusion matrix, again and without the model, and accuracy by the size of objects."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_evaluate import scored, split  # noqa: F401  (fixtures)
from typer.testing import CliRunner

from selftrain.cli import app
from selftrain.data.reading import read_label
from selftrain.errors import UserError
from selftrain.evaluate import rescore
from selftrain.evaluate.groups import groups, read_groups
from selftrain.evaluate.scores import iou
from selftrain.evaluate.sizes import by_size, size_table
from selftrain.evaluate.tables import confusion_table, read_confusion
from selftrain.settings.data import GroupSettings, SubsetSettings

CLASSES = ("sky", "NA", "car", "pole")
MATRIX = np.array([[50, 3, 0, 1], [4, 30, 2, 0], [0, 5, 7, 0], [0, 0, 0, 0]])

# Accuracy by the size of objects


@st.composite
def scenes(draw):
    """A truth with ignored pixels, and a prediction."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))
    truth = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255])))
    return truth, draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2])))


def flooded(truth):
    """The class and the pixels of each object, by a flood fill over all eight neighbors."""
    left = {tuple(place) for place in np.argwhere(truth != 255).tolist()}
    while left:
        todo = [left.pop()]
        own = []
        while todo:
            y, x = todo.pop()
            own.append((y, x))
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            todo += (same := [place for place in around if truth[place] == truth[y, x]])
            left -= set(same)
        yield truth[own[0]], own


@settings(deadline=None)
@given(scenes())
def test_objects_are_what_a_flood_fill_finds(pair):
    truth, predicted = pair
    expected = np.zeros((3, 8, 3), int)
    for index, own in flooded(truth):
        right = sum(predicted[place] == index for place in own)
        expected[index, len(own).bit_length() - 1] += [1, len(own), right]
    found = by_size(truth, predicted, 3)
    assert found.dtype == np.int64 and (found[:, :8] == expected).all() and not found[:, 8:].any()


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 7, 8, 2**12 - 1, 2**12, 2**15 - 1, 2**15])
def test_an_octave_begins_at_a_power_of_two(pixels):
    truth = np.full((1, pixels + 1), 255, np.uint8)
    truth[0, :pixels] = 1
    (row,) = size_table("val", CLASSES, by_size(truth, np.zeros_like(truth), 4)).itertuples(index=False)
    lower = 2 ** (pixels.bit_length() - 1)
    assert tuple(row) == ("val", "NA", lower, 2 * lower, 1, pixels, 0)
    assert lower <= pixels < 2 * lower


def test_ignored_pixels_part_objects_and_are_counted_nowhere():
    truth = np.zeros((3, 7), np.uint8)
    truth[:, 3] = 255
    found = by_size(truth, np.zeros_like(truth), 1)
    assert found[0, 3].tolist() == [2, 18, 18] and found.sum() == 38
    assert not by_size(np.full((3, 7), 255, np.uint8), np.zeros_like(truth), 1).any()


@pytest.mark.parametrize("score_size", [None, (16, 24)])
def test_sizes_are_those_of_the_scored_labels(scored, split, tmp_path, score_size):  # noqa: F811
    _, confusion, _ = scored(score_size=score_size)
    table = pd.read_csv(tmp_path / "sizes.csv")
    assert list(table) == ["split", "class", "lower", "upper", "objects", "pixels", "correct"]
    own = table[table.split == "val"]
    expected: dict = {}
    for file in pd.read_csv(split).label_file:
        for index, place in flooded(read_label(file, tiny.READ, score_size)):
            key = tiny.CLASSES[index], 2 ** (len(place).bit_length() - 1)
            count, pixels = expected.get(key, (0, 0))
            expected[key] = count + 1, pixels + len(place)
    known = zip(zip(own["class"], own.lower, strict=True), zip(own.objects, own.pixels, strict=True), strict=True)
    assert dict(known) == expected and (own.upper == 2 * own.lower).all()
    of_val = confusion[confusion.split == "val"]
    right = of_val[of_val.truth == of_val.prediction].set_index("truth").pixels
    assert own.groupby("class").correct.sum().to_dict() == right.to_dict()


# Groups


def statistics(path: Path, classes=CLASSES, **columns) -> Path:
    known = {"share": 0.1, "images": 1, "image_share": [0.6, 0.5, 0.51, 0.0], "mean_size": [0.11, 0.3, 0.1, 0.0]}
    pd.DataFrame({"class": classes, **known, **columns}).dropna(axis=1).to_csv(path, index=False)
    return path


def test_a_class_at_a_threshold_is_neither_frequent_nor_large(tmp_path):
    file = statistics(tmp_path / "classes.csv")
    found = read_groups(file, CLASSES, GroupSettings())
    expected = {"frequent_large": ("sky",), "frequent_small": ("car",), "rare_large": ("NA",), "rare_small": ("pole",)}
    assert found == expected and list(found) == list(expected)
    found = read_groups(file, CLASSES, GroupSettings(frequency=0.55, size=0.3))
    assert found == {"frequent_small": ("sky",), "rare_small": ("NA", "car", "pole")}


@given(st.lists(st.tuples(*[st.sampled_from([0, 0.1, 0.3, 0.5, 0.7, 1])] * 2), min_size=1, max_size=9))
def test_every_class_is_in_one_group(known):
    table = pd.DataFrame(known, columns=["image_share", "mean_size"], dtype=float)
    table["class"] = [str(number) for number in range(len(known))]
    found = groups(table, GroupSettings())
    assert sorted(name for members in found.values() for name in members) == sorted(table["class"])
    for (often, big), name in zip(known, table["class"], strict=True):
        where = f"{'frequent' if often > 0.5 else 'rare'}_{'large' if big > 0.1 else 'small'}"
        assert name in found[where]


# Scores of a confusion.csv


@pytest.fixture
def file(tmp_path):
    """A confusion.csv of two splits."""
    path = tmp_path / "t/st/seed-0/round-1/confusion.csv"
    path.parent.mkdir(parents=True)
    tables = [confusion_table("val", CLASSES, MATRIX), confusion_table("other", CLASSES, MATRIX.T)]
    pd.concat(tables).to_csv(path, index=False)
    return path


def run(*arguments) -> str:
    done = CliRunner().invoke(app, ["score", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_confusion_is_read_as_it_was_written(file):
    classes, matrices = read_confusion(file)
    assert classes == CLASSES and list(matrices) == ["val", "other"]
    assert (matrices["val"] == MATRIX).all() and (matrices["other"] == MATRIX.T).all()


@pytest.mark.parametrize("others", ["counted", "ignored"])
def test_metrics_are_computed_again(scored, tmp_path, others):  # noqa: F811
    subsets = {"both": {"classes": ("sky", "car"), "others": others}, "one": {"classes": ("road",), "others": others}}
    scored(subsets=subsets)
    told = ["--subset", "both=sky,car", "--subset", "one=road", "--others", others]
    text = run(tmp_path / "confusion.csv", *told, "--classes", tmp_path / "classes.csv", "--csv")
    header, *rows = text.splitlines()
    name = str(tmp_path / "confusion.csv,")
    assert all(row.startswith(name) for row in rows)
    without = [header.removeprefix("file,"), *(row.removeprefix(name) for row in rows)]
    assert without == (tmp_path / "metrics.csv").read_text().splitlines()


def test_scores_are_shown_by_split(file, tmp_path):
    text = run(file, "--subset", "things=car,NA", "--classes", statistics(tmp_path / "classes.csv"))
    lines = text.splitlines()
    assert lines[0].split() == ["%", "val", "other"]
    shown = {" ".join(words[:-2]): words[-2:] for words in map(str.split, lines)}
    values = 100 * iou(MATRIX)
    assert np.isnan(values[3]) == (MATRIX[:, 3].sum() == 0)
    assert shown["IoU NA"] == [f"{values[1]:.1f}"] * 2
    assert shown["mean of things"] == shown["mean of things"][:1] * 2 == [f"{values[1:3].mean():.1f}"] * 2
    assert shown["mIoU"] == [f"{np.nanmean(values):.1f}"] * 2
    assert shown["pixel accuracy"] == [f"{100 * np.trace(MATRIX) / MATRIX.sum():.1f}"] * 2
    assert lines[-4:] == ["frequent_large: sky", "frequent_small: car", "rare_large: NA", "rare_small: pole"]


def test_models_stand_side_by_side(file, tmp_path):
    other = tmp_path / "t/dars/seed-0/round-1/confusion.csv"
    other.parent.mkdir(parents=True)
    confusion_table("val", CLASSES, np.diag([1, 2, 3, 0])).to_csv(other, index=False)
    header, first, *_ = run(file, other).splitlines()
    assert header.split() == ["%", "st", "val", "st", "other", "dars", "val"] and first.split()[-1] == "100.0"
    table, _ = rescore.score([file, other, file], {})
    assert list(table.file.unique()) == [str(file), str(other)] and not table.duplicated().any()


def test_a_class_that_is_nowhere_is_a_dash(tmp_path):
    confusion_table("val", CLASSES, np.diag([1, 2, 3, 0])).to_csv(tmp_path / "confusion.csv", index=False)
    assert run(tmp_path / "confusion.csv").splitlines()[-1].split() == ["IoU", "pole", "–"]


def test_other_files_are_no_confusion(file, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_confusion(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_confusion(tmp_path)
    table = pd.read_csv(file, keep_default_na=False)
    wrong = {
        "has columns": table.rename(columns={"pixels": "count"}),
        "which is no count": table.assign(pixels=table.pixels / 2),
        "pixels is -1": table.assign(pixels=-1),
        "it has no rows": table[:0],
        "split 'other' has not every pair": table[:-1],
        "split 'val' has not every pair": pd.concat([table, table]),
    }
    for reason, content in wrong.items():
        content.to_csv(file, index=False)
        with pytest.raises(UserError, match=reason):
            read_confusion(file)


def test_what_does_not_fit_is_refused(file, tmp_path):
    for said in ("tail", "=sky", "tail="):
        with pytest.raises(UserError, match="give a name and classes"):
            run(file, "--subset", said)
    with pytest.raises(UserError, match="subset 'tail': unknown class 'poles'; did you mean 'pole'"):
        run(file, "--subset", "tail=car,poles")
    with pytest.raises(UserError, match="another subset 'a'"):
        run(file, "--subset", "a=sky", "--subset", "a=car")
    with pytest.raises(UserError, match="'counted' or 'ignored', not 'maybe'"):
        run(file, "--others", "maybe")
    other = tmp_path / "other.csv"
    confusion_table("val", ("sky", "car"), np.eye(2, dtype=int)).to_csv(other, index=False)
    with pytest.raises(UserError, match=r"other\.csv: is of the classes sky, car; .* is of sky, NA, car, pole"):
        run(file, other)
    with pytest.raises(UserError, match="is about"):
        run(file, "--classes", statistics(tmp_path / "classes.csv", classes=CLASSES[::-1]))
    with pytest.raises(UserError, match="which share of images shows a class; run statistics again"):
        run(file, "--classes", statistics(tmp_path / "classes.csv", image_share=np.nan))


def test_a_subset_may_be_called_like_a_group(file, tmp_path):
    chosen = {"rare_small": SubsetSettings(classes=("sky",))}
    table, found = rescore.score([file], chosen, statistics(tmp_path / "classes.csv"))
    assert rescore.as_text(table, found).count("mean of rare_small") == 2
