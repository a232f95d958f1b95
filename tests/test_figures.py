"""What the report's figures draw, read back from them; and how they become markup and files."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from test_report import CLASSES, write_results

from selftrain.confidence import BINS, log_odds_of
from selftrain.report.figures import training
from selftrain.report.figures.calibration import reliability_figure
from selftrain.report.figures.models import Node, models_figure
from selftrain.report.figures.pseudo_labels import MOST, Confidence, confidence_figure, places_figure, shares_figure
from selftrain.report.figures.scores import curves_figure, seeds_figure, sizes_figure
from selftrain.report.figures.style import SERIES, inline, spread, svg
from selftrain.report.gallery import drawings
from selftrain.report.page import write_report
from selftrain.report.results import read_results
from selftrain.report.summary import write_summary

PLACES = st.lists(st.floats(-50, 50), min_size=1, max_size=12)


@given(PLACES, st.floats(0.1, 4))
def test_labels_keep_their_distance_and_order_and_stay_where_they_can(values, gap):
    low, high = -100.0, 100.0
    found = spread(values, gap, low, high)
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= gap - 1e-6).all()
    assert min(found) >= low and max(found) <= high
    alone = sorted(values)
    if (np.diff(alone) >= gap).all():
        assert found == pytest.approx(values, abs=1e-6)
    assert np.mean(found) == pytest.approx(np.mean(values), abs=1e-6), "nothing is pushed more to one side"


def test_labels_that_have_no_room_overflow_in_order():
    assert spread([1.0, 1.0, 1.0], 1.0, 0.0, 1.0) == [0.0, 1.0, 2.0]


def test_curves_are_means_over_seeds_from_round_0_on():
    rows = [("a", seed, at, 0.4 + 0.1 * at + 0.02 * seed) for seed in (0, 1) for at in (0, 1, 2)]
    rows += [("b", seed, at, 0.3 + 0.3 * at) for seed in (0, 1) for at in (0, 1)]
    summary = pd.DataFrame(rows, columns=["experiment", "seed", "round", "miou"])
    axes = curves_figure(summary).axes[0]
    drawn = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert drawn[0] == pytest.approx(np.array([[0, 41], [1, 51], [2, 61]]))
    assert drawn[1] == pytest.approx(np.array([[0, 30], [1, 60]]))
    assert [text.get_text() for text in axes.texts] == ["61.0  a", "60.0  b"]
    bars = axes.collections[0].get_segments()
    assert [segment[1][1] - segment[0][1] for segment in bars] == pytest.approx([2 * math.sqrt(2)] * 3)


def test_curves_have_room_for_what_seeds_differ():
    summary = pd.DataFrame(
        {"experiment": "a", "seed": [0, 1, 0, 1], "round": [0, 0, 1, 1], "miou": [0.05, 0.15, 0.2, 0.2]}
    )
    axes = curves_figure(summary).axes[0]
    ends = np.concatenate(axes.collections[0].get_segments())[:, 1]
    low, high = axes.get_ylim()
    assert low <= np.nanmin(ends) and np.nanmax(ends) <= high


def test_starts_of_several_kinds_can_be_told_apart():
    names = ["supervised, round 0", "two-branches, round 0", *(f"e{number}, round 2" for number in range(8))]
    objects = pd.concat(
        pd.DataFrame({"model": name, "lower": [1, 2], "upper": [2, 4], "correct": [1, 2], "pixels": [2, 3]})
        for name in names
    )
    lines = sizes_figure(objects).axes[0].lines
    looks = {(line.get_color(), str(line.get_linestyle()), line.get_marker(), line._dash_pattern[0]) for line in lines}
    assert len(looks) == len(names)


@pytest.mark.parametrize(("lowest", "highest"), [(0.2, 0.4), (0.45, 0.6), (0.3, 0.999), (0.04, 0.2)])
def test_an_axis_of_confidence_has_names_wherever_it_lies(lowest, highest):
    histogram = np.zeros((1, BINS), np.int64)
    bins = np.searchsorted(log_odds_of(np.arange(BINS)), np.log([lowest / (1 - lowest), highest / (1 - highest)]))
    histogram[0, bins] = 5
    cut = pd.DataFrame({"threshold_bin": [int(bins[0])], "kept_fraction": [1.0]})
    axes = confidence_figure(Confidence.of(histogram, cut), ["a"]).axes[0]
    low, high = axes.get_xlim()
    ticks = [place for place in axes.get_xticks() if low <= place <= high]
    assert len(ticks) > 1 and len(axes.get_xticklabels()) == len(ticks)


@pytest.mark.parametrize("limits", [(0.4, 2.5), (0.9, 1.6), (0.02, 3)])
def test_a_logarithmic_axis_has_more_than_one_number(limits):
    curves = pd.DataFrame(
        {"seed": 0, "round": 1, "step": [1, 2], "at": [1, 2], "learning_rate": 0.1, "labeled": limits}
    )
    figure = training.training_figure(curves, ["labeled"], limits)
    axis = figure.axes[0].yaxis
    ticks = [place for place in axis.get_major_locator()() if limits[0] <= place <= limits[1]]
    assert len(ticks) > 1


def test_a_legend_is_not_cut():
    terms = ["labeled", "pseudo_labeled", "labeled_weak", "pseudo_labeled_weak"]
    curves = pd.DataFrame(
        {"seed": 0, "round": 1, "step": [1, 2], "at": [1, 2], "learning_rate": 0.1, **dict.fromkeys(terms, 0.5)}
    )
    figure = training.training_figure(curves, terms, (0.1, 1))
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent(canvas.get_renderer()).x1 <= figure.bbox.x1


def test_seeds_are_dots_around_their_mean():
    rows = [("start", 0, 0.3), ("start", 1, 0.34), ("dars", 0, 0.4), ("dars", 1, 0.5), ("later", 0, None)]
    axes = seeds_figure(pd.DataFrame(rows, columns=["experiment", "seed", "miou"]), ["start", "oracle"]).axes[0]
    drawn = [line.get_xdata() for line in axes.lines]
    assert [list(one) for one in drawn[1:5]] == [
        *(pytest.approx(values) for values in ([30, 34], [32], [40, 50], [45])),
    ]
    assert list(drawn[0]) == pytest.approx([32, 32]), "a line at the start"
    assert [text.get_text() for text in axes.texts] == ["32.0", "45.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["start", "dars", "later"]


def test_confidence_is_cut_where_the_policy_said():
    rng = np.random.default_rng(0)
    histogram = np.zeros((3, BINS), np.int64)
    histogram[:2] = np.stack([np.bincount(rng.integers(8000, 20000, 5000), minlength=BINS) for _ in range(2)])
    cut = pd.DataFrame({"threshold_bin": [15000, BINS, BINS], "kept_fraction": [0.5, 0, 0]})
    of = Confidence.of(histogram, cut)
    assert of.pixels.sum(1).tolist() == [5000, 5000, 0]
    assert of.threshold.tolist() == [log_odds_of(15000), math.inf, math.inf]
    kept, none, never = confidence_figure(of, ["road", "<car>", "bus"]).axes
    assert [line.get_xdata()[0] for line in kept.lines] == [of.threshold[0]]
    everything, above = kept.patches
    assert everything.get_data().values.max() == 1
    heights, edges = above.get_data().values, above.get_data().edges
    assert (heights[edges[1:] <= of.threshold[0]] == 0).all() and heights.sum() > 0
    assert to_hex(above.get_facecolor()) == SERIES[0] and above.get_alpha() == pytest.approx(0.35 + 0.65 / 2)
    assert not none.lines and none.texts[0].get_text() == "none kept"
    assert never.texts[0].get_text() == "never predicted"


def test_shares_show_prior_rounds_and_truth():
    rows = [("road", 1, 0.5, 0.6), ("road", 2, 0.55, 0.6), ("car", 1, 0.1, 0.05), ("car", 2, 0.0, 0.05)]
    labels = pd.DataFrame(rows, columns=["class", "round", "share", "prior"])
    axes = shares_figure(labels, ["road", "car"], 0.01, {"road": 0.58, "car": 0.0}).axes[0]
    marks = [(line.get_marker(), line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert ("|", 0.6, 0) in marks and ("D", 0.58, 0) in marks and ("o", 0.55, 0) in marks
    assert ("x", 0.01, 1) in marks and not [one for one in marks if one[0] == "D" and one[2] == 1]


def test_places_are_each_scaled_to_their_own_end():
    frequency = np.zeros((3, 4, 8), np.float32)
    frequency[0, :2], frequency[1, 3, 3] = 0.5, 0.25
    axes = places_figure(frequency, ["sky", "car", "bus"]).axes
    images = [one.images[0].get_array() for one in axes[:3]]
    assert [float(image.max()) for image in images] == [1, 1, 0] and (images[0][:2] == 1).all()
    assert [one.get_xlabel() for one in axes[:3]] == ["to 50%", "to 25%", "nowhere"]


def test_of_many_classes_the_most_frequent_have_a_panel():
    frequency = np.full((255, 4, 8), 0.1, np.float32)
    frequency[:100] = 0.01
    names = [f"class {number}" for number in range(255)]
    figure = places_figure(frequency, names)
    assert [axes.get_title(loc="left") for axes in figure.axes[:MOST]] == names[100 : 100 + MOST]
    assert figure.get_supxlabel() == f"{MOST} of 255 classes"
    histogram = np.zeros((255, BINS), np.int64)
    histogram[-5:, 9000] = 7
    cut = pd.DataFrame({"threshold_bin": np.full(255, 9000), "kept_fraction": 1.0})
    figure = confidence_figure(Confidence.of(histogram, cut), names)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert len(titles) == MOST and titles[-5:] == names[-5:]


def test_reliability_shows_bins_that_have_pixels():
    rows = [
        ("val", when, 0.55, right, n) for when, right, n in (("before", 0.4, 9), ("after", 0.5, 9), ("after", 1, 0))
    ]
    table = pd.DataFrame(rows, columns=["split", "calibrated", "confidence", "accuracy", "pixels"])
    (axes,) = reliability_figure(table).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines[1:]}
    assert drawn["before"] == pytest.approx(np.array([[55, 40]])) and drawn["after"] == pytest.approx(
        np.array([[55, 50]])
    )


def test_models_join_the_experiments_that_share_a_pretraining():
    nodes = [Node("base", 0, "base", False, "9 s"), Node("alone", 0, "alone", False, "")]
    nodes += [Node("a", 1, "base", True, "1 s"), Node("a", 2, "base", True, "2 s"), Node("b", 1, "base", False, "3 s")]
    axes = models_figure(nodes).axes[0]
    joined = [(line.get_linestyle(), line.get_xydata().tolist()) for line in axes.lines if len(line.get_xdata()) > 1]
    assert joined == [
        ("-", [[0, 0.5], [0.5, 0], [1, 0]]),
        ("-", [[1, 0], [1.5, 0], [2, 0]]),
        (":", [[0, 0.5], [0.5, 1], [1, 1]]),
    ]
    told = [text.get_text() for text in axes.texts]
    assert told == ["base, 9 s", "alone", "1 s", "2 s", "3 s", "a", "b"]


def test_a_figure_becomes_markup_in_the_page_s_colors_and_a_file_of_its_own():
    figure = models_figure([Node("<base>", 0, "<base>", False, "")])
    file = svg(figure, 'of "these" & those')
    assert file == svg(models_figure([Node("<base>", 0, "<base>", False, "")]), 'of "these" & those')
    assert file.startswith("<?xml") and "background: white" in file
    element = inline(file, 'of "these" & those')
    assert element.startswith('<svg role="img" aria-label="of &#34;these&#34; &amp; those" viewBox=')
    assert "&lt;base&gt;" in element and "var(--ink)" in element and not re.search(r"#1a1a1b|<!--|font-family", element)


def test_every_figure_of_the_page_is_a_file_under_its_task_and_section(tmp_path):
    settings = write_results(tmp_path)
    write_summary(settings, tmp_path / "summary.csv")
    (tmp_path / "report/figures/tiny/scores").mkdir(parents=True)
    (tmp_path / "report/figures/tiny/scores/old.svg").write_text("of an earlier run")
    write_report(settings, tmp_path / "summary.csv", tmp_path / "report/index.html")
    results = read_results(settings, tmp_path / "summary.csv")
    named = {f"tiny/{one.section}/{one.name}.svg" for one in drawings(results, settings.tasks[0])}
    files = {str(path.relative_to(tmp_path / "report/figures")) for path in (tmp_path / "report").rglob("*.svg")}
    assert files == named and len(named) == 3 + 3 * 2
    assert set((tmp_path / "report").iterdir()) == {
        tmp_path / "report" / name for name in ("index.html", "figures", "images")
    }
    assert CLASSES[1] not in (tmp_path / "report/figures/tiny/shares/st.svg").read_text(), "names are escaped"


def test_lines_of_losses_and_of_shares_never_look_alike():
    names = ["labeled", "pseudo_labeled", "unlabeled", "labeled_classes", "pseudo_labeled_classes", "mixed"]
    steps = {"seed": 0, "round": 1, "step": [1, 2], "at": [1, 2], "learning_rate": 1e-3}
    curves = pd.DataFrame(
        steps | dict.fromkeys([*names, "mixed_weight", "labeled_agreement", "unlabeled_agreement"], 0.5)
    )
    figure = training.training_figure(curves, names, (0.01, 1))
    lines = [line for axes in figure.axes[:2] for line in axes.get_lines() if not line.get_label().startswith("_")]
    assert len(lines) == 9 == len({(line.get_color(), str(line.get_linestyle())) for line in lines})
