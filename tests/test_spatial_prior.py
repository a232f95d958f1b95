import math

import numpy as np
import pytest
import tiny
import torch
from exact import quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from selftrain.confidence import BINS
from selftrain.data.reading import read_image
from selftrain.data.tables import MAP, read_images, write_images, write_statistics
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.predict.forward import Predictor
from selftrain.predict.spatial_prior import LEAST, read_spatial_prior
from selftrain.predict.stage import predict_shard
from selftrain.predict.store import Predictions
from selftrain.settings.data import ListSettings
from selftrain.settings.prediction import (
    InferenceSettings,
    PatchSettings,
    PredictionSettings,
    PredictStageSettings,
    SpatialPriorSettings,
)

UNLABELED = (slice(20, 40), slice(50, 70))
"""A place that no label says anything of."""


def halves(edge):
    """Ids of the size of a map: class 0 above `edge`, class 1 below it, some of them ignored."""
    ids = np.ones(MAP, np.uint8)
    ids[:edge] = 0
    ids[np.random.default_rng(edge).random(MAP) < 0.1] = 255
    ids[UNLABELED] = 255
    return ids


LABELS = [halves(30), halves(33), halves(33)]


def write_labels(folder, labels):
    """The statistics.h5 of label files; the pictures beside them say nothing."""
    for number, ids in enumerate(labels):
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids).save(folder / kind / f"{number}.png")
    where = {"root": str(folder), "data_root": str(folder), "images": ("images/*",), "labels": ("labels/*",)}
    write_images(ListSettings(**where, list=None, labeled=True), folder / "images.csv")
    write_statistics(tiny.READ, folder / "images.csv", folder / "classes.csv", folder / "statistics.h5")
    return folder / "statistics.h5"


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    return write_labels(tmp_path_factory.mktemp("labeled"), LABELS)


def read(path, smoothing=0.0, weight=1.0):
    return read_spatial_prior(path, SpatialPriorSettings(smoothing=smoothing, weight=weight), tiny.CLASSES).numpy()


# The factors


def frequencies():
    """How often a place shows a class, an unlabeled pixel counting for each class by its share of all labels."""
    shown = np.array([[label == index for label in LABELS] for index in range(3)], float)
    share = shown.sum((1, 2, 3)) / shown.sum()
    shown += (np.array(LABELS) == 255) * share[:, None, None, None]
    return shown.mean(1)


def brute_factors(maps):
    """Frequency by mean, floored; class 2 has no frequency anywhere."""
    shares = maps / np.maximum(maps.mean((1, 2), keepdims=True), 1e-30)
    return np.maximum(shares, LEAST)


def brute_blur(line, sigma):
    """A Gaussian cut at 3 sigma, over a line that is mirrored at both ends."""
    radius = math.ceil(3 * sigma)
    offsets = range(-radius, radius + 1)
    weights = [math.exp(-((offset / sigma) ** 2) / 2) for offset in offsets]
    last, blurred = len(line) - 1, np.zeros(len(line))
    for at in range(len(line)):
        mirrored = [last - abs(last - abs(at + offset)) for offset in offsets]
        blurred[at] = sum(w * line[m] for w, m in zip(weights, mirrored, strict=True)) / sum(weights)
    return blurred


def test_factors_are_frequency_by_mean(statistics):
    factors = read(statistics)
    assert factors.shape == (3, *MAP) and factors.dtype == np.float32
    np.testing.assert_allclose(factors, brute_factors(frequencies()), rtol=1e-5)
    np.testing.assert_allclose(factors.mean((1, 2)), [1, 1, LEAST], atol=1e-5)
    always = ~np.any(np.array(LABELS)[:, 40:] == 255, 0)
    assert factors[0, :20].mean() > 1.5 and (factors[0, 40:][always] == np.float32(LEAST)).all()


def test_smoothing_is_a_gaussian_with_mirrored_borders(statistics):
    """Over rows by 2.56 places, over columns by 5.12."""
    rows = np.apply_along_axis(brute_blur, 1, frequencies(), 0.04 * MAP[0])
    maps = np.apply_along_axis(brute_blur, 2, rows, 0.04 * MAP[1])
    factors = read(statistics, smoothing=0.04)
    np.testing.assert_allclose(factors, brute_factors(maps), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(factors.mean((1, 2)), [1, 1, LEAST], atol=1e-5)


def test_smoothing_moves_mass_across_the_edge(statistics):
    sharp, smooth = read(statistics), read(statistics, smoothing=0.04)
    left = slice(0, 40)  # of the place without labels
    assert smooth[0, 34:36, left].mean() > 2 * sharp[0, 34:36, left].mean()
    assert (np.diff(smooth[0, 27:38, left].mean(1)) < 0).all() and (np.diff(smooth[1, 27:38, left].mean(1)) > 0).all()
    assert abs(smooth[0, 50:, left].mean() - sharp[0, 50:, left].mean()) < 0.01


def test_smoothing_over_the_whole_map_leaves_little(statistics):
    factors = read(statistics, smoothing=1)
    assert np.abs(factors[:2] - 1).max() < 0.3 and np.abs(factors[:2] - 1).max() > 0.01


@settings(max_examples=20, deadline=None)
@given(weight=st.floats(0.01, 1), smoothing=st.sampled_from([0, 0.02]))
def test_a_weight_mixes_with_a_map_that_says_nothing(statistics, weight, smoothing):
    alone, mixed = read(statistics, smoothing), read(statistics, smoothing, weight)
    np.testing.assert_allclose(mixed, np.maximum((1 - weight) + weight * alone, LEAST), atol=2e-6, rtol=1e-5)
    np.testing.assert_allclose(mixed.mean((1, 2))[:2], 1, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0, 0.02])
def test_where_nothing_is_labeled_the_prediction_stays(statistics, smoothing):
    """And no class wins there for never having been shown."""
    inner = (slice(25, 35), slice(59, 61))  # beyond what smoothing brings there
    factors = read(statistics, smoothing)
    np.testing.assert_allclose(factors[:2, *inner], 1, atol=1e-3)
    network = Same(torch.tensor([1.0, 3.0, -6.0]))
    with_prior, plain = (predictor(network, prior) for prior in (torch.from_numpy(factors), None))
    (classes, bins, _), (expected, near, _) = (one(pixels(MAP), ["a"], MAP).decided() for one in (with_prior, plain))
    assert torch.equal(classes[0, *inner], expected[0, *inner]) and (classes != expected).any()
    assert (bins - near)[0, *inner].abs().max() <= 2


def test_nothing_labeled_at_all_says_nothing(tmp_path):
    path = write_labels(tmp_path, [np.full(MAP, 255, np.uint8)])
    for smoothing in (0, 0.1):
        assert (read(path, smoothing) == np.float32(LEAST)).all()


def test_maps_of_other_classes_are_refused(statistics, tmp_path):
    with pytest.raises(UserError, match=r"statistics\.h5: is about \['sky', 'road', 'car'\], not \['road', 'sky'"):
        read_spatial_prior(statistics, SpatialPriorSettings(), ("road", "sky", "car"))
    with pytest.raises(UserError, match=r"absent\.h5: no such file; run statistics again"):
        read(tmp_path / "absent.h5")


# In a prediction


class Same(nn.Module):
    """The same logits everywhere."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, views):
        return self.logits[:, None, None].expand(len(views), -1, *views.shape[-2:])


class Own(nn.Module):
    """Logits from each pixel's own color, so that every view and every patch says the same."""

    def forward(self, views):
        return views.float() / 40


def pixels(size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, 3, *size), np.uint8))


def predictor(network, prior, **inference):
    return Predictor(network, 3, InferenceSettings(**inference), prior=prior)


def interpolated(maps, size):
    """Bilinear between the middles of the places, (C, H, W) in float64."""

    def along(length, wanted):
        at = [min(max((number + 0.5) * length / wanted - 0.5, 0), length - 1) for number in range(wanted)]
        weights = np.zeros((wanted, length))
        for number, place in enumerate(at):
            low = int(place)
            weights[number, low] += 1 - (place - low)
            weights[number, min(low + 1, length - 1)] += place - low
        return weights

    return np.einsum("yh,chw,xw->cyx", along(maps.shape[1], size[0]), maps, along(maps.shape[2], size[1]))


def agrees(found, probabilities, prior):
    """Whether class and bin (1, H, W) are those of p * q, both (C, H, W)."""
    weighted = probabilities * prior
    weighted = weighted / weighted.sum(0)
    top = np.sort(weighted, 0)
    bins = quantize(np.log(top[-1]) - np.log(top[:-1].sum(0))).astype(int)
    sure = top[-1] > top[-2] * (1 + 1e-5)
    same = (found[0].numpy() == weighted.argmax(0)) | ~sure
    return same.all() and np.abs(found[1].numpy() - bins).max() <= 1 and sure.mean() > 0.95


HOWS = [
    {},
    {"flip": True},
    {"patches": PatchSettings(size=(6, 9), count=9)},
    {"patches": PatchSettings(size=(40, 9), count=3, whole_image=True), "flip": True},
]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("grid", [(17, 23), (5, 40)])
def test_probabilities_are_multiplied_by_the_factors(how, grid):
    """On a grid of the image's own size, and on one that is coarser and finer."""
    prior = torch.from_numpy(np.random.default_rng(0).gamma(0.5, 2, (3, *grid)).astype(np.float32)).clamp(min=LEAST)
    image, size = pixels((17, 23)), (17, 23)
    found = predictor(Own(), prior, **how)(image, ["a"], size).decided()
    probabilities = (image[0].double() / 40).softmax(0).numpy()
    assert agrees([part[0] for part in found[:2]], probabilities, interpolated(prior.double().numpy(), size))
    plain = predictor(Own(), None, **how)(image, ["a"], size).decided()
    assert agrees([part[0] for part in plain[:2]], probabilities, 1.0) and (plain[0] != found[0]).any()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("level", [1.0, 0.3])
def test_a_flat_prior_says_nothing(how, level):
    image = pixels((17, 23))
    flat = predictor(Own(), torch.full((3, *MAP), level), **how)(image, ["a"], (17, 23)).decided()
    plain = predictor(Own(), None, **how)(image, ["a"], (17, 23)).decided()
    assert torch.equal(flat[0], plain[0]) and (flat[1] - plain[1]).abs().max() <= 1


@pytest.mark.parametrize("how", HOWS)
def test_the_ambiguous_follow_the_prior_and_the_certain_do_not(statistics, how):
    prior, size = torch.from_numpy(read(statistics, 0.02)), (32, 64)
    classes, *_ = predictor(Same(torch.tensor([0.0, 0.1, -20.0])), prior, **how)(pixels(size), ["a"], size).decided()
    assert (classes[0, :10] == 0).all() and (classes[0, 20:] == 1).all()
    certain = predictor(Same(torch.tensor([0.0, 20.0, 0.0])), prior, **how)(pixels(size), ["a"], size).decided()
    assert (certain[0] == 1).all() and certain[1][0, 20:].min() > certain[1][0, :9].max()


# In a shard


def shard(folder, images, prediction, statistics=None):
    told = {"prediction": prediction, "seed": 0, "batch_size": 2, "shard": 0, "shards": 1, "read": tiny.READ}
    output = folder / f"{prediction.mode}.h5"
    predict_shard(PredictStageSettings(**told), folder / "model.safetensors", images, output, statistics=statistics)
    return output


def test_a_shard_holds_classes_after_the_prior_and_counts_them(tmp_path, statistics):
    images = tiny.split(tmp_path / "unlabeled", [(32, 48), (20, 30), (32, 48)], label_files=False)
    tiny.save_model(tmp_path / "model.safetensors")
    network, _ = files.load(tmp_path / "model.safetensors")
    spatial = SpatialPriorSettings(smoothing=0.03, weight=0.9)
    plain = shard(tmp_path, images, PredictionSettings())
    output = shard(tmp_path, images, PredictionSettings(spatial_prior=spatial), statistics)
    factors = read_spatial_prior(statistics, spatial, tiny.CLASSES).double().numpy()
    counts, moved = np.zeros((3, BINS), int), 0
    with Predictions(output) as found, Predictions(plain) as before:
        for position, file in enumerate(read_images(images).image_file):
            image = torch.from_numpy(read_image(file).transpose(2, 0, 1).copy())[None]
            size = tuple(image.shape[2:])
            logits = nn.functional.interpolate(network(image), size, mode="bilinear", align_corners=False)[0]
            classes, bins = found.read(position)
            probabilities = logits.detach().double().softmax(0).numpy()
            as_tensors = [torch.from_numpy(part.astype(int)) for part in (classes, bins)]
            assert agrees(as_tensors, probabilities, interpolated(factors, size))
            np.add.at(counts, (classes, bins), 1)
            moved += (classes != before.read(position)[0]).sum()
        assert (found.histogram() == counts).all() and moved > 100


def test_a_spatial_prior_needs_statistics(tmp_path):
    images = tiny.split(tmp_path / "unlabeled", [(32, 48)], label_files=False)
    tiny.save_model(tmp_path / "model.safetensors")
    prediction = PredictionSettings(spatial_prior=SpatialPriorSettings())
    with pytest.raises(UserError, match="needs the statistics of the labeled split"):
        shard(tmp_path, images, prediction)
    assert not list(tmp_path.glob("*.h5"))
