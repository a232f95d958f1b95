import numpy as np
import pandas as pd
import pytest
from test_label import CLASSES, MEAN_SIZE, images, run, write_shard

from selftrain.alarms.signs import write_signs
from selftrain.alarms.stage import alarms
from selftrain.errors import UserError
from selftrain.inspection.artifact import inspect
from selftrain.inspection.labels import divergences
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.settings.alarms import AlarmSettings


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    run(folder, list(images(6)), shards=2)
    return folder


def test_pseudo_labels(files):
    table = inspect(files / "pseudo_labels.h5")
    assert table["class"].tolist() == list(CLASSES)
    columns = "class predicted pixels share prior threshold_log_odds threshold_probability kept_fraction images changed"
    assert table.columns.to_list() == columns.split()  # no weak labels, no agreement: there are none
    assert inspect(files / "pseudo_labels.h5", images=True).image.tolist() == [f"image_{i}" for i in range(6)]


def test_tables(files):
    assert inspect(files / "pseudo_labels.csv").pixels.tolist() == inspect(files / "pseudo_labels.h5").pixels.tolist()
    assert inspect(files / "pseudo_labels.csv").weak_images.isna().all()
    assert inspect(files / "cut.csv").predicted.tolist()[3] == 0
    assert inspect(files / "cut.csv").mean_size.tolist() == MEAN_SIZE


def test_alarms_and_their_signs(files, tmp_path):
    for name in ("pseudo_labels.h5", "cut.csv"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    write_signs([files / "p0.h5"], [files / "p0.h5"], tmp_path / "signs.csv")
    signs = inspect(tmp_path / "signs.csv")
    assert signs["class"].tolist() == ["", *CLASSES]
    assert signs.left.tolist() == pytest.approx([0, 0, 0, 0, np.nan], nan_ok=True)
    alarms(AlarmSettings(), tmp_path / "signs.csv", tmp_path / "cut.csv", tmp_path / "alarms.csv")
    table = inspect(tmp_path / "alarms.csv")
    (never,) = table[table.alarm == "never_predicted"].itertuples()
    assert never[2] == CLASSES[3] and pd.isna(never.limit)
    shown = inspect(tmp_path / "pseudo_labels.h5")
    assert shown.columns[-1] == "alarms" and shown.alarms[3] == "never_predicted"
    off = AlarmSettings(never_predicted=False, beyond=False)
    alarms(off, tmp_path / "signs.csv", tmp_path / "cut.csv", tmp_path / "alarms.csv")
    assert inspect(tmp_path / "alarms.csv").empty
    assert inspect(tmp_path / "pseudo_labels.h5").alarms.tolist() == [""] * 4


def test_predictions(files):
    table = inspect(files / "p0.h5")
    bins = np.concatenate([bins[classes == 0] for _, classes, bins in images(3)])
    assert table.predicted[0] == len(bins)
    assert table.median_log_odds[0] == pytest.approx(np.median(bins) / 1024 - 8, abs=0.02)
    assert np.isnan(table.median_log_odds[3]) and table.predicted[3] == 0
    assert inspect(files / "p0.h5", images=True).height.tolist() == [40, 39, 38]


@pytest.mark.parametrize("policy", ["st", "cbst", "da", "dars"])
def test_portions_are_what_labeling_would_do(tmp_path, policy):
    """Answered from a file that was selected at another portion."""
    items = list(images(4))
    output, *_ = run(tmp_path / "asked", items, policy=policy, portion=0.05)
    table = inspect(output, portions=[0, 0.3, 1])
    assert table["class"].tolist() == list(CLASSES)
    assert (table["0 pixels"] == 0).all() and table["0 threshold"].isna().all()
    run(tmp_path / "done", items, policy=policy, portion=0.3)
    done = PseudoLabels(tmp_path / "done/pseudo_labels.h5")
    expected = np.rint(done.cut.selected * done.cut.kept_fraction)
    assert table["0.3 pixels"].tolist() == expected.tolist()
    np.testing.assert_array_equal(table["0.3 threshold"], done.cut.threshold_probability)
    assert table["0.3 share"].sum() == pytest.approx(1)


def test_the_divergence_from_the_prior_is_told(files):
    table = inspect(files / "pseudo_labels.h5")
    known = table.pixels > 0
    p, q = (column[known] / column[known].sum() for column in (table.prior, table.pixels))
    told = f"{(p * np.log(p / q)).sum():.2e}"
    assert divergences(table) == [f"KL(prior || labels): {told}"]
    assert divergences(inspect(files / "pseudo_labels.csv")) == divergences(table)
    attribute = PseudoLabels(files / "pseudo_labels.h5").attributes["kl_divergence"]
    assert told == f"{attribute:.2e}"
    rows = table.assign(prior=0.25)  # what the prior has, but no label, is named
    assert divergences(rows)[0].endswith(f"(without pixels: {CLASSES[3]})")
    (line,) = divergences(inspect(files / "cut.csv"))
    assert line.startswith("KL(prior || labels), expected: ")
    nothing, some = divergences(inspect(files / "pseudo_labels.h5", portions=[0, 0.3]))
    assert nothing.startswith("KL(prior || labels) at portion 0, expected: no class has pixels (without pixels: ")
    assert some.startswith("KL(prior || labels) at portion 0.3, expected: ") and "no class" not in some
    assert divergences(inspect(files / "p0.h5")) == divergences(inspect(files / "pseudo_labels.h5", images=True)) == []


def test_what_cannot_be_answered(files, tmp_path):
    for name in ("cut.csv", "pseudo_labels.csv", "p0.h5"):
        with pytest.raises(UserError, match=r"give the pseudo_labels\.h5"):
            inspect(files / name, portions=[0.1])
    with pytest.raises(UserError, match="has no images"):
        inspect(files / "cut.csv", images=True)
    with pytest.raises(UserError, match="from 0 to 1"):
        inspect(files / "pseudo_labels.h5", portions=[0.1, 20])
    with pytest.raises(UserError, match="no such file"):
        inspect(tmp_path / "absent")


def test_other_files(files, tmp_path):
    for name, content in (("a.csv", b"class,pixels\n"), ("b.h5", b"\x89PNG\xff"), ("c", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: inspect reads pseudo_labels\.h5, a shard.*none of them"):
            inspect(tmp_path / name)
    with pytest.raises(UserError, match="none of them"):
        inspect(files / "l0.h5")
    (tmp_path / "short.h5").write_bytes((files / "pseudo_labels.h5").read_bytes()[:-50])
    with pytest.raises(UserError, match="not a whole HDF5 file"):
        inspect(tmp_path / "short.h5")


def test_a_fixed_threshold_has_no_portions(tmp_path):
    from selftrain.label.merge import merge
    from selftrain.label.stage import label
    from selftrain.select.stage import select
    from selftrain.settings.selection import LabelSettings, SelectSettings

    run(tmp_path, list(images(2)))
    told = SelectSettings(classes=CLASSES, policy={"name": "st", "threshold": 0.9})
    how = LabelSettings(seed=0, round=1, select=told)
    prediction = write_shard(tmp_path / "p.h5", list(images(2)), (40, 60))
    paths = [tmp_path / name for name in ("c.csv", "l.h5", "out.h5", "out.csv")]
    select(told, [prediction], tmp_path / "classes.csv", paths[0])
    label(how, prediction, paths[0], paths[1])
    merge(how, [paths[1]], [prediction], *(paths[0], paths[2], paths[3]))
    assert np.isnan(PseudoLabels(paths[2]).attributes["portion"])
    with pytest.raises(UserError, match="fixed threshold"):
        inspect(paths[2], portions=[0.5])
