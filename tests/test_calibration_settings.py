"""What a config may say of calibration, what is refused, and which jobs come of it."""

import logging
import shutil

import numpy as np
import pytest
from test_settings import SPLIT, good, told_lines

from selftrain.data.check import check
from selftrain.errors import UserError
from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.settings.config_file import parse

HELD_OUT = ("tasks.town.calibration", dict(SPLIT))
TS = ("experiments.dars.prediction", {"calibration": "temperature"})
START = Model("town", "base", 0, 0)


def graph(*changes):
    return Graph(parse(good(*changes)))


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ("temperature", "temperature"),
        ({"name": "temperature"}, "temperature"),
        ("matrix", "matrix"),
        ({"name": "matrix", "regularization": 0.1}, "matrix-0.1"),
        ({"name": "matrix", "regularization": 0}, "matrix-0"),
        ("histogram_binning", "binning-15"),
        ({"name": "histogram_binning", "bins": 10}, "binning-10"),
    ],
)
def test_by_name_or_with_settings(said, mode):
    made = graph(HELD_OUT, ("experiments.dars.prediction", {"calibration": said, "flip": True}))
    prediction = made.round(Model("town", "dars", 0, 1)).prediction
    assert prediction.calibration.mode == mode and prediction.mode == f"flip-{mode}"
    assert made.calibrate(START, mode).calibration == prediction.calibration


def test_it_is_inherited_and_can_be_turned_off():
    made = graph(HELD_OUT, TS, ("experiments.dars.rounds.1.prediction", {"calibration": None}))
    modes = [one.prediction.mode for one in made.config.experiments["dars"].rounds]
    assert modes == ["temperature", "single"]
    assert made.calibrations == [(START, "temperature")]


def test_no_labels_held_out_is_told_once_where_the_file_says_it():
    reason = "the task 'town' has no labels held out for it; name some under 'tasks.town.calibration'"
    assert told_lines(TS) == [f"experiments.dars.prediction.calibration: {reason}"]
    top = ("prediction", {"calibration": "matrix"})
    assert told_lines(top) == [f"prediction.calibration: {reason}"]
    of_round = ("experiments.dars.rounds.1.prediction", {"calibration": "matrix"})
    assert told_lines(of_round) == [f"experiments.dars.rounds[1].prediction.calibration: {reason}"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("tasks.town.evaluation.calibration", dict(SPLIT)), "evaluation.calibration: the name of another split"),
        (("tasks.town.calibration", {"images": "a/*"}), "calibration.labels: is missing"),
        (
            ("tasks.town.calibration", SPLIT | {"score_size": [3, 4]}),
            "calibration.score_size: is for evaluation splits",
        ),
        (("tasks.town.calibration", SPLIT | {"ids": {"7": 9}}), "calibration.ids.7: maps to 9"),
        (("prediction.calibration", "temprature"), "unknown name 'temprature'; did you mean 'temperature'?"),
        (
            ("prediction.calibration", {"name": "histogram_binning", "bins": 0}),
            "prediction.calibration.bins: should be",
        ),
        (("prediction.calibration", {"name": "matrix", "bins": 3}), "unknown key 'bins'"),
        (("train.focal", -1), "train.focal: should be greater than or equal to 0"),
    ],
)
def test_what_is_refused(change, reason):
    assert any(reason in line for line in told_lines(HELD_OUT, change)), told_lines(HELD_OUT, change)


# Jobs


def test_only_what_is_asked_for_is_fitted():
    made = graph(HELD_OUT, TS)
    folder = "results/town/pretrained/base/seed-0/calibration/temperature"
    asked = made.predict_files(START, "temperature")
    assert asked["calibrator"] == f"{folder}/calibrator.json" and "calibrator" not in made.predict_files(
        START, "single"
    )
    first = Model("town", "dars", 0, 1)
    assert made.choose_files(first) == asked
    assert made.calibrations == [(START, "temperature"), (first, "temperature")]
    folders = (folder, "results/town/dars/seed-0/round-1/calibration/temperature")
    tables = [f"{one}/{table}.csv" for one in folders for table in ("calibration", "reliability")]
    assert [file for file in made.report_files() if "calibration" in file] == tables
    assert not graph(HELD_OUT).calibrations


def test_a_policy_is_nothing_to_a_calibrator_and_a_calibrator_nothing_to_a_training():
    first = Model("town", "dars", 0, 1)
    one, other = graph(HELD_OUT, TS), graph(HELD_OUT, TS, ("experiments.dars.policy", "cbst"))
    assert one.calibrate(START, "temperature") == other.calibrate(START, "temperature")
    assert one.calibrate_code(START, "temperature") == other.calibrate_code(START, "temperature")
    assert one.predict(START, "temperature", 0, 1) == other.predict(START, "temperature", 0, 1)
    matrix = graph(HELD_OUT, ("experiments.dars.prediction", {"calibration": "matrix"}))
    assert one.train(first) == matrix.train(first) and one.train_code(START) == matrix.train_code(START)
    assert one.predict_code(START, "temperature") != matrix.predict_code(START, "matrix")
    assert one.predict_code(START, "single") == matrix.predict_code(START, "single")
    assert list(one.reliability(START, "temperature").splits) == ["calibration", "val"]


def test_the_split_is_needed_to_ask_for_a_calibrator():
    made = graph(("tasks.town.calibration", None))
    with pytest.raises(UserError, match=r"tasks\.town\.calibration: is missing"):
        made.calibration_path(START, "temperature", "calibrator.json")
    with pytest.raises(UserError, match="unknown calibration 'temperature'; valid: none"):
        made.calibration("temperature")


# The check


@pytest.fixture
def task(tmp_path, folder_task, picture, mask):
    """The tiny task, with two images held out."""
    for number in range(2):
        picture(tmp_path / f"held-out/images/held-out-{number}.png", 50 + number)
        mask(tmp_path / f"held-out/labels/held-out-{number}.png", np.zeros((6, 8), np.uint8))
    folder_task["tasks"]["tiny"]["calibration"] = {"images": "held-out/images/*", "labels": "held-out/labels/*"}
    return Graph(parse(folder_task)).check("tiny")


def copy(tmp_path, source, split):
    """An image of another split, put into the calibration split."""
    shutil.copy(tmp_path / source, tmp_path / "held-out/images/copy.png")
    shutil.copy(tmp_path / f"{split}/labels" / source.split("/")[-1], tmp_path / "held-out/labels/copy.png")


def test_the_check_counts_it(task, caplog):
    with caplog.at_level(logging.WARNING):
        table = check(task).set_index("split").images
    assert table["calibration"] == 2 and not caplog.records


def test_a_labeled_image_in_it_is_a_leak(task, tmp_path):
    copy(tmp_path, "labeled/images/labeled-1.png", "labeled")
    with pytest.raises(UserError, match=r"calibration: .*copy\.png is in the labeled split too"):
        check(task)


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("val", "val: 1 images are in the calibration split too"),
        ("unlabeled", "1 unlabeled images are in the calibration split with labels"),
    ],
)
def test_other_images_in_it_are_a_warning(task, tmp_path, caplog, split, told):
    copy(tmp_path, f"{split}/images/{split}-0.png", split)
    with caplog.at_level(logging.WARNING):
        check(task)
    (record,) = caplog.records
    assert told in record.getMessage()
