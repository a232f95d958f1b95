import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional as F

from selftrain.data.augmentation import to_tensor
from selftrain.data.reading import read_image, read_label
from selftrain.errors import UserError
from selftrain.evaluate.pseudo_labels import score
from selftrain.evaluate.scores import confusion, iou, miou, pixel_accuracy
from selftrain.evaluate.stage import evaluate
from selftrain.settings.prediction import EvaluateStageSettings, InferenceSettings, ScoreSettings

IDS = st.sampled_from([0, 1, 2, 3, 255])
SIZES = [(32, 48), (32, 48), (20, 30), (48, 32)]


@st.composite
def pairs(draw):
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=7))
    return tuple(draw(arrays.arrays(np.uint8, shape, elements=IDS)) for _ in range(2))


def slow_confusion(truth, predicted, classes):
    matrix = np.zeros((classes, classes), int)
    for true, guess in zip(truth.flat, predicted.flat, strict=True):
        if true < classes and guess < classes:
            matrix[true, guess] += 1
    return matrix


@settings(deadline=None)
@given(pairs())
def test_scores_by_their_definitions(pair):
    truth, predicted = pair
    matrix = confusion(truth, predicted, 4)
    assert matrix.dtype == np.int64 and (matrix == slow_confusion(truth, predicted, 4)).all()
    both = (truth < 4) & (predicted < 4)
    true, guess, values = truth[both], predicted[both], iou(matrix)
    for index in range(4):
        union = ((true == index) | (guess == index)).sum()
        assert np.isnan(values[index]) == (union == 0)
        if union:
            assert values[index] == ((true == index) & (guess == index)).sum() / union
    if both.any():
        assert pixel_accuracy(matrix) == (true == guess).mean()
        assert miou(matrix) == pytest.approx(np.mean([value for value in values if value == value]))
    else:
        assert np.isnan(pixel_accuracy(matrix)) and np.isnan(miou(matrix))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return tiny.split(tmp_path_factory.mktemp("data") / "val", SIZES)


@pytest.fixture
def scored(tmp_path, split):
    """Evaluates a random model and returns it, confusion.csv and metrics.csv; sizes.csv is beside them."""
    labeled = pd.DataFrame({"class": tiny.CLASSES, "share": 0.1, "images": 1})
    # Sky is frequent and large, road and car are frequent and small.
    labeled.assign(image_share=0.6, mean_size=[0.2, 0.1, 0.05]).to_csv(tmp_path / "classes.csv", index=False)

    def run(size=None, evaluation=None, classes=tiny.CLASSES, score_size=None, subsets=None):
        network = tiny.save_model(tmp_path / "model.safetensors", classes=classes)
        read = tiny.READ.model_copy(update={"size": size})
        chosen = EvaluateStageSettings(
            evaluation=evaluation or InferenceSettings(),
            seed=0,
            batch_size=3,
            splits={name: {"read": read, "score_size": score_size} for name in ("val", "again")},
            subsets=subsets or {},
        )
        tables = tmp_path / "confusion.csv", tmp_path / "metrics.csv"
        images = {"val": split, "again": split}
        model = tmp_path / "model.safetensors"
        evaluate(chosen, model, images, tmp_path / "classes.csv", *tables, tmp_path / "sizes.csv")
        return network, *(pd.read_csv(table, keep_default_na=False, na_values={"value": ""}) for table in tables)

    return run


@pytest.mark.parametrize("size", [None, (24, 32)])
def test_scores_are_taken_at_the_labels_own_size(scored, split, size):
    network, table, _ = scored(size)
    matrix = np.zeros((3, 3), int)
    rows = pd.read_csv(split)
    for image, label in zip(rows.image_file, rows.label_file, strict=True):
        truth = read_label(label, tiny.READ)
        with torch.inference_mode():
            logits = network(to_tensor(read_image(image, size))[None])
            guess = F.interpolate(logits, truth.shape, mode="bilinear").argmax(1)[0].numpy()
        matrix += slow_confusion(truth, guess, 3)
    assert matrix.sum() == sum((read_label(label, tiny.READ) != 255).sum() for label in rows.label_file)
    for name in ("val", "again"):
        own = table[table.split == name]
        assert list(own.truth) == [true for true in tiny.CLASSES for _ in range(3)]
        assert list(own.prediction) == list(tiny.CLASSES) * 3
        assert (own.pixels.to_numpy().reshape(3, 3) == matrix).all()


def test_metrics_follow_from_the_confusion(scored):
    _, table, metrics = scored(evaluation=InferenceSettings(flip=True))
    matrix = table[table.split == "val"].pixels.to_numpy().reshape(3, 3)
    assert metrics.columns.to_list() == ["split", "metric", "class", "value", "pixels"]
    own = metrics[metrics.split == "val"]
    assert own.metric.to_list() == ["miou", "pixel_accuracy", "iou", "iou", "iou", "group_miou", "group_miou"]
    assert own["class"].to_list() == ["", "", *tiny.CLASSES, "frequent_large", "frequent_small"]
    of_class = iou(matrix)
    expected = [miou(matrix), pixel_accuracy(matrix), *of_class, of_class[0], np.nanmean(of_class[1:])]
    assert own.value.to_numpy() == pytest.approx(expected, nan_ok=True)
    pixels = matrix.sum(1)
    assert own.pixels.to_list() == [matrix.sum(), matrix.sum(), *pixels, pixels[0], pixels[1:].sum()]


def test_a_model_of_other_classes_is_refused(scored, tmp_path):
    with pytest.raises(UserError, match=r"made for the classes \['sky', 'car', 'road'\]"):
        scored(classes=("sky", "car", "road"))
    assert not (tmp_path / "metrics.csv").exists()


# Pseudo-labels against hidden truth


@pytest.mark.parametrize("working", [None, (16, 24)])
def test_pseudo_labels_are_scored_where_they_have_a_class_and_a_truth(tmp_path, split, working):
    rows = pd.read_csv(split)
    labels = [tiny.blocks(working or size, 50 + number, cell=5) for number, size in enumerate(SIZES)]
    labels = [np.where(label == 2, 255, label).astype(np.uint8) for label in labels]  # nothing is called car
    file = tiny.write_pseudo_labels(tmp_path / "pseudo_labels.h5", rows.image.to_list(), labels)
    score(ScoreSettings(truth=tiny.READ), file, split, tmp_path / "score.csv")
    pixels, correct = np.zeros(3, int), np.zeros(3, int)
    for label, truth_file in zip(labels, rows.label_file, strict=True):
        truth = read_label(truth_file, tiny.READ, label.shape)
        for true, guess in zip(truth.flat, label.flat, strict=True):
            if true != 255 and guess != 255:
                pixels[guess] += 1
                correct[guess] += true == guess
    empty = dict.fromkeys(("accuracy", "weak_precision", "weak_recall"), "")
    table = pd.read_csv(tmp_path / "score.csv", keep_default_na=False, na_values=empty)
    assert table.columns.to_list() == ["class", "pixels", "correct", *empty]
    assert table["class"].to_list() == ["", *tiny.CLASSES]
    assert table.pixels.to_list() == [pixels.sum(), *pixels] and pixels[2] == 0
    assert table.correct.to_list() == [correct.sum(), *correct]
    assert table.accuracy[:3].to_list() == pytest.approx(
        [correct.sum() / pixels.sum(), *(correct / pixels.clip(1))[:2]]
    )
    assert np.isnan(table.accuracy[3])
    assert table[["weak_precision", "weak_recall"]].isna().all(axis=None)


def test_pseudo_labels_of_other_images_are_not_scored(tmp_path, split):
    file = tiny.write_pseudo_labels(tmp_path / "pseudo_labels.h5", ["x"], [tiny.blocks(tiny.SIZE)])
    with pytest.raises(UserError, match="its images are not those of"):
        score(ScoreSettings(truth=tiny.READ), file, split, tmp_path / "score.csv")


@pytest.mark.parametrize("others", ["counted", "ignored"])
def test_the_mean_over_a_subset_counts_the_pixels_of_others_or_not(scored, others):
    chosen = ("sky", "car")
    _, table, metrics = scored(subsets={"13": {"classes": chosen, "others": others}})
    own = table[table.split == "val"]
    values = []
    for name in chosen:
        hits = own[(own.truth == name) & (own.prediction == name)].pixels.sum()
        either = own[(own.truth == name) | (own.prediction == name)]
        either = either if others == "counted" else either[either.truth.isin(chosen)]
        values.append(hits / either.pixels.sum())
    row = metrics[(metrics.split == "val") & (metrics.metric == "subset_miou")].squeeze()
    assert row["class"] == "13" and row.value == pytest.approx(np.mean(values))
    assert row.pixels == own[own.truth.isin(chosen)].pixels.sum()


def test_scores_may_be_taken_at_another_size(scored, split):
    network, table, _ = scored(score_size=(16, 24))
    matrix = np.zeros((3, 3), int)
    rows = pd.read_csv(split)
    for image, label in zip(rows.image_file, rows.label_file, strict=True):
        with torch.inference_mode():
            logits = network(to_tensor(read_image(image))[None])
            guess = F.interpolate(logits, (16, 24), mode="bilinear").argmax(1)[0].numpy()
        matrix += slow_confusion(read_label(label, tiny.READ, (16, 24)), guess, 3)
    assert (table[table.split == "val"].pixels.to_numpy().reshape(3, 3) == matrix).all()
