"""Alarms against a count of all pixels, which knows nothing of histograms; their limits, and their table."""

import logging

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from selftrain.alarms.kinds import COLUMNS, KINDS, Known, Round, raised
from selftrain.alarms.signs import SATURATED, measure, read_signs, write_signs
from selftrain.alarms.stage import alarms
from selftrain.confidence import BINS, log_odds_of
from selftrain.errors import UserError
from selftrain.predict.writer import PredictionWriter
from selftrain.select.stage import select
from selftrain.settings.alarms import AlarmSettings
from selftrain.settings.config import Config
from selftrain.settings.selection import SelectSettings

CLASSES = ("a", "b", "NA", "d")
SHAPES = [(5, 7), (6, 4), (6, 8), (1, 1), (3, 8)]
CANVAS = (6, 8)


def planes(seed, chances):
    """Classes, 255 among them, and bins of each image."""
    random = np.random.default_rng(seed)
    ids = np.array([0, 1, 2, 3, 255], np.uint8)
    return [
        (random.choice(ids, shape, p=chances), random.integers(0, BINS, shape).astype(np.uint16)) for shape in SHAPES
    ]


def write(folder, images, shards, names=None):
    """Prediction shards of images, in order."""
    names = names or [f"image-{number}" for number in range(len(images))]
    paths = []
    for shard, part in enumerate(np.array_split(np.arange(len(images)), shards)):
        paths.append(folder / f"{shard}-of-{shards}.h5")
        told = {"names": [names[i] for i in part], "shapes": [images[i][0].shape for i in part], "canvas": CANVAS}
        with PredictionWriter(paths[-1], **told, classes=CLASSES, attributes={}) as writer:
            for position, image in enumerate(part):
                writer.write(position, *images[image])
    return paths


@pytest.fixture
def rounds(tmp_path):
    """The images of two rounds; the class d is new in the second, NA is gone."""
    old, new = planes(1, [0.5, 0.2, 0.2, 0, 0.1]), planes(2, [0.2, 0.6, 0, 0.1, 0.1])
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    return old, new


def slowly(old, new):
    """The signs, pixel by pixel; of each class, and of all under None."""
    pairs = [
        (int(x), int(y), float(odds))
        for (was, _), (now, bins) in zip(old, new, strict=True)
        for x, y, odds in zip(was.ravel(), now.ravel(), log_odds_of(bins).ravel(), strict=True)
    ]
    was, now = [x for x, *_ in pairs if x != 255], [(y, odds) for _, y, odds in pairs if y != 255]
    both = [(x, y) for x, y, _ in pairs if 255 not in (x, y)]
    signs = {}
    for one in (None, 0, 1, 2, 3):
        mine = [odds for y, odds in now if one in (None, y)]
        mine_before = [x for x in was if one in (None, x)]
        compared = [(x, y) for x, y in both if one in (None, x)]
        sure = [odds for odds in mine if np.float32(1 / (1 + np.exp(-odds))) == 1]
        signs[one] = [
            len(mine),
            len(mine) / len(now),
            len(mine_before) / len(was),
            sum(x != y for x, y in compared) / len(compared) if compared else np.nan,
            len(sure) / len(mine) if mine else np.nan,
        ]
    return signs


@pytest.mark.parametrize("shards", [1, 3])
def test_signs_are_those_of_a_slow_count(rounds, tmp_path, shards):
    old, new = rounds
    table = measure(write(tmp_path / "new", new, shards), write(tmp_path / "old", old, shards))
    assert table["class"].tolist() == ["", *CLASSES]
    expected = slowly(old, new)
    np.testing.assert_allclose(table.drop(columns="class").to_numpy(float), np.array(list(expected.values()), float))


def write_both(folder, rounds, shards):
    """The shards of the second round, and of the first."""
    return write(folder / "new", rounds[1], shards), write(folder / "old", rounds[0], shards)


def test_shards_change_no_byte(rounds, tmp_path):
    for shards in (1, 3):
        new, old = write_both(tmp_path, rounds, shards)
        write_signs(new, old, tmp_path / f"{shards}.csv")
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "3.csv").read_bytes()
    pd.testing.assert_frame_equal(read_signs(tmp_path / "1.csv"), measure(new, old))


def test_a_first_round_has_nothing_before_it(rounds, tmp_path):
    table = measure(write(tmp_path / "new", rounds[1], 2))
    assert table[["before_share", "left"]].isna().all(axis=None) and table.predicted[0] == table.predicted[1:].sum()


def test_saturated_begins_where_a_float32_is_1():
    probability = (1 / (1 + np.exp(-log_odds_of([SATURATED - 1, SATURATED])))).astype(np.float32)
    assert probability[0] < 1 == probability[1]
    assert log_odds_of(SATURATED) == pytest.approx(17.3, abs=0.1)


def test_shards_that_cannot_be_compared(rounds, tmp_path):
    old, new = rounds
    now = write(tmp_path / "new", new, 2)
    with pytest.raises(UserError, match="2 shards of predictions, and 1 of the round before"):
        measure(now, write(tmp_path / "old", old, 1))
    with pytest.raises(UserError, match="other images"):
        measure(now, write(tmp_path / "old", old, 2, names=list("vwxyz")))


def of_class(**told):
    known = {"name": "c", "predicted": 100, "share": 0.1, "before": 0.1, "left": 0.0, "prior": 0.1, "target": 20}
    return Known(**known | told)


def kinds(settings=None, disagreement=float("nan"), saturated=0.0, **told):
    """The kinds that a round of one class raises."""
    known = Round([of_class(**told)], disagreement, saturated)
    return [alarm.alarm for alarm in raised(settings or AlarmSettings(), known)]


GONE = {"predicted": 0, "share": 0.0}
NONE = float("nan")
QUARTER = AlarmSettings(disagreement=0.25, exploded=2, dwindled=2)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, []),
        ({"before": NONE, "left": NONE}, []),
        (GONE, ["vanished"]),
        (GONE | {"before": 0.0}, ["never_predicted"]),
        (GONE | {"before": NONE, "left": NONE}, ["never_predicted"]),
        ({"before": 0.0}, []),  # a class that appears
        # exactly at the limit is not beyond it
        ({"share": 0.5, "before": 0.25}, []),
        ({"share": 0.5, "before": 0.2499}, ["exploded"]),
        ({"share": 0.5, "before": 0.01, "prior": 0.5}, []),  # towards its prior
        ({"share": 0.5, "before": 0.01, "prior": 0.4999}, ["exploded"]),
        ({"share": 0.05, "before": 0.1}, []),
        ({"share": 0.0499, "before": 0.1}, ["dwindled"]),
        ({"share": 0.0499, "before": 0.5, "prior": 0.0499}, []),
        ({"target": 100}, []),
        ({"target": 101}, ["beyond"]),
        (GONE | {"target": 101}, ["vanished"]),
        ({"disagreement": 0.25, "left": 0.25}, []),
        ({"disagreement": 0.2501, "left": 0.25}, ["disagreement"]),
        ({"saturated": 0.5}, []),
        ({"saturated": 0.5001}, ["saturated"]),
    ],
)
def test_a_kind_is_raised_beyond_its_limit_and_only_if_it_is_on(told, expected):
    assert kinds(QUARTER, **told) == expected
    off = AlarmSettings.model_validate(dict.fromkeys(KINDS, False))
    assert kinds(off, **told) == []
    only = AlarmSettings.model_validate(off.model_dump() | {kind: QUARTER.model_dump()[kind] for kind in expected})
    assert kinds(only, **told) == expected


def test_settings_of_a_kind():
    told = AlarmSettings.model_validate({"exploded": True, "saturated": None, "disagreement": False, "vanished": None})
    assert (told.exploded, told.saturated, told.disagreement, told.vanished, told.beyond) == (
        3,
        None,
        None,
        False,
        True,
    )
    assert AlarmSettings.model_validate_json(told.model_dump_json()) == told
    for wrong in ({"exploded": 1}, {"saturated": 1}, {"disagreement": 0}, {"vanished": 3}, {"vanish": True}):
        with pytest.raises(ValidationError):
            AlarmSettings.model_validate(wrong)


def test_an_empty_section_is_the_default(folder_task):
    assert Config.model_validate(folder_task | {"alarms": None}).alarms == AlarmSettings()


def test_the_worst_comes_first_and_sentences_have_the_numbers():
    classes = [
        of_class(name="d", target=1500, predicted=1000),
        of_class(name="b", share=0.4, before=0.1, left=0.3),
        of_class(name="a", share=0.5, before=0.1, left=0.1),
        of_class(name="c", share=0.01, before=0.05, left=0.9),
        of_class(name="gone", before=0.25, left=1.0, **GONE),
        of_class(name="never", before=0.0, prior=0.0123, **GONE),
    ]
    found = raised(AlarmSettings(), Round(classes, 0.301, 0.6))
    assert [(one.alarm, one.of_class) for one in found] == [
        ("vanished", "gone"),
        ("disagreement", ""),
        *(("exploded", "a"), ("exploded", "b")),
        ("dwindled", "c"),
        ("saturated", ""),
        ("never_predicted", "never"),
        ("beyond", "d"),
    ]
    said = {f"{one.alarm} {one.of_class}": (one.value, one.limit, one.message) for one in found}
    for key, value, limit, words in (
        ("vanished gone", 0.25, None, ["gone had 25 %"]),
        ("disagreement ", 0.301, 0.2, ["30.1 %", "limit 20 %", "gone, which lost 100 %"]),
        ("exploded a", 5, 3, ["a has 50 %", "5 times", "prior is 10 %"]),
        ("dwindled c", 5, 3, ["c has 1 %", "5 times"]),
        ("saturated ", 0.6, 0.5, ["60 %", "limit 50 %"]),
        ("never_predicted never", 0.0123, None, ["never is never predicted", "1.23 %"]),
        ("beyond d", 1.5, 1, ["1,500 pixels of d", "1,000 are predicted"]),
    ):
        assert said[key][:2] == (pytest.approx(value), limit) and all(word in said[key][2] for word in words), said[key]


@pytest.fixture
def decided(rounds, tmp_path):
    """signs.csv and cut.csv of the second round."""
    new, old = write_both(tmp_path, rounds, 3)
    write_signs(new, old, tmp_path / "signs.csv")
    known = {"class": CLASSES, "pixels": 1, "share": [0.2, 0.2, 0.1, 0.5], "images": 1, "mean_size": 0.1}
    pd.DataFrame(known).to_csv(tmp_path / "classes.csv", index=False)
    told = SelectSettings(classes=CLASSES, policy={"name": "dars"}, portion=0.5)
    select(told, new, tmp_path / "classes.csv", tmp_path / "cut.csv")
    return tmp_path


def test_the_table_and_the_warnings(decided, caplog):
    with caplog.at_level(logging.WARNING):
        alarms(AlarmSettings(exploded=2), *(decided / f"{name}.csv" for name in ("signs", "cut", "alarms")))
    table = pd.read_csv(decided / "alarms.csv", keep_default_na=False)
    assert list(table.columns) == COLUMNS == ["alarm", "class", "value", "limit", "message"]
    told = list(zip(table.alarm, table["class"], strict=True))
    assert told == [("vanished", "NA"), ("disagreement", ""), ("exploded", "b"), ("saturated", ""), ("beyond", "d")]
    assert table.limit.tolist() == ["", "0.2", "2.0", "0.5", "1.0"]
    for record, message in zip(caplog.records, table.message, strict=True):
        assert record.getMessage().startswith(message) and "alarms.csv" in record.getMessage()


def test_where_all_is_well_the_table_is_a_header(decided):
    off = AlarmSettings.model_validate(dict.fromkeys(KINDS, False))
    alarms(off, *(decided / f"{name}.csv" for name in ("signs", "cut", "alarms")))
    assert (decided / "alarms.csv").read_text() == "alarm,class,value,limit,message\n"


def test_tables_that_do_not_belong_together(decided):
    paths = [decided / f"{name}.csv" for name in ("signs", "cut", "alarms")]
    cut = pd.read_csv(paths[1], keep_default_na=False).replace({"class": {"d": "e"}})
    cut.to_csv(paths[1], index=False)
    with pytest.raises(UserError, match="has other classes than"):
        alarms(AlarmSettings(), *paths)
    (decided / "signs.csv").write_text("class,left\n")
    with pytest.raises(UserError, match=r"signs\.csv: has columns"):
        alarms(AlarmSettings(), *paths)
    with pytest.raises(UserError, match=r"absent\.csv: no such file; run signs again"):
        read_signs(decided / "absent.csv")
