"""What the summary and the page tell of branches that agree, of an online curriculum, and of upper bounds."""

from __future__ import annotations

import io
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from test_report import CLASSES, decoded, read, round_report, write_results, write_training

from selftrain.report.figures.scores import gains_figure
from selftrain.report.figures.training import training_figure
from selftrain.report.gallery import drawings
from selftrain.report.page import TaskSection, write_report
from selftrain.report.pictures import DISAGREE, disagreement, strips
from selftrain.report.results import read_results
from selftrain.report.summary import summarize, write_summary
from selftrain.report.tables import DASH, class_table, selection_table, summary_table
from selftrain.report.terminal import print_summary
from selftrain.settings.report import ReportSettings
from selftrain.train import examples

torch.set_num_threads(1)

PREDICTED = torch.tensor([[0, 1, 2, 2, 2, 0, 0, 1]] * 6, dtype=torch.uint8)
AGREEMENT = torch.tensor([[255, 255, 170, 128, 85, 255, 255, 255]] * 6, dtype=torch.uint8)
LEARNED = torch.where(AGREEMENT == 255, PREDICTED, 255).to(torch.uint8)
BOUND = "pretrained/target-labels/seed-{}"
SPLITS = ("val", "night")


def scores_of(name: str, seed: int, split: str) -> list[float]:
    """IoU of each class: of round 0, of the curriculum, of the model of the target's labels."""
    base = {"base": [0.4, 0.3, 0.2], "curr": [0.5, 0.25, 0.2], "bound": [0.8, 0.6, 0.5]}[name]
    return [value + 0.02 * seed * (1 + at) - (0.1 if split == "night" else 0) for at, value in enumerate(base)]


def write_scores(folder: Path, name: str, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split in SPLITS:
        values = scores_of(name, seed, split)
        rows += [(split, "miou", "", np.mean(values), 100), (split, "pixel_accuracy", "", np.mean(values) + 0.3, 100)]
        rows += [(split, "iou", one, value, 25) for one, value in zip(CLASSES, [*values, np.nan], strict=True)]
    table = pd.DataFrame(rows, columns=["split", "metric", "class", "value", "pixels"])
    table.to_csv(folder / "metrics.csv", index=False)


def write_curves(folder: Path) -> None:
    """Steps of labeled and of unlabeled batches alternate: where one was not drawn its cell is empty."""
    write_training(folder, pseudo=False)
    table = pd.DataFrame({"step": [1, 2, 3, 4], "labeled": [1.0, np.nan, 0.5, np.nan]})
    table = table.assign(unlabeled=[np.nan, 0.7, np.nan, 0.4], labeled_agreement=[0.6, np.nan, 0.8, np.nan])
    table = table.assign(branch_similarity=[-0.1, 0, 0.1, 0.2], learning_rate=0.1, images_per_second=9.0)
    table.to_csv(folder / "train.csv", index=False)


def write_curriculum(folder: Path, seeds: tuple[int, ...] = (0,), bound: bool = True) -> ReportSettings:
    """The results of `write_results` with an online experiment `curr`, and what it is compared with."""
    settings, rounds = write_results(folder, seeds=seeds), []
    for seed in seeds:
        places = {"base": f"pretrained/start/seed-{seed}", "curr": f"curr/seed-{seed}/round-1"}
        start, place, best = (folder / one for one in (*places.values(), BOUND.format(seed)))
        for one, name in ((start, "base"), (place, "curr"), (best, "bound")):
            write_scores(one, name, seed)
            write_curves(one)
        image = torch.full((3, 6, 8), 90, dtype=torch.uint8)
        example = {"image": image, "predicted": PREDICTED, "agreement": AGREEMENT, "label": LEARNED}
        examples.write(place / "examples.h5", {7: example, 9: example}, CLASSES)
        of_bound = {"upper_bound": str(best)} if bound else {}
        rounds += [round_report("curr", seed, 0, start), round_report("curr", seed, 1, place, showing=True, **of_bound)]
        rounds += [round_report("target-labels", seed, 0, best, oracle=True)]
    return settings.model_copy(update={"rounds": settings.rounds + tuple(rounds)})


def give_branches(folder: Path, columns: list[float], branches: int = 2) -> np.ndarray:
    """Let the pseudo-labels of a round be of a network with branches; returns how many agree, image by image."""
    pd.read_csv(folder / "pseudo_labels.csv", keep_default_na=False).assign(agreeing=columns).to_csv(
        folder / "pseudo_labels.csv", index=False
    )
    agreement = np.random.default_rng(1).integers(1, branches + 1, (5, 6, 8)).astype(np.uint8)
    with h5py.File(folder / "pseudo_labels.h5", "a") as file:
        file["agreement"], file.attrs["branches"] = agreement, branches
    return agreement


def results_of(settings: ReportSettings, folder: Path):
    write_summary(settings, folder / "summary.csv")
    return read_results(settings, folder / "summary.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def settings(folder) -> ReportSettings:
    settings = write_curriculum(folder, seeds=(0, 1))
    for seed in (0, 1):
        give_branches(folder / f"st/seed-{seed}/round-2", [0.5, 0.25, 1, np.nan])
    return settings


@pytest.fixture(scope="module")
def results(settings, folder):
    return results_of(settings, folder)


@pytest.fixture(scope="module")
def page(settings, results, folder) -> str:
    write_report(settings, folder / "summary.csv", folder / "report/index.html")
    return (folder / "report/index.html").read_text(encoding="utf-8")


# Pictures


@pytest.mark.parametrize("branches", [2, 3, 5])
def test_disagreement_is_the_brighter_the_fewer_agree(branches):
    """Clear where all do, and as bright as it gets from half of them on."""
    share = np.arange(1, branches + 1)[None] / branches
    pixels = decoded(disagreement(share), "RGBA")[0]
    alpha, half = pixels[:, 3].astype(int), share[0] >= 0.5
    assert alpha[-1] == 0 and (alpha[share[0] <= 0.5] == alpha.max()).all() and alpha.max() > 150
    assert (np.diff(alpha) <= 0).all() and (np.diff(alpha[half]) < 0).all()
    assert (pixels[alpha > 0, :3] == DISAGREE).all()


def test_a_strip_shows_what_was_predicted_where_branches_agreed_and_what_was_learned(settings, results):
    found = strips(results, settings.tasks[0])
    assert [strip.name for strip in found] == ["curr, step 7", "curr, step 9"], "of the first seed alone"
    views = found[0].views
    assert [view.title for view in views] == ["image", "predicted", "62% agree", "62% learned"]
    assert all(abs(int(decoded(view.photo)[0, 0, 0]) - 90) <= 2 for view in views) and views[0].overlay == ""
    predicted, agreement, learned = (decoded(view.overlay, "RGBA") for view in views[1:])
    assert (predicted[..., 3] > 100).all() and len(np.unique(predicted.reshape(-1, 4), axis=0)) == 3
    alpha = agreement[0, :, 3]
    assert (alpha[[0, 1, 5, 6, 7]] == 0).all() and (alpha[[3, 4]] > 150).all() and 100 < alpha[2] < alpha[3]
    same = (LEARNED == PREDICTED).numpy()
    assert (learned[same] == predicted[same]).all() and (learned[~same][:, :3] == 0).all() and (~same).sum() == 18
    assert (learned[~same][:, 3] > 100).all()


# Curves


def test_curves_with_missing_cells(results, page):
    curves = results.curves[results.curves.experiment == "curr"]
    assert curves["at"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8] * 2
    figure = training_figure(curves[curves.seed == 0], ["labeled", "unlabeled"], (0.1, 2))
    losses, shares, rate = figure.axes
    lines = {line.get_label(): line for axes in (losses, shares) for line in axes.lines if len(line.get_xdata()) > 2}
    drawn = [line.get_xydata().tolist() for line in losses.lines if line.get_label() == "labeled"]
    assert drawn == [[[1, 1], [3, 0.5]], [[5, 1], [7, 0.5]]], "what a row lacks neither breaks a line nor is a zero"
    drawn = [line.get_xydata().tolist() for line in losses.lines if line.get_label() == "unlabeled"]
    assert drawn == [[[2, 0.7], [4, 0.4]], [[6, 0.7], [8, 0.4]]]
    assert "branch similarity" in lines and shares.get_ylim()[0] == pytest.approx(-0.1)
    assert rate.get_ylim()[0] == 0
    assert "training curves of curr" in page and "labeled agreement" in page and "branch similarity" in page
    told = re.sub(r"<script.*?</script>|base64,[^\"')]*", "", page, flags=re.DOTALL)
    assert "nan" not in told.lower()


# Upper bounds


def test_what_is_possible_is_the_upper_bound_s_gain_over_the_same_round_0(settings, results):
    bounds = results.upper_bounds(settings.tasks[0])
    assert len(bounds) == 2 * len(SPLITS) * len(CLASSES) and set(bounds.experiment) == {"curr"}
    for row in bounds.itertuples():
        at = CLASSES.index(row[4])
        if at == 3:
            assert np.isnan(row.gain) and np.isnan(row.possible)
            continue
        base, mine, best = (scores_of(name, row.seed, row.split)[at] for name in ("base", "curr", "bound"))
        assert row.gain == pytest.approx(mine - base) and row.possible == pytest.approx(best - base)


def test_of_several_rounds_the_last_is_compared(settings, results, folder):
    best = {"upper_bound": str(folder / BOUND.format(0))}
    rounds = [one.model_copy(update=best) if one.experiment == "st" else one for one in settings.rounds]
    changed = settings.model_copy(update={"rounds": tuple(rounds)})
    found = read_results(changed, folder / "summary.csv").upper_bounds(changed.tasks[0])
    own = found[(found.experiment == "st") & (found["class"] == "sky")]
    assert own.seed.tolist() == [0, 1] and own.gain.tolist() == pytest.approx([0.05, 0.05])
    assert own.possible.tolist() == pytest.approx([0.8 - 0.4, 0.8 - 0.5])


def test_a_bar_and_an_outline_for_each_class():
    gains = pd.DataFrame({"experiment": "curr", "class": ["a", "b", "a", "b", "c"]})
    gains = gains.assign(gain=[0.1, -0.05, 0.2, -0.15, np.nan], possible=[0.4, 0.3, 0.2, 0.3, np.nan])
    figure = gains_figure(gains, ["b", "a", "c"])
    patches = figure.axes[0].patches
    outlines, bars = patches[:3], patches[3:]
    assert [one.get_width() for one in outlines[:2]] == pytest.approx([30, 30])
    assert [one.get_width() for one in bars[:2]] == pytest.approx([-10, 15]) and len(bars) == 3
    assert all(one.get_facecolor()[3] == 0 for one in outlines) and all(one.get_facecolor()[3] == 1 for one in bars)
    assert all(outline.get_height() > bar.get_height() for outline, bar in zip(outlines, bars, strict=True))
    assert [one.get_text() for one in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]
    assert [one.get_text() for one in figure.legends[0].get_texts()] == ["target labels", "curr"]


def test_the_page_plots_gains_only_where_an_upper_bound_is_named(settings, results, page, tmp_path):
    gains = [one.title for one in drawings(results, settings.tasks[0]) if one.section == "gains"]
    assert gains == ["curr on val", "curr on night"]
    assert "gains of curr on val" in page and "target labels" in page and "an upper bound that uses hidden" in page
    unnamed = write_curriculum(tmp_path, bound=False)
    found = results_of(unnamed, tmp_path)
    assert found.upper_bounds(unnamed.tasks[0]).empty
    assert "gains" not in {one.section for one in drawings(found, unnamed.tasks[0])}
    write_report(unnamed, tmp_path / "summary.csv", tmp_path / "index.html")
    without = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "gains of" not in without and "upper bound" not in without and "curr" in without


def test_a_pretraining_on_the_target_s_labels_is_an_oracle(results, settings, page):
    section = TaskSection(results, settings.tasks[0], {})
    assert [names[0] for names, _ in section.summary.rows] == ["st", "NA", "curr", "target-labels (oracle)"]
    assert "target-labels (oracle)" in page and "curr (oracle)" not in page


# Pixel accuracy, agreement


def test_pixel_accuracy_stands_below_miou(results):
    table = summary_table(results.summary)
    assert table.columns[:8] == ["0", "1", "2", "gain"] * 2
    cells = {names[0]: row for names, row in table.rows}
    for at, split in enumerate(SPLITS):
        for round_, name in enumerate(("base", "curr")):
            means = [100 * np.mean(scores_of(name, seed, split)) for seed in (0, 1)]
            cell = cells["curr"][4 * at + round_]
            deviation = f"{np.std(means, ddof=1):.1f}"
            assert cell.text == f"{np.mean(means):.1f} ± {deviation}"
            assert cell.notes == (f"{np.mean(means) + 30:.1f} ± {deviation}",)
        assert cells["curr"][4 * at + 2].notes == () and cells["curr"][4 * at + 2].text == DASH
        assert cells["curr"][4 * at + 3].notes == ()


def test_pixel_accuracy_is_the_class_table_s_last_column(results, settings):
    table = class_table(results, settings.tasks[0], "val")
    assert table.columns == [*CLASSES, "mean", "mean of rare_small", "pixel accuracy"]
    rows = {names: row for names, row in table.rows}
    assert [name for name, _ in rows] == ["base", "start", "target-labels (oracle)", "st", "NA", "curr"]
    assert all(len(row) == len(table.columns) for row in rows.values())
    start, last = (np.array([np.mean(scores_of(name, seed, "val")) for seed in (0, 1)]) for name in ("base", "curr"))
    of_start, cell = rows["start", "0"][-1], rows["curr", "1"][-1]
    assert of_start.text == f"{100 * start.mean() + 30:.1f} ± {100 * start.std(ddof=1):.1f}" and of_start.notes == ()
    assert cell.text == f"{100 * last.mean() + 30:.1f} ± {100 * last.std(ddof=1):.1f}"
    assert cell.notes == (f"+{100 * (last - start).mean():.1f} ± 0.0",) and cell.tone == "up"
    assert rows["st", "2"][-1].text == "60.0 ± 7.1" and rows["base", "0"][-1].text == "55.0 ± 7.1"


def test_the_terminal_has_the_last_round_s_pixel_accuracy(results, folder):
    print_summary(folder / "summary.csv", Console(file=(plain := io.StringIO()), width=400))
    head, *lines = (re.split(r"  +", line.strip()) for line in plain.getvalue().splitlines())
    at = head.index("acc.")
    found = {(line[1], line[2]): line[at] for line in lines}
    for split in SPLITS:
        last = np.array([np.mean(scores_of("curr", seed, split)) for seed in (0, 1)])
        assert found["curr", split] == f"{100 * last.mean() + 30:.1f} ± {100 * last.std(ddof=1):.1f}"


def test_how_far_branches_agree_stands_where_it_is_known(settings, results, tmp_path):
    table = selection_table(results, settings.tasks[0])
    assert table.columns[:4] == ["policy", "portion", "branches agree, %", "labeled, %"]
    cells = {names: row[2].text for names, row in table.rows}
    share = (0.5 * 100 + 0.25 * 60 + 1 * 40) / 200
    assert cells == {("st", "1"): DASH, ("st", "2"): f"{100 * share:.1f} ± 0.0", ("NA", "1"): DASH}
    unknown = write_results(tmp_path)
    table = selection_table(results_of(unknown, tmp_path), unknown.tasks[0])
    assert "branches agree, %" not in table.columns
    assert all(len(row) == len(table.columns) for _, row in table.rows)


def test_the_labeled_share_counts_filtered_pixels_among_all(tmp_path):
    """The pixels that a filter left are the policy's; those it dropped have no label either."""
    settings = write_results(tmp_path)
    place = tmp_path / "st/seed-0/round-1"
    table = pd.read_csv(place / "pseudo_labels.csv", keep_default_na=False)
    table.assign(filtered=2 * table.pixels).to_csv(place / "pseudo_labels.csv", index=False)
    shares = summarize(settings).labeled_share
    assert shares[1:3].tolist() == pytest.approx([0.25, 0.5])


# The page


def test_nothing_on_the_page_comes_from_elsewhere(page):
    reader = read(page)
    for name, value in reader.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:", "#")), value
    assert not re.search(r"url\((?!data:|#)|@import", page)
    assert "mathdefault" not in page and "http://" not in page and "https://" not in page
    text = " ".join(reader.text)
    for word in ("62% agree", "62% learned", "branches agree, %", "pixel accuracy", "curr, step 7"):
        assert word in text, word
    assert "<b>" not in page and "<i>" not in page


def test_pictures_on_the_page_open(page):
    found = re.findall(r'<img src="(data:image/png[^"]*)" alt="curr, step 7: ([^"]*)"', page)
    assert [title for _, title in found] == ["predicted", "62% agree", "62% learned"]
    for uri, _ in found:
        assert decoded(uri, "RGBA").shape == (6, 8, 4)
