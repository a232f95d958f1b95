"""Policies against a sort of all pixels, which knows nothing of histograms."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import histogram_of

from selftrain.confidence import BINS, log_odds_of
from selftrain.errors import UserError
from selftrain.predict.writer import PredictionWriter
from selftrain.select.cut import COLUMNS, kl_divergence, nth_largest, read_cut
from selftrain.select.policies import decide
from selftrain.select.stage import select
from selftrain.settings.selection import SelectSettings

RESOLUTIONS = [None, "float16", "float32"]
POLICIES = ["st", "cbst", "da", "dars"]


def stored(bins, resolution):
    """What a file of `resolution` would hold for each pixel; the bins themselves where everything is kept apart."""
    if resolution is None:
        return bins.astype(float)
    return (1 / (1 + np.exp(-log_odds_of(bins)))).astype(resolution)


def take(values, n):
    """Which of the values are among the n largest, ties with the smallest of these included."""
    n = min(int(n), len(values))
    return values >= np.sort(values)[::-1][n - 1] if n > 0 else np.zeros(len(values), bool)


def brute_force(name, classes, bins, prior, portion, resolution):
    """Per class: selected and target, from the pixels."""
    valid = classes != 255
    classes, values = classes[valid], stored(bins[valid], resolution)
    count, members = len(prior), [classes == c for c in range(len(prior))]
    if name == "st":
        chosen = take(values, np.rint(portion * len(values)))
        selected = [int(chosen[m].sum()) for m in members]
        return np.array(selected), np.array(selected)
    # Multiplied in the code's order: of a half, another would round to the other side.
    wanted = portion * np.array([m.sum() for m in members]) if name == "cbst" else portion * len(values) * prior
    target = np.rint(wanted).astype(int)
    return np.array([take(values[members[c]], target[c]).sum() for c in range(count)]), target


def select_settings(name, portion, resolution=None, count=4, **policy):
    names = tuple(f"c{i}" for i in range(count))
    return SelectSettings(classes=names, policy={"name": name, "resolution": resolution, **policy}, portion=portion)


def check(name, classes, bins, prior, portion, resolution):
    histograms = histogram_of(classes, bins, len(prior))
    cut = decide(select_settings(name, portion, resolution, len(prior)), histograms, prior)
    selected, target = brute_force(name, classes, bins, prior, portion, resolution)
    assert cut.selected(histograms).tolist() == selected.tolist()
    assert cut.target.tolist() == target.tolist()
    fraction = np.where(selected > 0, 1.0, 0.0)
    if name == "dars":
        fraction = np.minimum(fraction, target / np.maximum(1, selected))
        assert (cut.kept(histograms) == np.minimum(target, selected)).all()
    assert cut.kept_fraction == pytest.approx(fraction)


pixels = st.lists(
    # Few distinct values, near float16's ends, so that ties and merged groups are common.
    st.tuples(
        st.sampled_from([0, 1, 2, 255]), st.sampled_from([0, 1, 8192, 16384, 16560, 16800, 20000, 20003, BINS - 1])
    ),
    max_size=60,
)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("name", POLICIES)
@given(pixels=pixels, portion=st.one_of(st.sampled_from([0, 1]), st.floats(0, 1)), data=st.data())
@settings(max_examples=40, deadline=None)
def test_policies_on_ties(name, resolution, pixels, portion, data):
    """Class 3 is never predicted; all pixels may be ignored."""
    array = np.array(pixels, int).reshape(-1, 2)
    shares = np.array(data.draw(st.lists(st.integers(0, 9), min_size=4, max_size=4)), float)
    check(name, array[:, 0], array[:, 1], shares / max(1, shares.sum()), portion, resolution)


@pytest.mark.parametrize("portion", [0, 0.003, 0.2, 0.5, 0.97, 1])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("name", POLICIES)
def test_policies_on_an_image(name, resolution, portion):
    random = np.random.default_rng(0)
    classes = random.choice(np.array([0, 1, 2, 3, 5, 255]), (90, 120), p=[0.6, 0.2, 0.1, 0.05, 0.01, 0.04])
    bins = np.clip(random.normal(16_000, 6000, (90, 120)), 0, BINS - 1).astype(int)
    prior = np.array([0.5, 0.2, 0.1, 0.1, 0.1, 0])
    check(name, classes.ravel(), bins.ravel(), prior, portion, resolution)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("threshold", [1e-6, 0.3, 0.5, 0.9, 0.9999, 1 - 1e-9])
def test_fixed_threshold(threshold, resolution):
    random = np.random.default_rng(1)
    classes, bins = random.integers(0, 4, 5000), random.integers(0, BINS, 5000)
    histograms = histogram_of(classes, bins, 5)
    cut = decide(select_settings("st", None, resolution, 5, threshold=threshold), histograms, np.ones(5) / 5)
    probability = (1 / (1 + np.exp(-log_odds_of(bins)))).astype(resolution or float).astype(float)
    expected = np.bincount(classes[probability >= threshold], minlength=5)
    assert cut.selected(histograms).tolist() == expected.tolist()


def test_only_st_does_without_a_portion():
    for name in POLICIES:
        with pytest.raises(UserError, match="needs a portion"):
            decide(select_settings(name, None), np.zeros((4, BINS), np.int64), np.zeros(4))


def test_target_is_met_to_within_one_bin():
    histograms = np.random.default_rng(0).integers(0, 5, (3, BINS))
    for n in (1, 17, 1000):
        threshold = nth_largest(histograms, np.full(3, n), None)
        for row, t in zip(histograms, threshold, strict=True):
            assert row[t:].sum() >= n > row[t + 1 :].sum()


def test_billions_of_pixels():
    histograms = np.zeros((2, BINS), np.int64)
    histograms[0, 9000], histograms[1, 100] = 10**13, 10**6
    cut = decide(select_settings("dars", 0.5, None, 2), histograms, np.array([1 - 1e-8, 1e-8]))
    assert cut.kept(histograms).tolist() == [round((1 - 1e-8) * 0.5 * (10**13 + 10**6)), 50000]


def test_kl_of_dars_is_nothing_where_da_overlaps():
    """DARS Table 5, at the resolution of the paper's store."""
    random = np.random.default_rng(0)
    prior = np.array([0.4, 0.3, 0.2, 0.07, 0.03])
    classes = random.choice(5, 3_000_000, p=[0.5, 0.3, 0.12, 0.05, 0.03])
    bins = np.clip(random.normal(18_400, 6000, 3_000_000), 0, BINS - 1).astype(int)
    histograms = histogram_of(classes, bins, 5)
    names = list("abcde")
    kl = {}
    for name in POLICIES:
        cut = decide(select_settings(name, 0.2, "float16", 5), histograms, prior)
        kl[name], left_out = kl_divergence(prior, cut.kept(histograms), names)
        assert left_out == []
    assert kl["dars"] <= 1e-6 < kl["da"]
    cut = decide(select_settings("da", 0.2, None, 5), histograms, prior)
    assert kl_divergence(prior, cut.kept(histograms), names)[0] <= 1e-6


def test_kl_divergence():
    value, left_out = kl_divergence(np.array([0.5, 0.3, 0.2, 0]), np.array([50, 0, 50, 20]), list("abcd"))
    p, q = np.array([5, 2]) / 7, np.array([50, 50]) / 120
    assert value == pytest.approx((p * np.log(p / q)).sum()) and left_out == ["b"]
    value, left_out = kl_divergence(np.array([0.5, 0.5]), np.array([0, 0]), list("ab"))
    assert np.isnan(value) and left_out == ["a", "b"]


@pytest.fixture
def files(tmp_path):
    """Two shards with classes a, b, NA (never predicted), and the labeled split's table."""
    random = np.random.default_rng(3)
    names = ("a", "b", "NA")
    for shard in range(2):
        path = tmp_path / f"{shard}.h5"
        with PredictionWriter(
            path, names=["x"], shapes=[(9, 8)], canvas=(9, 8), classes=names, attributes={}
        ) as writer:
            writer.write(0, random.choice(2, (9, 8), p=[0.9, 0.1]), random.integers(0, BINS, (9, 8)))
    known = {"class": names, "pixels": 1, "share": [0.2, 0.6, 0.2], "images": 1, "mean_size": [0.1, 1 / 3, 0.0]}
    pd.DataFrame(known).to_csv(tmp_path / "classes.csv", index=False)
    return tmp_path


def run(files, policy="dars", portion=0.5, classes=("a", "b", "NA")):
    told = SelectSettings(classes=classes, policy={"name": policy}, portion=portion)
    shards = [files / "0.h5", files / "1.h5"]
    select(told, shards, files / "classes.csv", files / "cut.csv")
    return read_cut(files / "cut.csv", classes)


def test_select_writes_a_row_per_class(files):
    table = run(files)
    assert list(table.columns) == list(COLUMNS)
    assert table["class"].tolist() == ["a", "b", "NA"]
    assert table.prior.tolist() == [0.2, 0.6, 0.2] and table.mean_size.tolist() == [0.1, 1 / 3, 0.0]
    assert table.predicted.sum() == 144 and table.selected.tolist()[1] == table.predicted[1]
    assert table.loc[2, ["predicted", "selected", "kept_fraction"]].tolist() == [0, 0, 0]
    assert np.isnan(table.threshold_log_odds[2]) and table.threshold_bin[2] == BINS
    assert table.kept_fraction[0] == table.target[0] / table.selected[0]


def test_a_cut_in_the_bins_of_another_version_is_refused(files):
    table = run(files)
    table.assign(threshold_bin=table.threshold_bin // 4).to_csv(files / "cut.csv", index=False)
    with pytest.raises(UserError, match=r"cut\.csv: its bins are not those of this version; run select again"):
        read_cut(files / "cut.csv")


def test_mistakes_are_named(files):
    with pytest.raises(UserError, match=r"0\.h5: predicts.*run predict again"):
        pd.read_csv(files / "classes.csv", keep_default_na=False).replace("NA", "c").to_csv(
            files / "classes.csv", index=False
        )
        run(files, classes=("a", "b", "c"))
    with pytest.raises(UserError, match=r"classes\.csv: is about"):
        run(files)
    wrong = {
        "nothing": r"broken inside \(its last line has no end\)",
        "class,share\na,0.2\nb,0.6\nNA,0.2\n": "has columns",
        "class,share,images,mean_size\na,0.2,1,big\n": r"broken inside \(mean_size is 'big', which is no number\)",
    }
    for text, told in wrong.items():
        (files / "classes.csv").write_text(text)
        with pytest.raises(UserError, match=rf"classes\.csv: {told}.*run statistics again"):
            run(files)
    with pytest.raises(UserError, match=r"absent\.csv: no such file; run select again"):
        read_cut(files / "absent.csv")
    (files / "cut.csv").write_text("class,predicted\na,1\n")
    with pytest.raises(UserError, match=r"cut\.csv: has columns"):
        read_cut(files / "cut.csv")


def test_no_torch():
    import subprocess
    import sys

    modules = (
        "selftrain.select.stage, selftrain.label.stage, selftrain.label.merge, selftrain.inspection.artifact, "
        "selftrain.select.dars, selftrain.alarms.stage"
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
