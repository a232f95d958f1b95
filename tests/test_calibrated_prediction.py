"""Predictions with a calibrator, against calibrating each view slowly, in float64."""

import json

import numpy as np
import pandas as pd
import pytest
import test_predict
import tiny
import torch
from exact import quantize
from test_spatial_prior import Own, interpolated
from torch.nn import functional as F

from selftrain.artifacts import digest_file
from selftrain.calibrate.calibrator import NONE, read_calibrator
from selftrain.calibrate.histogram_binning import HistogramBinning
from selftrain.calibrate.matrix import Matrix
from selftrain.calibrate.stage import calibrate
from selftrain.calibrate.temperature import Temperature
from selftrain.data.augmentation import to_tensor
from selftrain.data.reading import read_image
from selftrain.errors import UserError
from selftrain.label.choice import choose
from selftrain.models.segmenter import Outputs, averaged
from selftrain.predict.forward import Predictor, load_predictor
from selftrain.predict.stage import predict_shard
from selftrain.predict.store import Predictions
from selftrain.select.stage import select
from selftrain.settings.calibration import CalibrateSettings
from selftrain.settings.prediction import InferenceSettings, PatchSettings, PredictionSettings, PredictStageSettings
from selftrain.settings.selection import SelectSettings

DRAW = np.random.default_rng(0)
SHARES = DRAW.random((4, 15))
CALIBRATORS = [
    Temperature(1.7),
    Matrix((np.eye(4) + DRAW.normal(0, 0.5, (4, 4))).tolist(), DRAW.normal(0, 1, 4).tolist()),
    HistogramBinning(SHARES.tolist()),
]
NAMES = ["temperature", "matrix", "histogram_binning"]
calibrators = pytest.mark.parametrize("calibrator", CALIBRATORS, ids=NAMES)


def slow(calibrator, logits):
    """Calibrated probabilities of float64 logits (B, C, H, W), and whether rounding cannot have changed them much."""
    sure = np.ones((len(logits), *logits.shape[2:]), bool)
    if isinstance(calibrator, Temperature):
        return (logits / calibrator.temperature).softmax(1).numpy(), sure
    if isinstance(calibrator, Matrix):
        bias = torch.tensor(calibrator.bias).double()[:, None, None]
        return (torch.einsum("dc,bchw->bdhw", torch.tensor(calibrator.weights).double(), logits) + bias).softmax(
            1
        ).numpy(), sure
    p = logits.softmax(1).numpy()
    bins = len(calibrator.shares[0])
    shares = np.zeros_like(p)
    for at in np.ndindex(*p.shape):
        shares[at] = calibrator.shares[at[1]][min(int(p[at] * bins), bins - 1)]
    near_an_edge = np.abs(p * bins - np.rint(p * bins)) < 1e-4
    return shares / shares.sum(1, keepdims=True), ~near_an_edge.any(1)


def views(network, images, size, calibrator, scales=(1.0,), flips=(False,)):
    """The sum of the calibrated probabilities of all views, and where it is sure."""
    total, sure = 0.0, True
    for scale in scales:
        for flip in flips:
            shape = [max(1, round(side * scale)) for side in images.shape[-2:]]
            view = F.interpolate(images.double(), shape, mode="bilinear", align_corners=False, antialias=True)
            logits = network.double()(view.flip(3) if flip else view)
            logits = F.interpolate(logits.flip(3) if flip else logits, size, mode="bilinear", align_corners=False)
            probabilities, certain = slow(calibrator, logits.detach())
            total, sure = total + probabilities, certain & sure
    return total, sure


def assert_agrees(decided, sums, sure):
    """Whether classes and bins are those of probabilities on any scale, wherever rounding decides nothing."""
    top = np.sort(sums, 1)
    sure = sure & (top[:, -1] > top[:, -2] * (1 + 1e-4))
    bins = quantize(np.log(top[:, -1]) - np.log(top[:, :-1].sum(1))).astype(int)
    assert sure.mean() > 0.9
    assert (decided.classes.numpy() == sums.argmax(1))[sure].all()
    assert np.abs(decided.bins.numpy() - bins)[sure].max() <= 1


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(8, 4, 1)
    layers[2].weight.data *= 5
    return test_predict.Bytes(*layers)


def bytes_of(count, size):
    return torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@calibrators
@pytest.mark.parametrize("how", [{}, {"flip": True, "scales": (0.75, 1.0, 1.5)}], ids=["single", "views"])
@pytest.mark.parametrize("with_prior", [False, True])
def test_each_view_is_calibrated(network, calibrator, how, with_prior):
    images, size = bytes_of(2, (14, 18)), (17, 23)
    prior = torch.from_numpy(np.random.default_rng(3).gamma(2, 1, (4, 5, 9)).astype(np.float32)) if with_prior else None
    decided = Predictor(network, 4, InferenceSettings(**how), prior=prior, calibrator=calibrator)(
        images, "ab", size
    ).decided()
    flips = (False, True) if how else (False,)
    sums, sure = views(network, images / 255, size, calibrator, how.get("scales", (1.0,)), flips)
    assert_agrees(decided, sums * (1 if prior is None else interpolated(prior.double().numpy(), size)), sure)


@calibrators
@pytest.mark.parametrize("with_prior", [False, True])
def test_each_patch_is_calibrated(calibrator, with_prior):
    """The logits of a pixel are its color's, so every patch says the same."""

    class Colors(Own):
        def forward(self, views):
            return torch.cat([super().forward(views), 2 - super().forward(views)[:, :1]], 1)

    image, size = bytes_of(1, (17, 23)), (17, 23)
    prior = torch.from_numpy(np.random.default_rng(3).gamma(2, 1, (4, 5, 9)).astype(np.float32)) if with_prior else None
    how = InferenceSettings(patches=PatchSettings(size=(6, 9), count=11), flip=True)
    decided = Predictor(Colors(), 4, how, prior=prior, calibrator=calibrator)(image, ["a"], size).decided()
    sums, sure = slow(calibrator, Colors()(image.double()).double())
    assert_agrees(decided, sums * (1 if prior is None else interpolated(prior.double().numpy(), size)), sure)


def test_no_calibrator_changes_no_bit(network):
    images = bytes_of(2, (14, 18))
    plain, none = (Predictor(network, 4, InferenceSettings(), **more) for more in ({}, {"calibrator": NONE}))
    assert all(
        torch.equal(*pair)
        for pair in zip(
            plain(images, "ab", (14, 18)).decided()[:2], none(images, "ab", (14, 18)).decided()[:2], strict=True
        )
    )
    logits = torch.randn(1, 3, 2, 2)
    assert NONE.logits(logits) is logits and NONE.probabilities(logits) is logits


class Branched(torch.nn.Module):
    """Branches that differ by a factor."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images, apart=False):
        logits = self.network(images)
        outputs = Outputs((logits, 0.2 * logits), {})
        return outputs if apart else averaged(outputs.branches)


@calibrators
def test_branches_are_calibrated_as_the_network_is(network, calibrator):
    images, size = bytes_of(2, (14, 18)), (17, 23)
    told = {"classes": 4, "settings": InferenceSettings(), "calibrator": calibrator}
    alone, voted = (
        Predictor(Branched(network), branches=branches, **told)(images, "ab", size).decided() for branches in (1, 2)
    )
    assert torch.equal(alone.classes, voted.classes) and torch.equal(alone.bins, voted.bins)
    logits = F.interpolate(network.double()(images.double() / 255), size, mode="bilinear").detach()
    (one, sure), (other, certain) = (slow(calibrator, factor * logits) for factor in (1, 0.2))
    for sums in (one, other):
        top = np.sort(sums, 1)
        sure = sure & certain & (top[:, -1] > top[:, -2] * (1 + 1e-4))
    agree = 1 + (one.argmax(1) == other.argmax(1))
    assert (voted.agreement.numpy() == agree)[sure].all() and sure.mean() > 0.9


# Shards


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A model, images.csv of the unlabeled split, and a calibrator of each kind."""
    folder = tmp_path_factory.mktemp("calibrated")
    tiny.save_model(folder / "model.safetensors")
    held_out = tiny.split(folder / "held-out", seed=3)
    for name in NAMES:
        asked = CalibrateSettings(calibration=name, seed=0, batch_size=2, read=tiny.READ)
        calibrate(asked, folder / "model.safetensors", held_out, folder / f"{name}.json")
    return folder, tiny.split(folder / "unlabeled", [(32, 48), (20, 30), (32, 48)], label_files=False)


def asked(prediction, shard=0, shards=1):
    return PredictStageSettings(prediction=prediction, seed=0, batch_size=1, shard=shard, shards=shards, read=tiny.READ)


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_is_calibrated_and_names_the_calibrator(data, tmp_path, name):
    folder, images = data
    prediction, file = PredictionSettings(calibration=name), folder / f"{name}.json"
    predict_shard(asked(prediction), folder / "model.safetensors", images, tmp_path / "a.h5", calibrator=file)
    calibrator = read_calibrator(file, prediction.calibration, digest_file(folder / "model.safetensors"), tiny.CLASSES)
    predictor = load_predictor(
        folder / "model.safetensors", InferenceSettings(), torch.device("cpu"), calibrator=calibrator
    )
    with Predictions(tmp_path / "a.h5") as shard:
        assert shard.attributes["calibrator"] == digest_file(file)
        assert shard.attributes["mode"] == prediction.mode
        for position, path in enumerate(pd.read_csv(images).image_file):
            image = to_tensor(read_image(path))[None]
            expected = predictor(image, ["a"], tuple(image.shape[2:])).decided()
            assert all((a == b[0].numpy()).all() for a, b in zip(shard.read(position), expected[:2], strict=True))


def test_choosing_again_is_calibrated_too(data, tmp_path):
    """With thresholds that favor no class, the choice is the shard's own."""
    folder, images = data
    prediction, model = PredictionSettings(calibration="temperature"), folder / "model.safetensors"
    predict_shard(asked(prediction), model, images, tmp_path / "a.h5", calibrator=folder / "temperature.json")
    classes = pd.DataFrame({"class": tiny.CLASSES, "pixels": 9, "share": 1 / 3, "images": 5, "mean_size": 0.3})
    classes.to_csv(tmp_path / "classes.csv", index=False)
    policy = {"name": "st", "threshold": 0.2}
    select(
        SelectSettings(classes=tiny.CLASSES, policy=policy),
        [tmp_path / "a.h5"],
        tmp_path / "classes.csv",
        tmp_path / "cut.csv",
    )
    given = asked(prediction), model, images, tmp_path / "cut.csv", tmp_path / "b.h5"
    choose(*given, calibrator=folder / "temperature.json")
    with Predictions(tmp_path / "a.h5") as one, Predictions(tmp_path / "b.h5") as other:
        assert other.attributes["calibrator"] == one.attributes["calibrator"]
        assert (one.histogram() == other.histogram()).all()


def test_a_calibrator_that_is_missing_or_anothers_is_refused(data, tmp_path):
    folder, images = data
    prediction = PredictionSettings(calibration="temperature")
    with pytest.raises(UserError, match="calibrated predictions need the model's calibrator"):
        predict_shard(asked(prediction), folder / "model.safetensors", images, tmp_path / "a.h5")
    tiny.save_model(tmp_path / "model.safetensors", seed=1)
    file = folder / "temperature.json"
    with pytest.raises(UserError, match=r"temperature\.json: was fitted to another model"):
        predict_shard(asked(prediction), tmp_path / "model.safetensors", images, tmp_path / "a.h5", calibrator=file)
    told = json.loads(file.read_text())
    (tmp_path / "other.json").write_text(json.dumps(told | {"classes": ["a", "b", "c"]}))
    with pytest.raises(UserError, match=r"other\.json: made for the classes \['a', 'b', 'c'\]"):
        predict_shard(
            asked(prediction),
            folder / "model.safetensors",
            images,
            tmp_path / "a.h5",
            calibrator=tmp_path / "other.json",
        )
    assert not (tmp_path / "a.h5").exists()
