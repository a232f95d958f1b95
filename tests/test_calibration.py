"""Calibrators, their fit and their file, and how reliability is measured."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain import registry
from selftrain.artifacts import digest_file
from selftrain.calibrate import CALIBRATION_COLUMNS, RELIABILITY_COLUMNS, fitting
from selftrain.calibrate.calibrator import read_calibrator
from selftrain.calibrate.histogram_binning import HistogramBinning
from selftrain.calibrate.logits import Seen, labeled_logits
from selftrain.calibrate.matrix import Matrix, best_matrix
from selftrain.calibrate.reliability import (
    BINS,
    Reliability,
    log_probabilities,
    measure,
)
from selftrain.calibrate.sample import Sample, drawn
from selftrain.calibrate.stage import calibrate
from selftrain.calibrate.temperature import LIMIT, Temperature, best_temperature
from selftrain.errors import UserError
from selftrain.inspection.artifact import inspect
from selftrain.models import files
from selftrain.report.calibration import calibration_table
from selftrain.report.tables import number as as_text
from selftrain.settings.calibration import (
    CalibrateSettings,
    HistogramBinningSettings,
    MatrixSettings,
    TemperatureSettings,
)
from selftrain.settings.prediction import EvaluatedSplit, ReliabilitySettings
from selftrain.settings.report import TaskReport
from selftrain.train.stage import train

SETTINGS = [TemperatureSettings(), MatrixSettings(), HistogramBinningSettings(bins=7)]
SIZES = [(32, 48), (20, 30), (32, 48), (32, 48), (48, 32)]
WEIGHTS = np.array([[0.5, 0.1, 0.0, -0.2], [0.0, 1.2, 0.3, 0.0], [-0.1, 0.0, 0.8, 0.0], [0.0, -0.3, 0.0, 0.6]])
BIAS = np.array([0.5, -0.4, 0.0, -0.1])


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def drawn_from(logits, weights, bias, seed=0):
    """A class for each row of logits (N, C), as likely as softmax(W z + b) says."""
    cumulated = softmax(logits @ np.asarray(weights).T + bias).cumsum(1)
    return (np.random.default_rng(seed).random((len(logits), 1)) < cumulated).argmax(1)


def pixels(count=60_000, weights=WEIGHTS, bias=BIAS, seed=0):
    """Logits (N, 4) and their true classes."""
    logits = np.random.default_rng(seed).normal(0, 3, (count, 4))
    return logits, drawn_from(logits, weights, bias, seed + 1)


def images(count=6, size=(50, 80), seed=0, **options):
    """The same as images, a tenth of them ignored."""
    for number in range(count):
        logits, labels = pixels(size[0] * size[1], seed=seed + 10 * number, **options)
        ignored = np.random.default_rng(number).random(len(labels)) < 0.1
        label = np.where(ignored, 255, labels).astype(np.uint8).reshape(size)
        yield Seen(str(number), torch.from_numpy(logits.T.astype(np.float32)).reshape(4, *size), label)


def fitted(told, seen, seed=0, classes=4):
    return registry.load(registry.CALIBRATORS, told.name).fitted(told, seen, classes, seed)


# Fits


@pytest.mark.parametrize("temperature", [0.3, 1.27, 4.0])
def test_a_known_temperature_is_found(temperature):
    logits, labels = pixels(weights=np.eye(4) / temperature, bias=0)
    found = best_temperature(Sample(torch.from_numpy(logits), torch.from_numpy(labels)))
    assert found == pytest.approx(temperature, rel=0.03)


def test_no_temperature_near_the_one_found_is_better():
    logits, labels = pixels()
    found = best_temperature(Sample(torch.from_numpy(logits), torch.from_numpy(labels)))
    losses = [
        -np.log(softmax(logits / t)[np.arange(len(labels)), labels]).mean() for t in found * np.array([1, 0.99, 1.01])
    ]
    assert losses[0] < losses[1] and losses[0] < losses[2]


def test_a_known_matrix_is_found():
    """As far as it can be: what is added to all classes alike changes no probability."""
    logits, labels = pixels()
    weights, bias = best_matrix(Sample(torch.from_numpy(logits), torch.from_numpy(labels)), 0.0)
    np.testing.assert_allclose(weights - weights.mean(0), WEIGHTS - WEIGHTS.mean(0), atol=0.05)
    np.testing.assert_allclose(bias - bias.mean(), BIAS - BIAS.mean(), atol=0.05)


def test_regularization_pulls_all_but_the_diagonal_to_zero():
    logits, labels = pixels(4000)
    sample = Sample(torch.from_numpy(logits), torch.from_numpy(labels))
    strengths = []
    for regularization in (0.01, 1.0, 1e4):
        weights, bias = best_matrix(sample, regularization)
        strengths.append(float((weights - weights.diag().diag()).square().sum() + bias.square().sum()))
    assert strengths[0] > 1.5 * strengths[1] > 0 and strengths[2] < 1e-4
    assert weights.diag().min() > 0.2


def test_shares_are_those_of_slow_counting():
    """A pixel of the bin's middle counts beside the others, so an empty bin keeps its middle."""
    bins, seen = 7, list(images(3, (9, 11)))
    binning, used = fitted(HistogramBinningSettings(bins=bins), seen)
    pixel = np.zeros((4, bins))
    hits = (np.arange(bins) + 0.5) / bins * np.ones((4, 1))
    for image in seen:
        for row, column in np.argwhere(image.label != 255):
            for index, p in enumerate(image.logits[:, row, column].softmax(0).tolist()):
                at = min(int(np.float32(p) * np.float32(bins)), bins - 1)
                pixel[index, at] += 1
                hits[index, at] += image.label[row, column] == index
    np.testing.assert_allclose(binning.shares, hits / (pixel + 1), rtol=1e-12)
    assert used == sum((image.label != 255).sum() for image in seen) == pixel[0].sum()


def test_binning_replaces_probabilities_by_shares():
    shares = [[0.1, 0.3, 0.6], [0.2, 0.5, 0.9]]
    probabilities = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.34, 0.66], [0.99, 0.01]]).T[None, :, :, None]
    found = HistogramBinning(shares).probabilities(probabilities)[0, :, :, 0].T
    expected = np.array([[0.1, 0.9], [0.3, 0.5], [0.3, 0.5], [0.6, 0.2]])
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("told", SETTINGS, ids=lambda told: told.name)
def test_calibration_lowers_ece_and_loss_on_other_pixels(told):
    """Of a network that is three times as sure as it should be."""
    calibrator, _ = fitted(told, images(weights=np.eye(4) / 3, bias=0))
    before, after = Reliability(), Reliability()
    for seen in images(2, seed=500, weights=np.eye(4) / 3, bias=0):
        before.see(seen.logits.log_softmax(0), seen.label)
        after.see(log_probabilities(calibrator, seen.logits), seen.label)
    assert before.scores()["ece"] > 0.2 and after.scores()["ece"] < 0.03
    assert after.scores()["nll"] < before.scores()["nll"] - 0.2


def test_a_temperature_changes_no_class():
    logits = torch.from_numpy(pixels(200)[0].T.astype(np.float32))[None, :, :, None]
    assert torch.equal(Temperature(2.7).logits(logits).argmax(1), logits.argmax(1))


@pytest.mark.parametrize(("sign", "limit"), [(1, 1 / LIMIT), (-1, LIMIT)])
def test_a_temperature_that_runs_away_is_told(sign, limit, caplog):
    """No pixel is wrong, or all are."""
    logits, _ = pixels(500)
    with caplog.at_level(logging.WARNING):
        assert best_temperature(Sample(torch.from_numpy(sign * logits), torch.from_numpy(logits.argmax(1)))) == limit
    assert "the temperature runs away" in caplog.text


def test_a_fit_that_does_not_converge_is_told(caplog, monkeypatch):
    monkeypatch.setattr(fitting, "STEPS", 2)
    logits, labels = pixels(500)
    with caplog.at_level(logging.WARNING):
        best_matrix(Sample(torch.from_numpy(logits), torch.from_numpy(labels)), 0.01)
    assert "the fit of the matrix has not converged: its slope is still" in caplog.text


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="the matrix could not be fitted: its loss is nan"):
        best_matrix(Sample(torch.full((3, 4), torch.nan).double(), torch.zeros(3).long()), 0.01)


# The sample


def test_a_sample_is_drawn_evenly_from_valid_pixels_and_knows_no_order():
    seen = list(images(6, (30, 40)))
    some = drawn(seen, 4, 0, pixels=3000)
    again = drawn(seen[::-1], 4, 0, pixels=3000)
    assert torch.equal(some.logits, again.logits) and torch.equal(some.labels, again.labels)
    assert len(some.labels) == 3000 and some.logits.dtype == torch.float64 and some.labels.max() < 4
    assert not torch.equal(some.logits, drawn(seen, 4, 1, pixels=3000).logits)
    rows = {tuple(z): number for number, image in enumerate(seen) for z in image.logits.flatten(1).T.double().tolist()}
    of_each = np.bincount([rows[tuple(z)] for z in some.logits.tolist()], minlength=6)
    assert of_each.sum() == 3000 and of_each.min() > 400
    for z, label in zip(some.logits[:50].tolist(), some.labels[:50].tolist(), strict=True):
        image = seen[rows[tuple(z)]]
        at = (image.logits.flatten(1).T.double() == torch.tensor(z)).all(1).nonzero().item()
        assert image.label.ravel()[at] == label


def test_a_small_split_is_taken_whole():
    seen = list(images(2, (5, 6)))
    assert len(drawn(seen, 4, 0).labels) == sum((image.label != 255).sum() for image in seen)


@pytest.mark.parametrize("told", SETTINGS, ids=lambda told: told.name)
def test_nothing_labeled_is_refused(told):
    blank = [seen._replace(label=np.full_like(seen.label, 255)) for seen in images(2, (5, 6))]
    with pytest.raises(UserError, match="the calibration split has no labeled pixel"):
        fitted(told, blank)


# Reliability


def slow_ece(probabilities, labels):
    total, count = 0.0, 0
    for number in range(BINS):
        inside = [
            (max(p), float(np.argmax(p) == label))
            for p, label in zip(probabilities, labels, strict=True)
            if label != 255 and min(int(max(p) * BINS), BINS - 1) == number
        ]
        count += len(inside)
        total += abs(sum(right for _, right in inside) - sum(top for top, _ in inside))
    return total / count if count else np.nan


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.1, 8), st.integers(1, 5))
def test_ece_against_a_slow_definition(seed, count, scale, parts):
    draw = np.random.default_rng(seed)
    logs = torch.from_numpy(draw.normal(0, scale, (3, count, 2)).astype(np.float32)).log_softmax(0)
    label = draw.choice(np.array([0, 1, 2, 255], np.uint8), (count, 2))
    counted = Reliability()
    for part in np.array_split(np.arange(count), parts):
        counted.see(logs[:, part], label[part])
    probabilities = logs.double().exp().flatten(1).T.numpy()
    found, valid = counted.scores(), label.ravel() != 255
    assert found["ece"] == pytest.approx(slow_ece(probabilities, label.ravel()), rel=1e-6, abs=1e-9, nan_ok=True)
    assert found["pixels"] == valid.sum() == counted.table().pixels.sum()
    if valid.any():
        chosen, true = probabilities[valid], label.ravel()[valid]
        assert found["nll"] == pytest.approx(-np.log(chosen[np.arange(len(true)), true]).mean(), rel=1e-5)
        assert found["accuracy"] == pytest.approx((chosen.argmax(1) == true).mean())


def test_the_table_has_a_row_per_bin():
    counted = Reliability()
    counted.see(
        torch.tensor([[0.8, 0.9, 1.0, 0.8], [0.2, 0.1, 0.0, 0.2]])[..., None].log(), np.array([[0], [1], [0], [1]])
    )
    table = counted.table()
    assert len(table) == BINS and table.pixels.tolist() == [0] * 12 + [2, 1, 1]
    np.testing.assert_allclose(table.accuracy[12:], [0.5, 0, 1])
    np.testing.assert_allclose(table.confidence[12:], [0.8, 0.9, 1], rtol=1e-6)
    assert table.accuracy[:12].isna().all() and table.lower[0] == 0 and table.upper[14] == 1


# Stages


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A model that has learned a little, and images.csv of what it has not seen."""
    folder = tmp_path_factory.mktemp("calibration")
    labeled = tiny.split(folder / "labeled")
    (folder / "model").mkdir()
    train(tiny.stage(), tiny.outputs(folder / "model", labeled), tiny.NOW)
    return folder / "model" / "model.safetensors", tiny.split(folder / "held-out", SIZES, seed=7), folder


def run(data, output, told, batch_size=2, images=None, seed=0):
    asked = CalibrateSettings(calibration=told, seed=seed, batch_size=batch_size, read=tiny.READ)
    calibrate(asked, data[0], images or data[1], output)
    return json.loads(output.read_text())


@pytest.mark.parametrize("told", SETTINGS, ids=lambda told: told.name)
def test_the_file_says_what_was_fitted_to_what(data, tmp_path, told):
    said = run(data, tmp_path / "calibrator.json", told)
    assert said["name"] == told.name and said["settings"] == told.model_dump() and said["classes"] == list(tiny.CLASSES)
    assert said["model"] == digest_file(data[0])
    labels = [np.asarray(tiny.blocks(size, 7000 + number)) for number, size in enumerate(SIZES)]
    assert said["pixels"] == said["labeled_pixels"] == sum((label != 255).sum() for label in labels)
    found = read_calibrator(tmp_path / "calibrator.json", told, said["model"], tiny.CLASSES)
    network, _ = files.load(data[0])
    seen = labeled_logits(network, torch.device("cpu"), data[1], EvaluatedSplit(read=tiny.READ), 1)
    expected, _ = fitted(told, seen, classes=3)
    logits = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = (log_probabilities(one, logits[0]) for one in (found, expected))
    assert torch.allclose(ours, theirs, atol=1e-4) and not torch.allclose(ours, logits[0].log_softmax(0), atol=1e-2)


@pytest.mark.parametrize("told", SETTINGS, ids=lambda told: told.name)
def test_order_and_batches_change_nothing(data, tmp_path, told):
    one = run(data, tmp_path / "one.json", told)
    pd.read_csv(data[1], keep_default_na=False)[::-1].to_csv(tmp_path / "images.csv", index=False)
    other = run(data, tmp_path / "other.json", told, batch_size=3, images=tmp_path / "images.csv")
    again = run(data, tmp_path / "again.json", told)
    assert again == one and other["pixels"] == one["pixels"]
    for name, values in one["parameters"].items():
        np.testing.assert_allclose(np.array(other["parameters"][name]), np.array(values), rtol=1e-4, atol=1e-5)


def test_labels_are_compared_at_their_own_size_and_images_seen_at_the_splits(data):
    network, _ = files.load(data[0])
    split = EvaluatedSplit(read=tiny.READ.model_copy(update={"size": (16, 24)}))
    seen = list(labeled_logits(network, torch.device("cpu"), data[1], split, 2))
    assert [image.label.shape for image in seen] == SIZES
    assert [tuple(image.logits.shape[1:]) for image in seen] == SIZES


def test_reliability_is_told_of_every_split_before_and_after(data, tmp_path):
    told = TemperatureSettings()
    run(data, tmp_path / "calibrator.json", told)
    other = tiny.split(data[2] / "val", SIZES[:2], seed=9)
    asked = {"splits": {name: EvaluatedSplit(read=tiny.READ) for name in ("calibration", "val")}, "batch_size": 2}
    tables = tmp_path / "reliability.csv", tmp_path / "calibration.csv"
    where = {"calibration": data[1], "val": other}
    measure(ReliabilitySettings(calibration=told, **asked), data[0], tmp_path / "calibrator.json", where, *tables)
    reliability, calibration = (pd.read_csv(table) for table in tables)
    assert list(reliability) == RELIABILITY_COLUMNS and list(calibration) == CALIBRATION_COLUMNS
    for table, expected in zip(tables, (reliability, calibration), strict=True):
        pd.testing.assert_frame_equal(inspect(table), expected)
    assert len(reliability) == 2 * 2 * BINS and len(calibration) == 4
    before, after = (calibration[calibration.calibrated == when].set_index("split") for when in ("before", "after"))
    assert after.nll["calibration"] < before.nll["calibration"] and (after.accuracy == before.accuracy).all()
    for (split, _), rows in reliability.groupby(["split", "calibrated"]):
        assert rows.pixels.sum() == before.pixels[split]
    of_report = {"name": "t", "classes": tiny.CLASSES, "colors": None, "unlabeled": "", "truth": None}
    calibrators = [{"model": "pretrained/start/seed-0", "mode": "temperature", "file": str(tables[1])}]
    calibrators[0]["reliability"] = str(tables[0])
    task = TaskReport(**of_report, read_truth=None, evaluation=("val",), calibrations=calibrators)
    ((names, cells),) = calibration_table(task).rows
    assert names == ("pretrained/start/seed-0", "temperature")
    assert [cell.text for cell in cells] == [as_text(100 * ece) for ece in calibration.ece]
    assert [cell.notes for cell in cells] == [(as_text(nll, 3),) for nll in calibration.nll]
    with pytest.raises(UserError, match=r"made by .*'temperature'.*, not .*'matrix'"):
        asked = ReliabilitySettings(calibration=MatrixSettings(), **asked)
        measure(asked, data[0], tmp_path / "calibrator.json", where, *tables)


def test_a_class_that_is_not_shown_is_told(data, tmp_path, caplog):
    table = pd.read_csv(data[1], keep_default_na=False)[:1]
    label = tiny.blocks(SIZES[0], 7000)
    tiny.Image.fromarray(np.where(label == 2, 255, label).astype(np.uint8)).save(tmp_path / "label.png")
    table.assign(label_file=str(tmp_path / "label.png")).to_csv(tmp_path / "images.csv", index=False)
    with caplog.at_level(logging.WARNING):
        run(data, tmp_path / "calibrator.json", MatrixSettings(), images=tmp_path / "images.csv")
    assert "the calibration split shows no car" in caplog.text


def test_what_does_not_fit_is_refused(data, tmp_path):
    file, told = tmp_path / "calibrator.json", TemperatureSettings()
    model = run(data, file, told)["model"]
    for wanted, digest, classes, reason in [
        (MatrixSettings(), model, tiny.CLASSES, "made by"),
        (told, "0f", tiny.CLASSES, "was fitted to another model"),
        (told, model, ("a", "b", "c"), r"made for the classes \['sky', 'road', 'car'\], not \['a', 'b', 'c'\]"),
    ]:
        with pytest.raises(UserError, match=reason):
            read_calibrator(file, wanted, digest, classes)
    for content in ("{", "[]", '{"format": "other"}'):
        file.write_text(content)
        with pytest.raises(UserError, match=r"calibrator\.json: (broken inside|not a calibrator)"):
            read_calibrator(file, told, model, tiny.CLASSES)
    read = tiny.READ.model_copy(update={"classes": ("a", "b", "c")})
    with pytest.raises(UserError, match="made for the classes"):
        asked = CalibrateSettings(calibration=told, seed=0, batch_size=1, read=read)
        calibrate(asked, data[0], data[1], tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()


def test_logits_that_are_not_finite_are_told_by_name(data):
    class Broken(torch.nn.Module):
        def forward(self, images):
            return torch.full((len(images), 3, 4, 4), torch.inf)

    with pytest.raises(UserError, match=r"NaN or infinite logits for .*held-out-0"):
        list(labeled_logits(Broken(), torch.device("cpu"), data[1], EvaluatedSplit(read=tiny.READ), 1))


def test_a_matrix_keeps_its_rows(data):
    """W z + b, and not its transpose."""
    z = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    found = Matrix(WEIGHTS.tolist(), BIAS.tolist()).logits(z).movedim(1, 3)
    np.testing.assert_allclose(found, z.movedim(1, 3).numpy() @ WEIGHTS.T + BIAS, rtol=1e-4, atol=1e-5)
