"""The summary and the page, over a small tree of results made here."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from selftrain import hdf5
from selftrain.code_digest import Sources, _companions
from selftrain.confidence import BINS
from selftrain.errors import UserError
from selftrain.label.pseudo_labels import CLASS_COLUMNS, FORMAT
from selftrain.report.page import write_report
from selftrain.report.pictures import overlay, strips
from selftrain.report.results import read_results, read_summary
from selftrain.report.summary import summarize, write_summary
from selftrain.report.tables import DASH, class_table, summary_table, weak_label_table
from selftrain.report.terminal import print_summary
from selftrain.settings.data import ReadSettings
from selftrain.settings.report import ReportSettings, RoundReport, TaskReport
from selftrain.train import examples

CLASSES = ("sky", "<b>road</b>", "$x_1$", "NA")
ROUNDS = {"st": 2, "NA": 1}
"""The last round of each experiment."""
SCORE = {0: 0.4, 1: 0.5, 2: 0.45}
ALARM = "NA is never predicted <i>"


def miou_of(experiment: str, seed: int, round_: int) -> float:
    return SCORE[round_] + seed / 10 + (0.02 if experiment == "NA" and round_ else 0)


def write_metrics(folder: Path, mean: float) -> None:
    rows = [("val", "miou", "", mean, 100), ("val", "pixel_accuracy", "", mean + 0.1, 100)]
    rows += [("val", "iou", name, mean, 25) for name in CLASSES[:3]] + [("val", "iou", "NA", np.nan, 0)]
    rows += [("val", "group_miou", "rare_small", mean / 2, 10)]
    pd.DataFrame(rows, columns=["split", "metric", "class", "value", "pixels"]).to_csv(
        folder / "metrics.csv", index=False
    )
    sizes = pd.DataFrame({"split": "val", "class": ["sky", "NA", "sky"], "lower": [4, 4, 32], "upper": [8, 8, 64]})
    sizes.assign(objects=1, pixels=[6, 4, 40], correct=[3, 2, round(40 * mean)]).to_csv(
        folder / "sizes.csv", index=False
    )


def write_training(folder: Path, pseudo: bool) -> None:
    table = pd.DataFrame({"step": [1, 2, 3], "labeled": [1.0, 0.5, 0.3]})
    if pseudo:
        table["pseudo_labeled"] = [0.9, 0.0, 0.2]
    table.assign(learning_rate=[0.3, 0.2, 0.1], images_per_second=9.0).to_csv(folder / "train.csv", index=False)
    manifest = {"selftrain": "0.1.0", "commit": None, "packages": {"torch": "9.9"}, "seconds": 12.3, "waited": 3.1}
    (folder / "manifest.json").write_text(
        json.dumps({**manifest, "device": "cpu", "threads": 1, "settings": {"note": "</pre>"}})
    )


def write_pseudo_labels(folder: Path, round_: int, truth: bool, weak: bool) -> None:
    pixels = np.array([50, 30, 20, 0])
    table = pd.DataFrame(
        {
            "class": CLASSES,
            "predicted": 2 * pixels,
            "filtered": 0,
            "agreeing": np.nan,
            "pixels": pixels,
            "share": pixels / 100,
            "prior": [0.5, 0.25, 0.15, 0.1],
            "threshold_log_odds": [1, 2, 3, np.nan],
            "threshold_probability": [0.73, 0.88, 0.95, np.nan],
            "kept_fraction": [1, 1, 0.5, 0],
            "images": [2, 2, 1, 0],
            "changed": 0,
            "weak_images": [2, 1, 1, 0] if weak else np.nan,
        }
    )
    table.to_csv(folder / "pseudo_labels.csv", index=False)
    table.assign(predicted=2 * pixels).to_csv(folder / "cut.csv", index=False)
    never = {"alarm": "never_predicted", "class": "NA", "value": 0.1, "limit": np.nan, "message": ALARM}
    pd.DataFrame([never]).to_csv(folder / "alarms.csv", index=False)
    if truth:
        scores = pd.DataFrame({"class": ["", *CLASSES], "pixels": 4, "correct": 3, "accuracy": 0.75})
        scores["weak_precision"] = [0.5, 0.5, 1, 0, np.nan] if weak else np.nan
        scores["weak_recall"] = [0.75, 1, 0.25, 0, np.nan] if weak else np.nan
        scores.to_csv(folder / "pseudo_label_scores.csv", index=False)
    with FORMAT.create(folder / "pseudo_labels.h5") as file:
        label = np.random.default_rng(round_).choice(np.array([0, 1, 2, 255], np.uint8), (5, 6, 8))
        file["label"], file["confidence"], file["shapes"] = label, label, np.full((5, 2), (6, 8), np.int32)
        file["images"] = [f"image-{number}" for number in range(5)]
        file["mean_confidence"] = np.arange(5, dtype=np.float32)
        file["counts"] = np.stack([np.bincount(one.ravel(), minlength=256)[:4] for one in label])
        histogram = np.zeros((4, BINS), np.int64)
        histogram[:3, 8192:32768:512] = pixels[:3, None]
        hdf5.write_histogram(file, histogram)
        bins = np.array([16384, 20000, 24000, BINS])
        cut = pd.DataFrame({"class": CLASSES, "threshold_bin": bins, "kept_fraction": [1, 1, 0.5, 0]})
        cut = cut.assign(prior=0.25, mean_size=0.1)
        hdf5.write_table(file, "cut", cut)
        hdf5.write_table(file, "classes", table[CLASS_COLUMNS])
        file.attrs.update(classes=json.dumps(CLASSES), method="dars", round=round_, portion=0.2)
        file.attrs.update(settings="{}", branches=1)


def write_images(folder: Path, truth: bool) -> dict[str, str | None]:
    rows = []
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(pixels[..., 0] % 4).save(folder / f"{number}-label.png")
        files = [str(folder / f"{number}{end}.png") for end in ("", "-label")]
        rows.append([f"image-{number}", *files, 6, 8, "", ""])
    columns = ["image", "image_file", "label_file", "height", "width", "image_digest", "label_digest"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "images.csv", index=False)
    file = str(folder / "images.csv")
    return {"unlabeled": file, "truth": file if truth else None}


def round_report(experiment: str, seed: int, round_: int, place: Path, **options: bool) -> RoundReport:
    told = {"offline": False, "oracle": False} | options
    return RoundReport(task="tiny", experiment=experiment, seed=seed, round=round_, folder=str(place), **told)


def write_results(folder: Path, seeds: tuple[int, ...] = (0,), truth: bool = True) -> ReportSettings:
    rounds = []
    for experiment, last in ROUNDS.items():
        for seed in seeds:
            for round_ in range(last + 1):
                name = f"{experiment}/seed-{seed}/round-{round_}" if round_ else f"pretrained/base/seed-{seed}"
                place = folder / name
                place.mkdir(parents=True, exist_ok=True)
                write_metrics(place, miou_of(experiment, seed, round_))
                write_training(place, pseudo=round_ > 0)
                if round_:
                    write_pseudo_labels(place, round_, truth, weak=experiment == "NA")
                offline = round_ > 0
                rounds.append(round_report(experiment, seed, round_, place, offline=offline, scored=offline and truth))
    task = TaskReport(
        name="tiny",
        classes=CLASSES,
        colors=None,
        read_truth=ReadSettings(classes=CLASSES, ignore_index=255) if truth else None,
        evaluation=("val",),
        **write_images(folder, truth),
    )
    return ReportSettings(tasks=(task,), rounds=tuple(rounds))


def write_page(folder: Path, **options) -> str:
    settings = write_results(folder, **options)
    write_summary(settings, folder / "summary.csv")
    write_report(settings, folder / "summary.csv", folder / "report" / "index.html")
    return (folder / "report" / "index.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Checks that elements close in order, and keeps text, attributes and tags."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return write_page(tmp_path_factory.mktemp("results"))


def test_the_summary_has_the_columns_that_the_design_names(tmp_path):
    table = summarize(write_results(tmp_path))
    named = "task,experiment,seed,round,split,miou,pixel_accuracy,gain,labeled_share,pseudo_label_accuracy"
    assert ",".join(table.columns) == named
    assert table[["experiment", "round"]].to_numpy().tolist() == [["st", 0], ["st", 1], ["st", 2], ["NA", 0], ["NA", 1]]
    assert table.gain.tolist() == pytest.approx([0, 0.1, 0.05, 0, 0.12])
    assert table[table["round"] == 0][["labeled_share", "pseudo_label_accuracy"]].isna().all(axis=None)
    assert table[table["round"] > 0].labeled_share.tolist() == pytest.approx([0.5] * 3)
    assert table[table["round"] > 0].pseudo_label_accuracy.tolist() == pytest.approx([0.75] * 3)


def test_gain_is_over_the_same_seed(tmp_path):
    table = summarize(write_results(tmp_path, seeds=(0, 1)))
    assert table[(table["round"] == 1) & (table.experiment == "st")].gain.tolist() == pytest.approx([0.1, 0.1])


def test_without_truth_the_accuracy_is_empty(tmp_path):
    settings = write_results(tmp_path, truth=False)
    write_summary(settings, tmp_path / "summary.csv")
    assert read_summary(tmp_path / "summary.csv").pseudo_label_accuracy.isna().all()


def test_the_page_is_whole_and_tells_of_everything(page):
    reader = read(page)
    text = " ".join(reader.text)
    for word in (*CLASSES, *ROUNDS, "val", "0.1.0", "9.9", "12.3", "25%", ALARM, "round 2", "dars"):
        assert word in text, word
    assert "Weak labels by class" in text
    assert {"svg", "table", "details"} <= set(reader.tags)
    of_task = ["mIoU over rounds", "accuracy by object size", "the models of tiny"]
    of_each = ["class shares", "histograms of confidence", "training curves"]
    labels = [value for name, value in reader.attributes if name == "aria-label"]
    told = [[label for label in labels if label.startswith(start)] for start in (*of_task, *of_each)]
    assert [len(of) for of in told] == [1] * len(of_task) + [len(ROUNDS)] * len(of_each)
    assert reader.tags["svg"] == sum(map(len, told))


def test_nothing_on_the_page_comes_from_elsewhere(page):
    for name, value in read(page).attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:", "#")), value
    assert not re.search(r"url\((?!data:|#)|@import", page)
    assert "mathdefault" not in page
    assert "http://" not in page and "https://" not in page


def test_names_are_escaped(page):
    assert "<b>" not in page and "<i>" not in page and "&lt;b&gt;road&lt;/b&gt;" in page
    assert page.count("</pre>") == page.count("<pre ")


def test_what_does_not_exist_is_a_dash(tmp_path):
    settings = write_results(tmp_path, truth=False)
    write_summary(settings, tmp_path / "summary.csv")
    results = read_results(settings, tmp_path / "summary.csv")
    table = summary_table(results.summary)
    assert table.columns == ["0", "1", "2", "gain", "1", "2"], "of truth there is no column at all"
    cells = {names[0]: [cell.text for cell in row] for names, row in table.rows}
    assert cells["st"] == ["40.0", "50.0", "45.0", "+5.0", "50.0", "50.0"]
    assert cells["NA"] == ["40.0", "52.0", DASH, "+12.0", "50.0", DASH]
    classes = class_table(results, settings.tasks[0], "val")
    assert {row[3].text for _, row in classes.rows} == {DASH}
    assert [names for names, _ in classes.rows] == [("base", "0"), ("st", "2"), ("NA", "1")]


def test_seeds_become_mean_and_deviation(tmp_path):
    settings = write_results(tmp_path, seeds=(0, 1))
    write_summary(settings, tmp_path / "summary.csv")
    results = read_results(settings, tmp_path / "summary.csv")
    row = summary_table(results.summary).rows[0][1]
    assert [cell.text for cell in row[:4]] == ["45.0 ± 7.1", "55.0 ± 7.1", "50.0 ± 7.1", "+5.0 ± 0.0"]
    cell = class_table(results, settings.tasks[0], "val").rows[1][1][0]
    assert (cell.text, cell.notes, cell.heat, cell.tone) == ("50.0 ± 7.1", ("+5.0 ± 0.0",), 0.5, "up")
    write_report(settings, tmp_path / "summary.csv", tmp_path / "index.html")


@pytest.mark.parametrize("truth", [True, False])
def test_weak_labels_are_told_of_the_rounds_that_have_them(tmp_path, truth):
    settings = write_results(tmp_path, truth=truth)
    write_summary(settings, tmp_path / "summary.csv")
    table = weak_label_table(read_results(settings, tmp_path / "summary.csv"), settings.tasks[0])
    ((names, cells),) = table.rows
    assert names == ("NA", "1") and table.columns == list(CLASSES)
    assert [cell.text for cell in cells] == ["2", "1", "1", "0"]
    right = [("p 50.0", "r 100.0"), ("p 100.0", "r 25.0"), ("p 0.0", "r 0.0"), (f"p {DASH}", f"r {DASH}")]
    assert [cell.notes for cell in cells] == (right if truth else [()] * 4)


def test_an_online_oracle_shows_how_it_mixed(tmp_path):
    start, place = tmp_path / "pretrained/base/seed-0", tmp_path / "mix/seed-0/round-1"
    place.mkdir(parents=True)
    settings = write_results(tmp_path)
    write_metrics(place, 0.6)
    write_training(place, pseudo=False)
    table = pd.read_csv(place / "train.csv").assign(mixed=0.5, share_above_threshold=[0.1, 0.2, 0.3], mixed_weight=0.2)
    table.to_csv(place / "train.csv", index=False)
    pictures = {name: torch.full((3, 6, 8), value, dtype=torch.uint8) for name, value in PHOTOS.items()}
    label = torch.tensor([[0, 1, 2, 255, 2, 0, 0, 0]] * 6, dtype=torch.uint8)
    example = pictures | {"mask": (label == 1).to(torch.uint8), "label": label}
    examples.write(place / "examples.h5", {5: example, 10: example}, CLASSES)
    rounds = (round_report("mix", 0, 0, start), round_report("mix", 0, 1, place, oracle=True, showing=True))
    settings = settings.model_copy(update={"rounds": settings.rounds + rounds})

    summary = summarize(settings)
    own = summary[(summary.experiment == "mix") & (summary["round"] == 1)]
    assert own[["labeled_share", "pseudo_label_accuracy"]].isna().all(axis=None) and own.gain.item() == pytest.approx(
        0.2
    )
    write_summary(settings, tmp_path / "summary.csv")
    results = read_results(settings, tmp_path / "summary.csv")
    assert [names[0] for names, _ in summary_table(results.summary, ["mix"]).rows] == ["st", "NA", "mix (oracle)"]
    found = strips(results, settings.tasks[0])
    assert [strip.name for strip in found] == ["mix, step 5", "mix, step 10"]
    views = {view.title: view for view in found[0].views}
    assert list(views) == ["pasted", "onto", "mask", "mixed", "taught"]
    for title, name in (("pasted", "pasted"), ("onto", "below"), ("mixed", "mixed")):
        assert abs(int(decoded(views[title].photo)[0, 0, 0]) - PHOTOS[name]) <= 2
    alpha = decoded(views["mask"].overlay, "RGBA")[..., 3]
    assert (alpha[0] > 0).tolist() == [True, False] + [True] * 6, "dark where nothing is pasted"
    assert (decoded(views["taught"].overlay, "RGBA")[..., 3] > 0).all()
    write_report(settings, tmp_path / "summary.csv", tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert "Examples" in page and "mix (oracle)" in page and "share above threshold" in page


def test_what_an_earlier_config_left_is_not_told_of(tmp_path):
    """Rounds that are online now, truth that is known no more, an algorithm that shows nothing."""
    settings = write_results(tmp_path)
    places = [Path(one.folder) for one in settings.rounds]
    example = {"seen": torch.full((3, 6, 8), 70, dtype=torch.uint8)}
    examples.write(places[-1] / "examples.h5", {5: example}, CLASSES)
    assert (places[-1] / "pseudo_label_scores.csv").is_file() and (places[-1] / "pseudo_labels.h5").is_file()
    for change in ({"offline": False, "scored": False}, {"scored": False}):
        rounds = tuple(one.model_copy(update=change) for one in settings.rounds)
        told = settings.model_copy(update={"rounds": rounds})
        summary = summarize(told)
        assert summary.pseudo_label_accuracy.isna().all()
        assert summary.labeled_share.isna().all() == (not change.get("offline", True))
        write_summary(told, tmp_path / "summary.csv")
        results = read_results(told, tmp_path / "summary.csv")
        assert results.scores.empty and results.pseudo_labels.empty == (not change.get("offline", True))
        assert results.selections.empty == results.alarms.empty == results.pseudo_labels.empty
        assert not strips(results, told.tasks[0])


def test_the_mean_of_the_class_table_is_that_of_the_summary(tmp_path):
    """Also where a class is in no image, and only the later model predicts it."""
    settings = write_results(tmp_path)
    for one in settings.rounds:
        path = Path(one.folder, "metrics.csv")
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        of_class = (table.metric == "iou") & (table["class"] == CLASSES[0])
        table.loc[of_class, "value"] = 0.0 if one.round else np.nan
        table.to_csv(path, index=False)
    write_summary(settings, tmp_path / "summary.csv")
    results = read_results(settings, tmp_path / "summary.csv")
    table = class_table(results, settings.tasks[0], "val")
    position = table.columns.index("mean")
    for (name, number), cells in table.rows:
        if number != "0":
            of = results.summary[(results.summary.experiment == name) & (results.summary["round"] == int(number))]
            assert cells[position].text == f"{100 * of.miou.item():.1f}"
            assert cells[position].notes[0].replace("−", "-") == f"{100 * of.gain.item():+.1f}"


@pytest.mark.parametrize("kept", ["pictures", "nothing"])
def test_examples_of_another_algorithm_are_shown_by_their_names(tmp_path, kept):
    start, place = tmp_path / "pretrained/base/seed-0", tmp_path / "own/seed-0/round-1"
    place.mkdir(parents=True)
    settings = write_results(tmp_path)
    write_metrics(place, 0.6)
    write_training(place, pseudo=False)
    label = torch.tensor([[0, 1, 2, 255, 2, 0, 0, 0]] * 6, dtype=torch.uint8)
    example = {"guess": label, "seen": torch.full((3, 6, 8), 70, dtype=torch.uint8)} if kept == "pictures" else {}
    examples.write(place / "examples.h5", {5: example}, CLASSES)
    rounds = (round_report("own", 0, 0, start), round_report("own", 0, 1, place, showing=True))
    settings = settings.model_copy(update={"rounds": settings.rounds + rounds})
    write_summary(settings, tmp_path / "summary.csv")
    found = strips(read_results(settings, tmp_path / "summary.csv"), settings.tasks[0])
    assert [strip.name for strip in found] == (["own, step 5"] if kept == "pictures" else [])
    for strip in found:
        views = {view.title: view for view in strip.views}
        assert set(views) == {"guess", "seen"} and strip.ratio == "8 / 6"
        assert all(abs(int(decoded(view.photo)[0, 0, 0]) - 70) <= 2 for view in strip.views)
        assert views["guess"].overlay and not views["seen"].overlay


PHOTOS = {"pasted": 10, "below": 90, "mixed": 200}


def decoded(uri: str, mode: str = "RGB") -> np.ndarray:
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(picture.convert(mode))


def test_steps_are_counted_through_the_rounds(tmp_path):
    settings = write_results(tmp_path)
    write_summary(settings, tmp_path / "summary.csv")
    results = read_results(settings, tmp_path / "summary.csv")
    assert results.curves[results.curves.experiment == "st"]["at"].tolist() == list(range(1, 10))


def test_the_same_results_give_the_same_page(tmp_path):
    settings = write_results(tmp_path)
    write_summary(settings, tmp_path / "summary.csv")
    for name in ("1.html", "2.html"):
        write_report(settings, tmp_path / "summary.csv", tmp_path / name)
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_an_overlay_shows_classes_and_darkens_what_is_ignored():
    colors = [10, 20, 30, 40, 50, 60] + [0] * 762
    data = overlay(np.array([[0, 1, 255]], np.uint8), colors).removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        pixels = np.asarray(picture.convert("RGBA"))[0]
    assert pixels[:, :3].tolist() == [[10, 20, 30], [40, 50, 60], [0, 0, 0]]
    assert (pixels[:, 3] > 100).all() and (pixels[:, 3] < 255).all()
    many = overlay(np.array([[253, 254, 255]], np.uint8), [7] * 768)
    assert (decoded(many, "RGBA")[..., 3] > 100).all(), "254 is a class like any other"


def test_the_terminal_shows_rounds_as_columns(tmp_path, capsys):
    settings = write_results(tmp_path)
    write_summary(settings, tmp_path / "summary.csv")
    print_summary(tmp_path / "summary.csv", Console(file=(plain := io.StringIO())))
    lines = plain.getvalue().splitlines()
    assert re.split(r"  +", lines[0].strip()) == [
        *("task", "experiment", "split", "round 0", "round 1", "round 2"),
        *("gain", "acc.", "labeled", "right"),
    ]
    assert lines[1].split() == ["tiny", "st", "val", "40.0", "50.0", "45.0", "+5.0", "55.0", "50.0", "75.0"]
    assert lines[2].split() == ["tiny", "NA", "val", "40.0", "52.0", DASH, "+12.0", "62.0", "50.0", "75.0"]
    assert "\x1b" not in plain.getvalue() and max(map(len, lines)) < 120


def test_names_are_whole_in_a_pipe(tmp_path, capsys):
    settings = write_results(tmp_path)
    long = "a-name-that-is-longer-than-a-column-of-eighty-characters-would-leave-to-it"
    rounds = [one.model_copy(update={"experiment": long}) for one in settings.rounds[:3]]
    write_summary(settings.model_copy(update={"rounds": rounds}), tmp_path / "summary.csv")
    print_summary(tmp_path / "summary.csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[1] == long and len(lines) == 2


def test_another_table_is_no_summary(tmp_path):
    (tmp_path / "summary.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has columns"):
        print_summary(tmp_path / "summary.csv")
    with pytest.raises(UserError, match="no such file"):
        print_summary(tmp_path / "absent.csv")


def test_the_page_needs_no_torch():
    code = "import sys, selftrain.report.page, selftrain.report.terminal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_template_is_part_of_the_code():
    beside = ["page.css", "page.html", "page.js"]
    assert sorted(_companions("selftrain.report.page")) == beside
    sources = Sources()
    assert sources.digest("selftrain.report.page") != sources.digest("selftrain.report.summary")
