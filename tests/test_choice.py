import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from exact import mean_over_patches, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from selftrain import randomness
from selftrain.confidence import BINS, STEPS, coarse, log_odds_of_coarse
from selftrain.data.augmentation import fill_color
from selftrain.data.reading import read_image
from selftrain.data.tables import read_images, write_statistics
from selftrain.errors import UserError
from selftrain.label.choice import choose
from selftrain.label.merge import merge
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.label.stage import label
from selftrain.models import files
from selftrain.predict.confidence import UNDEFINED, decide, decide_probabilities
from selftrain.predict.spatial_prior import at_size, read_spatial_prior
from selftrain.predict.stage import predict_shard
from selftrain.predict.store import Predictions
from selftrain.select.cut import read_cut
from selftrain.select.stage import select
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import (
    PatchSettings,
    PredictionSettings,
    PredictStageSettings,
    SpatialPriorSettings,
)
from selftrain.settings.selection import LabelSettings, SelectSettings

# The rule


def brute_choice(log_p, thresholds):
    """Class with the highest p_c / t_c, its own log-odds, and by how much it leads, of float64 (C, N)."""
    ratios = np.maximum(log_p, -1e4) - np.log(thresholds)[:, None]  # what is 0 still comes before what is never chosen
    chosen = ratios.argmax(0)
    own = log_p[chosen, np.arange(log_p.shape[1])]
    others = np.where(np.arange(len(log_p))[:, None] == chosen, -np.inf, log_p)
    with np.errstate(invalid="ignore"):
        lead = np.diff(np.sort(ratios, 0)[-2:], axis=0)[0]
    return chosen, own - np.logaddexp.reduce(others, 0), np.nan_to_num(lead, nan=np.inf)


@st.composite
def pixels(draw):
    """Float32 logits (C, N), and thresholds (C,) of which some may be infinite."""
    classes, seed = draw(st.integers(2, 21)), draw(st.integers(0, 2**32))
    scale = draw(st.sampled_from([0.0, 0.3, 3.0, 30.0]))
    logits = np.random.default_rng(seed).normal(0, scale, (classes, 60)).astype(np.float32)
    one = st.one_of(st.floats(1e-6, 1 - 1e-6), st.just(np.inf))
    return logits, np.array(draw(st.lists(one, min_size=classes, max_size=classes)))


def both(logits, thresholds):
    """What is decided from logits and from probabilities, each with the float64 log-probabilities it is given."""
    log_p = logits.astype(float) - np.logaddexp.reduce(logits.astype(float), 0)
    means = np.exp(log_p).astype(np.float32)
    with np.errstate(divide="ignore"):
        log_means = np.log(means.astype(float))
    told = None if thresholds is None else torch.tensor(thresholds.tolist())
    for rule, values, exact in ((decide, logits, log_p), (decide_probabilities, means, log_means)):
        classes, bins = rule(torch.from_numpy(values).reshape(1, len(values), 6, 10), told)
        assert classes.dtype == torch.uint8 and classes.shape == bins.shape == (1, 6, 10)
        yield classes.numpy().ravel(), bins.numpy().ravel().astype(int), exact


@settings(max_examples=150, deadline=None)
@given(pixels())
def test_the_class_is_the_one_highest_above_its_threshold(case):
    logits, thresholds = case
    for classes, bins, exact in both(logits, thresholds):
        expected, log_odds, lead = brute_choice(exact, thresholds)
        sure = (lead > 1e-4) & (log_odds > -80)  # below are the numbers that float32 stores badly
        assert (classes == expected)[sure].all()
        assert np.abs(bins - quantize(log_odds).astype(int))[sure].max(initial=0) <= 1


@settings(max_examples=60, deadline=None)
@given(pixels(), st.floats(1e-6, 1 - 1e-6))
def test_equal_thresholds_choose_the_top_class(case, threshold):
    logits, _ = case
    plain = both(logits, None)
    for (classes, bins, exact), (top, top_bins, _) in zip(
        both(logits, np.full(len(logits), threshold)), plain, strict=True
    ):
        sure = np.diff(np.sort(exact, 0)[-2:], axis=0)[0] > 1e-4
        assert (classes == top)[sure].all() and (top == exact.argmax(0)).all()
        assert np.abs(bins - top_bins).max() <= 1


def test_the_confidence_is_the_chosen_class_s_own():
    """Of p = 0.6, 0.3, 0.1 the last is furthest above its threshold, at odds of one to nine."""
    p = torch.tensor([0.6, 0.3, 0.1]).reshape(1, 3, 1, 1)
    for classes, bins in (
        decide(p.log(), torch.tensor([0.9, 0.5, 0.05])),
        decide_probabilities(p, torch.tensor([0.9, 0.5, 0.05])),
    ):
        assert classes.item() == 2 and abs(bins.item() - int(quantize(-np.log(9)))) <= 1


def test_what_is_never_to_be_chosen_is_not_even_where_all_else_is_zero():
    """As where every patch of SISC decides alike."""
    for certain in (0, 2):
        p = F.one_hot(torch.tensor(certain), 3).float().reshape(1, 3, 1, 1)
        thresholds = torch.full((3,), 0.5).index_fill(0, torch.tensor(certain), torch.inf)
        assert decide_probabilities(p, thresholds)[0].item() != certain
        assert decide(p * 200, thresholds)[0].item() != certain


def test_without_any_threshold_to_reach_there_is_still_a_class():
    logits = torch.randn((1, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    never = torch.full((4,), torch.inf)
    for classes, _ in (decide(logits, never), decide_probabilities(logits.softmax(1), never)):
        assert (classes < 4).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 2])
def test_logits_without_log_odds_are_an_error_here_too(bad, at):
    logits = torch.zeros(2, 3, 4, 4)
    logits[1, at, 3, 2] = bad
    for thresholds in (torch.tensor([0.5, 0.6, torch.inf]), torch.tensor([torch.inf, 0.6, 0.5])):
        bins = decide(logits, thresholds)[1]
        assert bins[1, 3, 2] == UNDEFINED and (bins == UNDEFINED).sum() == 1


# From predictions to pseudo-labels

SIZES = [(32, 48), (32, 48), (20, 30), (32, 48), (48, 32)]
PREDICTIONS = [
    PredictionSettings(),
    PredictionSettings(patches=PatchSettings(size=(24, 24), count=7)),
    PredictionSettings(spatial_prior=SpatialPriorSettings(smoothing=0.05, weight=0.5)),
]


class Colors(nn.Module):
    """Sure of the sky, unsure of what looks like a road or a car; black may be sky or road, and is more of the sky."""

    LOGITS = ((2.5, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.6), (1.1, 1.0, -6.0))

    def __init__(self):
        super().__init__()
        colors = np.vstack([tiny.COLORS, np.zeros(3)]) / 255
        draw = np.random.default_rng(0)
        for name, values in (("colors", colors), ("logits", self.LOGITS), ("slopes", draw.normal(0, 6, (3, 3)))):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, views):
        views = (views + F.avg_pool2d(views, 5, 1, 2, count_include_pad=False))[:, :, ::2, ::2] / 2
        away = views[:, None] - self.colors[:, :, None, None]
        alike = (-100 * away.square().sum(2)).softmax(1)
        own = self.logits[:, :, None, None] + torch.einsum("cr,bkrhw->bkchw", self.slopes, away)
        return (alike[:, :, None] * own).sum(1)


def network(classes):
    assert classes == 3
    return Colors()


MODEL = ModelSettings(module="test_choice:network", mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A labeled and an unlabeled split, and a model."""
    folder = tmp_path_factory.mktemp("task")
    labeled = tiny.split(folder / "labeled", seed=1)
    write_statistics(tiny.READ, labeled, folder / "classes.csv", folder / "statistics.h5")
    tiny.split(folder / "unlabeled", SIZES, label_files=False)
    tiny.save_model(folder / "model.safetensors", MODEL)
    return folder


class Run:
    """All stages from predict to merge, with their files in one folder."""

    def __init__(self, task, folder, *, prediction=PREDICTIONS[0], choice="normalized", shards=1, portion=0.4):
        folder.mkdir()
        self.task, self.prediction, self.cut, self.output = task, prediction, folder / "cut.csv", folder / "labels.h5"
        images, model, statistics = task / "unlabeled/images.csv", task / "model.safetensors", task / "statistics.h5"
        self.predicted, chosen, self.labels = ([folder / f"{kind}-{n}.h5" for n in range(shards)] for kind in "pcl")
        told = [
            PredictStageSettings(prediction=prediction, seed=2, batch_size=1, shard=n, shards=shards, read=tiny.READ)
            for n in range(shards)
        ]
        for how, path in zip(told, self.predicted, strict=True):
            predict_shard(how, model, images, path, statistics=statistics)
        policy = {"name": "cbst", "choice": choice}
        self.told = LabelSettings(
            seed=0, round=1, select=SelectSettings(classes=tiny.CLASSES, policy=policy, portion=portion)
        )
        select(self.told.select, self.predicted, task / "classes.csv", self.cut)
        self.chosen = chosen if choice == "normalized" else [None] * shards
        for how, before, path, output in zip(told, self.predicted, self.chosen, self.labels, strict=True):
            if path is not None:
                choose(how, model, images, self.cut, path, statistics=statistics)
            label(self.told, before, self.cut, output, chosen=path)
        merge(self.told, self.labels, self.predicted, self.cut, self.output, folder / "labels.csv")
        self.table = pd.read_csv(folder / "labels.csv", keep_default_na=False)

    def images(self):
        """Name, labels, top class and log-probabilities by the definition, image by image."""
        network, about = files.load(self.task / "model.safetensors")
        labels = PseudoLabels(self.output)
        table = read_images(self.task / "unlabeled/images.csv")
        for name, file in zip(table.image, table.image_file, strict=True):
            pixels = torch.from_numpy(read_image(file).transpose(2, 0, 1).copy())
            p = self._probabilities(network, pixels, name, fill_color(about["model"]["mean"]))
            yield name, labels.label(name).ravel(), np.log(p.numpy().reshape(3, -1)), labels.confidence(name).ravel()

    @torch.no_grad()
    def _probabilities(self, network, pixels, name, fill):
        def softmax(views):
            return F.interpolate(network(views), views.shape[2:], mode="bilinear", align_corners=False).softmax(1)

        p = softmax(pixels[None])[0].double()
        if patches := self.prediction.patches:
            draw = randomness.generator(2, "patches", name)
            p = mean_over_patches(softmax, pixels, patches, draw, classes=3, fill=fill).double()
        if spatial := self.prediction.spatial_prior:
            p = p * at_size(read_spatial_prior(self.task / "statistics.h5", spatial, tiny.CLASSES), p.shape[1:])
        return p / p.sum(0)

    def predicted_classes(self):
        """The model's top class of each pixel, by image."""
        found = {}
        for path in self.predicted:
            with Predictions(path) as shard:
                found |= {name: shard.read(at)[0].ravel() for at, name in enumerate(shard.images)}
        return found


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda prediction: prediction.mode)
@pytest.mark.parametrize("portion", [0.4, 0.7])
def test_labels_are_the_published_rule(task, tmp_path, prediction, portion):
    """Highest p_c / t_c, kept where that is 1 or more; but for pixels within a bin of either."""
    run = Run(task, tmp_path / "run", prediction=prediction, portion=portion)
    cut, tops = read_cut(run.cut), run.predicted_classes()
    log_odds, thresholds = cut.threshold_log_odds.to_numpy(), cut.threshold_probability.to_numpy()
    pixels, changed, unsure = np.zeros(3, int), np.zeros(3, int), 0
    for name, labels, log_p, confidence in run.images():
        chosen, own, lead = brute_choice(log_p, thresholds)
        reached = log_p[chosen, np.arange(len(chosen))] >= np.log(thresholds[chosen])
        sure = (lead > 1 / STEPS) & (np.abs(own - log_odds[chosen]) > 1 / STEPS)
        assert (labels == np.where(reached, chosen, 255))[sure].all()
        assert np.abs(confidence - log_odds_of_coarse(coarse(quantize(own))))[sure].max() <= 0.25
        assert (tops[name] == log_p.argmax(0)).mean() > 0.999
        pixels += np.bincount(labels, minlength=256)[:3]
        changed += np.bincount(labels[(labels != 255) & (labels != tops[name])], minlength=3)
        unsure += (~sure).sum()
    assert run.table.pixels.tolist() == pixels.tolist() and pixels.min() > 200
    assert run.table.changed.tolist() == changed.tolist() and changed.sum() > 30
    assert unsure < 0.02 * sum(map(len, tops.values()))


def test_the_most_probable_class_changes_nothing(task, tmp_path):
    run = Run(task, tmp_path / "run", choice="top", portion=0.7)
    thresholds, tops = read_cut(run.cut).threshold_bin.to_numpy(), run.predicted_classes()
    assert (run.table.changed == 0).all() and (run.table.pixels > 0).all()
    with Predictions(run.predicted[0]) as shard:
        for position, name in enumerate(shard.images):
            bins = shard.read(position)[1].ravel()
            expected = np.where(bins >= thresholds[tops[name]], tops[name], 255)
            assert (PseudoLabels(run.output).label(name).ravel() == expected).all()


@pytest.mark.parametrize("prediction", PREDICTIONS[:2], ids=lambda prediction: prediction.mode)
def test_shards_change_nothing(task, tmp_path, prediction):
    one, three = (Run(task, tmp_path / str(shards), prediction=prediction, shards=shards) for shards in (1, 3))
    assert one.output.read_bytes() == three.output.read_bytes()
    assert one.table.equals(three.table) and one.table.changed.sum() > 0


def test_a_class_of_which_nothing_is_kept_is_never_chosen(task, tmp_path):
    run = Run(task, tmp_path / "run")
    cut = read_cut(run.cut)
    cut.loc[0, "threshold_bin"] = BINS
    cut.to_csv(tmp_path / "cut.csv", index=False)
    told = {"prediction": run.prediction, "seed": 2, "batch_size": 1, "shard": 0, "shards": 1, "read": tiny.READ}
    images, model = task / "unlabeled/images.csv", task / "model.safetensors"
    choose(PredictStageSettings(**told), model, images, tmp_path / "cut.csv", tmp_path / "chosen.h5")
    with Predictions(run.predicted[0]) as before, Predictions(tmp_path / "chosen.h5") as after:
        assert before.histogram()[0].sum() > 0
        assert after.histogram()[0].sum() == 0 and after.histogram().sum() == before.histogram().sum()


def test_a_choice_for_other_images_is_refused(task, tmp_path):
    run = Run(task, tmp_path / "run", shards=3)
    output = tmp_path / "label.h5"
    with pytest.raises(UserError, match=r"c-1\.h5: differs in images from .*p-0\.h5; run choose again"):
        label(run.told, run.predicted[0], run.cut, output, chosen=run.chosen[1])
    with pytest.raises(UserError, match=r"absent\.h5: no such file"):
        label(run.told, run.predicted[0], run.cut, output, chosen=tmp_path / "absent.h5")
    assert not output.exists()
