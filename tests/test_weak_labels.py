"""Pseudo weak-labels (MLSL section 3.3): which classes an image shows, from pseudo-labels to scores and tables."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from selftrain import artifacts
from selftrain.data.tables import read_images, write_images, write_statistics
from selftrain.evaluate.pseudo_labels import score
from selftrain.inspection.artifact import inspect
from selftrain.label.merge import merge
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.label.stage import label
from selftrain.label.weak_labels import weak_labels
from selftrain.predict.writer import PredictionWriter
from selftrain.select.cut import read_cut
from selftrain.select.stage import select
from selftrain.settings.data import ListSettings, ReadSettings
from selftrain.settings.prediction import ScoreSettings
from selftrain.settings.selection import LabelSettings, SelectSettings
from selftrain.train.algorithms.weak_labels import weak_labels_in_view
from selftrain.train.losses import image_classification

CLASSES = ("sky", "road", "NA", "bus")
READ = ReadSettings(classes=CLASSES, ignore_index=255)
MEAN_SIZE = (0.5, 0.5, 0.0, 1 / 3)
KEPT, DROPPED = 12_000, 4000
"""Bins of confidence above and below a probability of one half."""
HALF = {"policy": {"name": "st", "threshold": 0.5}}
"""Keeps what is predicted with more than a half."""
WEAK_SCORES = ["weak_precision", "weak_recall"]


def ids(text):
    """Rows of letters as class indices: `s` is sky, `.` is ignored."""
    return np.array([["srNb".find(letter) % 256 for letter in row] for row in text.split()], np.uint8)


def write_shard(path, items):
    """Predictions of images (name, classes, bins)."""
    canvas = tuple(int(side) for side in np.array([(12, 12), *(item[1].shape for item in items)]).max(0))
    about = {"names": [item[0] for item in items], "shapes": [item[1].shape for item in items], "canvas": canvas}
    with PredictionWriter(path, **about, classes=CLASSES, attributes={"model": "0f"}) as writer:
        for position, (_, classes, bins) in enumerate(items):
            writer.write(position, classes, bins)
    return path


def labeled(folder, items, eta, shards=1, mean_size=MEAN_SIZE, selecting=HALF):
    """Predictions to pseudo_labels.h5, in `shards` parts."""
    folder.mkdir(exist_ok=True)
    parts = np.array_split(np.arange(len(items)), shards)
    predictions = [write_shard(folder / f"p{i}.h5", [items[j] for j in part]) for i, part in enumerate(parts)]
    labels = [folder / f"l{i}.h5" for i in range(shards)]
    told = SelectSettings(classes=CLASSES, **selecting)
    how = LabelSettings(seed=0, round=1, select=told, eta=eta)
    table = pd.DataFrame({"class": CLASSES, "share": 0.25, "images": 1, "mean_size": mean_size})
    artifacts.write_csv(folder / "classes.csv", table)
    cut, output = folder / "cut.csv", folder / "pseudo_labels.h5"
    select(told, predictions, folder / "classes.csv", cut)
    for prediction, shard in zip(predictions, labels, strict=True):
        label(how, prediction, cut, shard)
    merge(how, labels, predictions, cut, output, folder / "pseudo_labels.csv")
    return output


def random_items(count, seed=0):
    """Images of several sizes, each of some of the classes; a third of the pixels is dropped."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        shape = 12 - number % 4, 12 - number % 3
        share = draw.dirichlet([0.25] * 5)
        classes = draw.choice(np.array([0, 1, 2, 3, 255], np.uint8), shape, p=share)
        yield f"image_{number}", classes, draw.choice(np.array([KEPT, KEPT, DROPPED], np.uint16), shape)


def write_truth(folder, items):
    """Label files of images (name, ids) and their images.csv."""
    folder.mkdir(exist_ok=True)
    rows = []
    for name, truth in items:
        Image.fromarray(truth).save(folder / f"{name}.png")
        rows.append([name, "", folder / f"{name}.png", *truth.shape, "", ""])
    columns = ["image", "image_file", "label_file", "height", "width", "image_digest", "label_digest"]
    artifacts.write_csv(folder / "images.csv", pd.DataFrame(rows, columns=columns))
    return folder / "images.csv"


# What an image shows (section 3.3.1)


def test_an_image_shows_a_class_that_takes_more_than_eta_of_its_mean_size():
    mean_size, areas = np.array([0.4, 0.1, 0.0]), np.array([1000, 500, 90])
    # eta * m * area: 0.05 * 0.4 * 1000 = 20, 0.05 * 0.1 * 1000 = 5, 0; then 10, 2.5, 0; then 1.8, 0.45, 0
    counts = np.array([[20, 6, 0], [11, 2, 1], [1, 1, 0]])
    expected = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    found = weak_labels(counts, areas, mean_size, 0.05)
    assert found.tolist() == expected and found.dtype == np.uint8


@settings(deadline=None)
@given(st.data())
def test_weak_labels_are_those_of_a_loop(data):
    """Sizes and eta are eighths, so that the boundary is exact and often met."""
    images, classes = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 4))
    counts = data.draw(arrays.arrays(np.int64, (images, classes), elements=st.integers(0, 6)))
    areas = data.draw(arrays.arrays(np.int64, images, elements=st.integers(1, 64)))
    sizes = data.draw(arrays.arrays(np.int64, classes, elements=st.integers(0, 8)))
    eta = data.draw(st.integers(0, 12))
    found = weak_labels(counts, areas, sizes / 8, eta / 8)
    assert found.shape == (images, classes)
    for image in range(images):
        for index in range(classes):
            least_by_64 = eta * int(sizes[index]) * int(areas[image])
            assert found[image, index] == (64 * int(counts[image, index]) > least_by_64)


# From the statistics into pseudo_labels.h5


@pytest.mark.parametrize("eta", [0, 0.3])
def test_weak_labels_are_of_what_was_labeled_and_stand_in_the_file_and_the_table(tmp_path, eta):
    items = list(random_items(9))
    path = labeled(tmp_path, items, eta)
    labels = PseudoLabels(path)
    expected = np.zeros((9, 4), int)
    for position, (name, classes, bins) in enumerate(items):
        for index, size in enumerate(MEAN_SIZE):
            pixels = ((classes == index) & (bins == KEPT)).sum()
            assert pixels == (labels.label(name) == index).sum()
            expected[position, index] = pixels > eta * size * classes.size
    assert labels.weak_labels.dtype == np.uint8 and labels.weak_labels.tolist() == expected.tolist()
    assert 0 < expected.sum() < (labels.counts > 0).sum() or eta == 0
    with h5py.File(path) as file:
        assert (file["weak_labels"].dtype, file["weak_labels"].shape) == (np.uint8, (9, 4))
    table = pd.read_csv(tmp_path / "pseudo_labels.csv", keep_default_na=False)
    assert table["class"].to_list() == list(CLASSES)
    assert table.weak_images.to_list() == labels.classes.weak_images.to_list() == expected.sum(0).tolist()
    shown = [", ".join(name for name, one in zip(CLASSES, row, strict=True) if one) for row in expected]
    assert labels.images.weak_labels.to_list() == shown


def test_without_eta_there_are_no_weak_labels(tmp_path):
    path = labeled(tmp_path, list(random_items(3)), eta=None)
    labels = PseudoLabels(path)
    assert labels.weak_labels is None and "weak_labels" not in labels.images
    with h5py.File(path) as file:
        assert "weak_labels" not in file
    table = pd.read_csv(tmp_path / "pseudo_labels.csv", dtype=str, keep_default_na=False)
    assert table.weak_images.to_list() == [""] * 4
    assert (table.images.astype(int) == (labels.counts > 0).sum(0)).all()


def test_one_and_three_shards_give_the_same_weak_labels_and_bytes(tmp_path):
    items = list(random_items(7))
    for name in ("one", "three"):
        labeled(tmp_path / name, items, eta=0.3, shards={"one": 1, "three": 3}[name])
    for file in ("pseudo_labels.h5", "pseudo_labels.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "three" / file).read_bytes()


def test_the_mean_size_travels_without_losing_a_bit(tmp_path):
    sizes = [np.nextafter(0.1, 1), 0.1 + 0.2, 1e-7 / 3, 0.0]
    path = labeled(tmp_path, list(random_items(2)), eta=0.05, mean_size=sizes)
    assert read_cut(tmp_path / "cut.csv").mean_size.to_list() == sizes
    assert PseudoLabels(path).cut.mean_size.to_list() == sizes


def test_the_statistics_of_a_labeled_split_decide_what_is_shown(tmp_path):
    """Mean sizes by hand: sky (4/8 + 3/8) / 2 = 7/16, road 4/8, NA 1/8, bus none; ignored pixels count as area."""
    write_truth(tmp_path / "labels", [("a", ids("ssss rrrr")), ("b", ids("sssN ...."))])
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (4, 2)).save(tmp_path / "images" / f"{name}.png")
    listed = {"root": str(tmp_path), "data_root": str(tmp_path), "list": None, "labeled": True}
    images = tmp_path / "images.csv"
    write_images(ListSettings(**listed, images=("images/*",), labels=("labels/*.png",)), images)
    write_statistics(READ, images, tmp_path / "classes.csv", tmp_path / "statistics.h5")
    sizes = pd.read_csv(tmp_path / "classes.csv").mean_size.to_list()
    assert sizes == [7 / 16, 1 / 2, 1 / 8, 0]
    # Half of it, of 8 pixels: 1.75, 2, 0.5, 0
    predicted = [("x", ids("ssrr NNbb")), ("y", ids("srrr ...."))]
    items = [(name, classes, np.full((2, 4), KEPT, np.uint16)) for name, classes in predicted]
    path = labeled(tmp_path / "round", items, eta=0.5, mean_size=sizes)
    assert PseudoLabels(path).weak_labels.tolist() == [[1, 0, 1, 1], [0, 1, 0, 0]]


# What a crop shows


@settings(deadline=None)
@given(st.data())
def test_weak_labels_in_view_are_those_of_a_loop_over_the_crop(data):
    """Crops of larger labels; shares are eighths, so that the boundary is exact and often met."""
    whole = data.draw(arrays.arrays(np.uint8, (2, 6, 7), elements=st.sampled_from([0, 1, 2, 3, 255])))
    height, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    top, left = data.draw(st.integers(0, 6 - height)), data.draw(st.integers(0, 7 - width))
    eighths = data.draw(st.lists(st.integers(0, 8), min_size=4, max_size=4))
    crops = whole[:, top : top + height, left : left + width].copy()
    in_view, known = weak_labels_in_view(torch.from_numpy(crops), torch.tensor(eighths) / 8)
    assert in_view.shape == (2, 4) and in_view.dtype == torch.float32
    assert known.shape == (2,) and known.dtype == torch.bool
    for image, crop in enumerate(crops):
        pixels = [id_ for row in crop for id_ in row]
        assert known[image] == any(id_ != 255 for id_ in pixels)
        for index in range(4):
            assert in_view[image, index] == (8 * pixels.count(index) > eighths[index] * height * width)


def test_a_class_out_of_the_crop_is_not_in_view():
    image = ids("sssr sssr sssb NNss")
    crop = torch.from_numpy(image[:3, :3].copy())[None]
    in_view, known = weak_labels_in_view(crop, torch.zeros(4))
    assert in_view.tolist() == [[1, 0, 0, 0]] and known.tolist() == [True]


def test_a_crop_with_a_label_below_what_is_shown_is_known_and_an_ignored_one_is_not():
    crops = torch.from_numpy(np.stack([ids("s... ...."), ids(".... ....")]))
    in_view, known = weak_labels_in_view(crops, torch.full((4,), 0.125))
    assert in_view.eq(0).all() and known.tolist() == [True, False]


# The loss (equation 5)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_classification_loss_is_equation_five_over_the_known_images(data):
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    logits = data.draw(arrays.arrays(np.float32, shape, elements=st.floats(-40, 40, width=32)))
    shown = data.draw(arrays.arrays(np.float32, shape, elements=st.sampled_from([0, 1])))
    known = data.draw(arrays.arrays(bool, shape[0]))
    assume(known.any())
    losses = []
    for image in np.flatnonzero(known):
        total = 0.0
        for z, c in zip(logits[image].astype(np.float64), shown[image], strict=True):
            yes, no = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
            total += c * np.log(yes) + (1 - c) * np.log(no)
        losses.append(-total / shape[1])
    found = image_classification(torch.from_numpy(logits), torch.from_numpy(shown), torch.from_numpy(known))
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-5, abs=1e-5)


def test_unknown_images_carry_no_loss_and_no_gradient():
    torch.manual_seed(0)
    known, shown = torch.tensor([True, False, True]), torch.randint(0, 2, (3, 4)).float()
    logits = torch.randn(3, 4, requires_grad=True)
    image_classification(logits, shown, known).backward()
    # d/dz of equation 5 is (sigmoid(z) - c) / C, here over two known images.
    expected = (1 / (1 + np.exp(-logits.detach().double().numpy())) - shown.numpy()) / 4 / 2
    expected[1] = 0
    np.testing.assert_allclose(logits.grad, expected, atol=1e-6)
    other = logits.detach().clone()
    other[1] = 30
    assert image_classification(other, shown, known).equal(image_classification(logits.detach(), shown, known))


def test_nothing_known_is_a_loss_of_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = image_classification(logits, torch.ones(2, 3), torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and logits.grad.eq(0).all()


# Scores against hidden truth, and tables


@pytest.fixture
def by_hand(tmp_path):
    """Four images of eight pixels: at eta 1/2 sky and road are shown from three on, NA and bus from one and two on."""
    predicted = {"a": "ssss srrr", "b": "ssss ssrr", "c": "ssss sssN", "d": ".... ...."}
    truth = {"a": "ssss rrrr", "b": "rrrr ssss", "c": "rrrr rrrr", "d": "sss. ...b"}
    high = np.full((2, 4), KEPT, np.uint16)
    items = [(name, ids(text), high) for name, text in predicted.items()]
    table = write_truth(tmp_path / "truth", [(name, ids(text)) for name, text in truth.items()])

    def scored(eta):
        path = labeled(tmp_path / "round", items, eta)
        score(ScoreSettings(truth=READ), path, table, path.with_name("pseudo_label_scores.csv"))
        return path

    return scored


def read_scores(path):
    """Text as it stands in the file."""
    return pd.read_csv(path.with_name("pseudo_label_scores.csv"), dtype=str, keep_default_na=False)


def test_weak_labels_are_scored_as_worked_by_hand(by_hand):
    """Shown by the weak labels: a sky and road, b sky, c sky and NA, d nothing.

    By the truth: a sky and road, b road and sky, c road, d sky and bus. So over all 3 of 5 are right, of 7 to find.
    """
    path = by_hand(0.5)
    assert PseudoLabels(path).weak_labels.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    table = read_scores(path)
    assert table.columns.to_list() == ["class", "pixels", "correct", "accuracy", *WEAK_SCORES]
    assert table["class"].to_list() == ["", *CLASSES]
    precision, recall = ([float(value or "nan") for value in table[column]] for column in WEAK_SCORES)
    assert precision == pytest.approx([3 / 5, 2 / 3, 1, 0, np.nan], nan_ok=True)
    assert recall == pytest.approx([3 / 7, 2 / 3, 1 / 3, np.nan, 0], nan_ok=True)
    assert table.weak_precision[4] == table.weak_recall[3] == ""


@pytest.mark.parametrize("seed", range(3))
def test_weak_scores_are_those_of_a_loop(tmp_path, seed):
    items, truth = list(random_items(8, seed)), list(random_items(8, seed + 100))
    path = labeled(tmp_path, items, eta=0.3)
    table = write_truth(tmp_path / "truth", [(name, classes) for name, classes, _ in truth])
    assert read_images(table).image.to_list() == PseudoLabels(path).names
    score(ScoreSettings(truth=READ), path, table, tmp_path / "pseudo_label_scores.csv")
    rows = read_scores(path).to_dict("records")
    claimed, there, right = np.zeros(4, int), np.zeros(4, int), np.zeros(4, int)
    for (_, classes, _), weak in zip(truth, PseudoLabels(path).weak_labels, strict=True):
        for index in range(4):
            claimed[index] += weak[index]
            there[index] += (classes == index).any()
            right[index] += weak[index] and (classes == index).any()
    for column, total in (("weak_precision", claimed), ("weak_recall", there)):
        pairs = [(right.sum(), total.sum()), *zip(right, total, strict=True)]
        assert total.sum() > 0
        for row, (hits, of) in zip(rows, pairs, strict=True):
            assert row[column] == "" if of == 0 else float(row[column]) == pytest.approx(hits / of)


def test_without_weak_labels_their_scores_are_empty(by_hand):
    table = read_scores(by_hand(None))
    assert (table[WEAK_SCORES] == "").all(axis=None) and (table.accuracy[:4] != "").all()


def test_inspect_shows_weak_labels_and_their_scores_beside_them(by_hand):
    path = by_hand(0.5)
    table = inspect(path)
    assert table["class"].to_list() == list(CLASSES)
    assert table.weak_images.to_list() == [3, 1, 1, 0]
    last = ["weak_images", "accuracy", *WEAK_SCORES]
    assert table.columns.to_list()[-4:] == last
    scores = read_scores(path)[1:]
    for column in ("accuracy", *WEAK_SCORES):
        expected = [float(value or "nan") for value in scores[column]]
        assert table[column].to_list() == pytest.approx(expected, nan_ok=True)
    # Of the labeled pixels: sky 4 of 5 in a, 2 of 6 in b and none of 7 in c.
    assert table.accuracy[0] == pytest.approx(6 / 18)
    path.with_name("pseudo_label_scores.csv").unlink()
    assert inspect(path).columns.to_list() == [name for name in table if name not in ("accuracy", *WEAK_SCORES)]


def test_inspect_shows_nothing_of_weak_labels_where_there_are_none(by_hand):
    path = by_hand(None)
    table = inspect(path)
    assert not {"weak_images", *WEAK_SCORES} & set(table)
    assert table.columns.to_list()[-1] == "accuracy" and np.isnan(table.accuracy[3])
    assert "weak_labels" not in inspect(path, images=True)


@pytest.mark.parametrize("eta", [None, 0.5])
def test_inspect_keeps_the_column_of_thresholds_where_nothing_was_selected(tmp_path, eta):
    path = labeled(tmp_path, list(random_items(2)), eta, selecting={"policy": "da", "portion": 0})
    table = inspect(path)
    assert table.pixels.to_list() == [0] * 4 and ("weak_images" in table) == (eta is not None)
    assert "threshold_probability" in table and table.threshold_probability.isna().all()


def test_inspect_names_the_classes_that_an_image_shows(by_hand):
    table = inspect(by_hand(0.5), images=True)
    assert table.weak_labels.to_list() == ["sky, road", "sky", "sky, NA", ""]
    assert table.columns.to_list() == [
        "image",
        "height",
        "width",
        "labeled",
        "labeled_share",
        "mean_confidence",
        "weak_labels",
        *CLASSES,
    ]


@pytest.mark.parametrize("eta", [None, 0.5])
def test_inspect_reads_the_table_with_and_without_weak_labels(by_hand, eta):
    path = by_hand(eta)
    table = inspect(path.with_suffix(".csv"))
    assert table["class"].to_list() == list(CLASSES)
    expected = [np.nan] * 4 if eta is None else [3, 1, 1, 0]
    assert table.weak_images.to_list() == pytest.approx(expected, nan_ok=True)
