"""How many branches of a network agree on a pixel: counted, stored, filtered by, handed on to pseudo-labels."""

import json
from collections import Counter

import h5py
import numpy as np
import pandas as pd
import pytest
import test_patches
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_predict import brute_average
from torch import nn
from torch.nn import functional as F

from selftrain.agreement import least
from selftrain.confidence import BINS
from selftrain.data.augmentation import to_tensor
from selftrain.data.reading import read_image
from selftrain.data.tables import read_images, write_statistics
from selftrain.errors import UserError
from selftrain.label.choice import choose
from selftrain.label.merge import merge
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.label.stage import label
from selftrain.models import files, top
from selftrain.models.segmenter import Segmenter
from selftrain.models.top import top_classes
from selftrain.predict.confidence import decide
from selftrain.predict.forward import Predictor, load_predictor
from selftrain.predict.spatial_prior import at_size
from selftrain.predict.stage import predict_shard
from selftrain.predict.store import Predictions
from selftrain.select.stage import select
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import InferenceSettings, PatchSettings, PredictionSettings, PredictStageSettings
from selftrain.settings.selection import LabelSettings, SelectSettings

torch.set_num_threads(1)
CPU = torch.device("cpu")


def most_frequent(votes):
    """How often the most frequent of a pixel's classes is named, (B, H, W) of votes (E, B, H, W)."""
    pixels = zip(*(np.asarray(one).ravel().tolist() for one in votes), strict=True)
    return np.reshape([Counter(pixel).most_common(1)[0][1] for pixel in pixels], votes[0].shape)


# The rule


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.integers(1, 7)),
    seed=st.integers(0, 99), levels=st.integers(1, 4), at_once=st.integers(1, 40),
)  # fmt: skip
def test_the_top_class_is_the_lowest_of_equals(shape, seed, levels, at_once):
    scores = np.random.default_rng(seed).integers(-levels, levels, shape).astype(np.float32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(top, "CACHED", at_once)
        found = top_classes(torch.from_numpy(scores))
    assert found.dtype == torch.uint8 and (found.numpy() == scores.argmax(1)).all()


@given(branches=st.integers(1, 40), data=st.data())
def test_a_share_asks_for_the_fewest_branches_that_make_it(branches, data):
    number = data.draw(st.integers(1, branches))
    assert least(number / branches, branches) == least((number - 0.5) / branches, branches) == number
    assert least(1, 6 * branches) == 6 * branches  # all are all, of however many


# Of a batch


class Branched(nn.Module):
    """Branches at half the size, on one stem."""

    def __init__(self, classes, branches):
        super().__init__()
        torch.manual_seed(2)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(8, classes, 3, padding=1) for _ in range(branches))
        for parameter in self.parameters():
            parameter.data *= 3  # as sure as a trained network is, and so of more than one class

    def forward(self, images):
        features = self.stem(images).tanh()
        return tuple(branch(features) for branch in self.branches)


class One(nn.Module):
    """A branch alone, or, without a number, the mean of all; at the network's size or that of what it sees."""

    def __init__(self, network, number=None, *, full):
        super().__init__()
        self.network, self.number, self.full = network, number, full

    def forward(self, images):
        outputs = self.network(images, apart=True)
        logits = outputs.logits if self.number is None else outputs.branches[self.number]
        return upsampled(logits, images.shape[2:]) if self.full else logits


SIZE = (20, 26)
HOWS = [
    {},
    {"flip": True},
    {"scales": (0.5, 1.0), "flip": True},
    {"patches": PatchSettings(size=(9, 12), count=9)},
    {"patches": PatchSettings(size=(9, 12), count=5, combine="decisions", whole_image=True), "flip": True},
]
every_how = pytest.mark.parametrize("how", HOWS, ids=lambda how: InferenceSettings(**how).mode)
two_and_three = pytest.mark.parametrize("branches", [2, 3])
PRIOR = torch.from_numpy(np.random.default_rng(0).gamma(1, 1, (4, 5, 7)).astype(np.float32)).clamp(min=0.05)
with_and_without_prior = pytest.mark.parametrize("prior", [None, PRIOR], ids=["", "prior"])


def own(branches):
    return ModelSettings(module="test_agreement:Branched", arguments={"branches": branches})


def branched(branches, classes=4):
    return Segmenter(own(branches), classes).eval()


def upsampled(logits, size):
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def noise():
    return torch.randint(0, 256, (2, 3, *SIZE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def predictor(network, branches, how, **options):
    return Predictor(network, 4, InferenceSettings(**how), 3, test_patches.FILL, branches=branches, **options)


@two_and_three
@pytest.mark.parametrize("size", [SIZE, (33, 41)])
@with_and_without_prior
def test_branches_predict_by_their_mean_before_softmax_and_vote_each_for_its_own(branches, size, prior):
    network, images = branched(branches), noise()
    found = predictor(network, branches, {}, prior=prior)(images, ["a", "b"], size).decided()
    with torch.inference_mode():
        said = network(images, apart=True).branches
        weight = 0 if prior is None else at_size(prior, size).log()
        mean, *each = (upsampled(logits, size) + weight for logits in (torch.stack(said).mean(0), *said))
    assert all(map(torch.equal, found[:2], decide(mean)))
    of_softmax = sum(logits.softmax(1) for logits in each).argmax(1)
    assert (found.classes != of_softmax).any(), "the mean of probabilities would be another prediction"
    assert (found.agreement.numpy() == most_frequent([logits.argmax(1) for logits in each])).all()
    assert len(found.agreement.unique()) == branches and found.agreement.dtype == torch.uint8


def brute_scores(network, images, how, prior):
    """Float64 probabilities (B, C, H, W) on any scale, by the brute force of tests of networks with one branch."""
    flip, patches = how.get("flip", False), how.get("patches")
    if patches is None:
        scores = brute_average(network, images / 255, how.get("scales", (1.0,)), (False, True)[: 1 + flip], SIZE)
    else:
        with torch.inference_mode():
            each = [test_patches.brute_mean(network, images[at], patches, name, flip) for at, name in enumerate("ab")]
        scores = np.stack(each)
    return scores if prior is None else scores * at_size(prior.double(), SIZE).numpy()


@two_and_three
@pytest.mark.parametrize("how", HOWS[1:], ids=lambda how: InferenceSettings(**how).mode)
@with_and_without_prior
def test_a_branch_votes_for_the_class_of_its_own_averaged_probabilities(branches, how, prior):
    network, images = branched(branches), noise()
    found = predictor(network, branches, how, prior=prior)(images, ["a", "b"], SIZE).decided()
    alone = (One(network, at, full="patches" in how) for at in (None, *range(branches)))
    whole, *each = (brute_scores(one, images, how, prior) for one in alone)
    leads = [np.diff(np.sort(scores, 1)[:, -2:], axis=1)[:, 0] / scores.sum(1) for scores in (whole, *each)]
    sure = np.min(leads, 0) > 1e-5
    assert sure.mean() > (0.97 if how is not HOWS[-1] or prior is not None else 0.3)  # decisions are often equal
    assert (found.classes.numpy() == whole.argmax(1))[sure].all()
    assert (found.agreement.numpy() == most_frequent([scores.argmax(1) for scores in each]))[sure].all()
    assert len(np.unique(found.agreement[torch.from_numpy(sure)])) == branches
    alone = predictor(network, 1, how, prior=prior)(images, ["a", "b"], SIZE).decided()
    assert alone.agreement is None and torch.equal(alone.classes, found.classes)
    assert (alone.bins - found.bins).abs().max() <= 1


@every_how
def test_thresholds_change_classes_but_no_vote(how):
    network, images, thresholds = branched(3), noise(), torch.tensor([0.9, 0.2, 0.5, torch.inf])
    plain = predictor(network, 3, how)(images, ["a", "b"], SIZE).decided()
    chosen = predictor(network, 3, how, thresholds=thresholds)(images, ["a", "b"], SIZE).decided()
    assert torch.equal(plain.agreement, chosen.agreement) and (plain.classes != chosen.classes).any()


def test_memory_for_patches_counts_the_branches():
    """Of three sets of scores a third as many patches pass together."""
    network, patches, seen = branched(2), PatchSettings(size=(96, 128), count=8, memory=4), []
    network.encoder.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    for branches in (1, 2):
        predictor(network, branches, {"patches": patches})(torch.zeros(1, 3, 100, 130), ["a"], (100, 130))
    assert seen == [7, 1, 2, 2, 2, 2]


@every_how
def test_agreement_is_counted_only_where_asked_and_where_there_are_branches(task, how):
    asked, unasked, single = (
        load_predictor(task / f"{branches}.safetensors", InferenceSettings(**how), CPU, count_agreement=counted)
        for branches, counted in ((2, True), (2, False), (1, True))
    )
    found, plain = (one(noise(), ["a", "b"], SIZE).decided() for one in (asked, unasked))
    assert torch.equal(found.classes, plain.classes) and (found.bins - plain.bins).abs().max() <= 1
    assert plain.agreement is None and found.agreement.unique().tolist() == [1, 2]
    assert single.branches == 1 and single(noise(), ["a", "b"], SIZE).decided().agreement is None


def test_decoders_of_a_segmenter_are_its_branches(tmp_path):
    told = ModelSettings(decoder={"name": "light", "channels": 8}, branches=3)
    segmenter = tiny.save_model(tmp_path / "model.safetensors", told)
    for branch in segmenter.branches:
        for parameter in branch.classifier.parameters():  # new ones would answer alike everywhere
            parameter.data.normal_(0, 3)
    files.save(tmp_path / "model.safetensors", segmenter, told, tiny.CLASSES, step=0)
    counting = load_predictor(tmp_path / "model.safetensors", InferenceSettings(), CPU, count_agreement=True)
    found = counting(noise(), ["a", "b"], SIZE).decided()
    with torch.inference_mode():
        votes = [upsampled(logits, SIZE).argmax(1) for logits in segmenter(noise(), apart=True).branches]
    assert (found.agreement.numpy() == most_frequent(votes)).all() and len(found.agreement.unique()) > 1


# From predictions to pseudo-labels

SIZES = [(32, 48), (32, 48), (20, 30), (48, 32), (32, 48)]
COLORS = [(9, 8, 7), (1, 2, 3), (250, 0, 0)]
NORMALIZED = {"name": "cbst", "choice": "normalized"}


def write_task(folder):
    """A labeled and an unlabeled split, and models with one, two and three branches."""
    write_statistics(tiny.READ, tiny.split(folder / "labeled"), folder / "classes.csv", folder / "statistics.h5")
    tiny.split(folder / "unlabeled", SIZES, seed=1, label_files=False)
    for branches in (1, 2, 3):
        files.save(folder / f"{branches}.safetensors", branched(branches, 3), own(branches), tiny.CLASSES, 0, COLORS)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("task"))


class Run:
    """All stages from predict to merge, with their files in one folder."""

    def __init__(self, task, folder, *, agreement=None, branches=3, policy="cbst", shards=1, portion=0.5):
        folder.mkdir()
        images, model = task / "unlabeled/images.csv", task / f"{branches}.safetensors"
        self.predicted, chosen, self.labels = ([folder / f"{kind}-{n}.h5" for n in range(shards)] for kind in "pcl")
        self.cut, self.output, self.csv = folder / "cut.csv", folder / "labels.h5", folder / "pseudo_labels.csv"
        shared = {"prediction": {"agreement": agreement}, "seed": 2, "batch_size": 2, "read": tiny.READ}
        told = [PredictStageSettings(shard=n, shards=shards, **shared) for n in range(shards)]
        for how, path in zip(told, self.predicted, strict=True):
            predict_shard(how, model, images, path)
        how = SelectSettings(classes=tiny.CLASSES, policy=policy, portion=portion)
        self.told = LabelSettings(seed=0, round=1, select=how)
        select(how, self.predicted, task / "classes.csv", self.cut)
        for how, before, anew, path in zip(told, self.predicted, chosen, self.labels, strict=True):
            if policy == NORMALIZED:
                choose(how, model, images, self.cut, anew)
            label(self.told, before, self.cut, path, chosen=anew if policy == NORMALIZED else None)
        merge(self.told, self.labels, self.predicted, self.cut, self.output, self.csv)

    def planes(self):  # classes, bins and agreement by image
        found = {}
        for path in self.predicted:
            with Predictions(path) as shard:
                found |= {name: (*shard.read(at), shard.agreement(at)) for at, name in enumerate(shard.images)}
        return found


@pytest.fixture(scope="module")
def plain(task, tmp_path_factory):
    return Run(task, tmp_path_factory.mktemp("plain") / "run")


def votes_of(run, branches=3):
    """Pixels predicted as each class that 1, 2, ... branches agree on, counted one by one."""
    votes = np.zeros((3, branches), int)
    for classes, _, agreement in run.planes().values():
        for class_id, number in zip(classes.ravel(), agreement.ravel(), strict=True):
            votes[class_id, number - 1] += 1
    return votes


@two_and_three
def test_a_shard_holds_what_the_predictor_counts(task, tmp_path, branches):
    run = Run(task, tmp_path / "run", branches=branches)
    counting = load_predictor(task / f"{branches}.safetensors", InferenceSettings(), CPU, count_agreement=True)
    table = read_images(task / "unlabeled/images.csv").set_index("image")
    for name, (classes, bins, agreement) in run.planes().items():
        found = counting(to_tensor(read_image(table.image_file[name]))[None], [name], classes.shape).decided()
        assert (found.classes[0].numpy() == classes).all() and (found.agreement[0].numpy() == agreement).all()
        assert np.abs(found.bins[0].numpy() - bins.astype(int)).max() <= 1  # an image alone is no batch: floats round
    with Predictions(run.predicted[0]) as shard:
        assert shard.branches == branches and shard.least_agreement == 0
        assert (shard.votes() == votes_of(run, branches)).all() and (shard.votes()[:, [0, -1]] > 30).any(0).all()


@pytest.mark.parametrize(("share", "number"), [(1, 3), (2 / 3, 2), (0.5, 2), (0.2, 1)])
def test_a_filter_takes_pixels_from_classes_and_histogram_and_from_nothing_else(task, plain, tmp_path, share, number):
    run, histogram = Run(task, tmp_path / "run", agreement=share), 0
    for name, (classes, bins, agreement) in plain.planes().items():
        found, kept = run.planes()[name], agreement >= number
        assert (found[0] == np.where(kept, classes, 255)).all()
        assert (found[1] == bins).all() and (found[2] == agreement).all()
        histogram += np.array([np.bincount(bins[kept & (classes == one)], minlength=BINS) for one in range(3)])
    with Predictions(run.predicted[0]) as shard, Predictions(plain.predicted[0]) as before:
        assert (shard.votes() == before.votes()).all() and (shard.histogram() == histogram).all()
        assert shard.least_agreement == number and shard.attributes["mode"].startswith("agreeing-")


def test_a_filter_has_a_folder_of_its_own():
    modes = [PredictionSettings(agreement=share, flip=flip).mode for share in (None, 0.5, 1) for flip in (False, True)]
    assert modes == ["single", "flip", "agreeing-0.5", "flip-agreeing-0.5", "agreeing-1", "flip-agreeing-1"]


@pytest.mark.parametrize("how", [{"policy": "dars"}, {"policy": NORMALIZED, "agreement": 1}], ids=str)
def test_shards_change_nothing(task, tmp_path, how):
    one, three = (Run(task, tmp_path / str(shards), shards=shards, **how) for shards in (1, 3))
    assert len(three.predicted) == 3 and one.output.read_bytes() == three.output.read_bytes()
    assert one.csv.read_bytes() == three.csv.read_bytes()


@pytest.mark.parametrize(
    ("policy", "share", "number"),
    [(policy, 1, 3) for policy in ("st", "cbst", "da", "dars", NORMALIZED)] + [("st", None, 0), (NORMALIZED, 0.6, 2)],
)
def test_what_is_filtered_is_never_labeled(task, plain, tmp_path, policy, share, number):
    run, predicted = Run(task, tmp_path / "run", agreement=share, policy=policy, portion=1), plain.planes()
    labels, labeled_among = PseudoLabels(run.output), np.zeros(4, int)
    assert labels.branches == 3 and labels.names == list(predicted)
    for position, (name, (_, _, agreement)) in enumerate(predicted.items()):
        assert (labels.agreement(name) == agreement).all() and (labels.agreement(position) == agreement).all()
        labeled_among += np.bincount(agreement[labels.label(name) != 255], minlength=4)
    assert (labeled_among[:number] == 0).all() and (labeled_among[max(1, number) :] > 10).all()
    votes, table = votes_of(plain), pd.read_csv(run.csv)
    assert (table.predicted + table.filtered).tolist() == votes.sum(1).tolist()
    assert table.filtered.tolist() == votes[:, : max(1, number) - 1].sum(1).tolist()
    expected = votes[:, (number or 3) - 1 :].sum(1) / votes.sum(1)
    np.testing.assert_allclose(table.agreeing, expected)
    np.testing.assert_allclose(labels.classes.agreeing, expected)


def test_the_files_stand_alone(task, tmp_path):
    """Everything is there for plain h5py."""
    run = Run(task, tmp_path / "run", agreement=1)
    for path, compression in ((run.predicted[0], "gzip"), (run.output, "gzip")):
        with h5py.File(path) as file:
            planes = file["agreement"]
            assert (planes.dtype, planes.shape, planes.chunks) == (np.uint8, (5, 48, 48), (1, 48, 48))
            assert planes.compression == compression and set(np.unique(planes[2, :20, :30])) == {1, 2, 3}
            assert (planes[2, 20:] == 0).all() and (planes[3, :, 32:] == 0).all()
            assert np.array_equal(json.loads(file.attrs["colors"]), COLORS)


def test_without_branches_there_is_nothing_to_agree(task, tmp_path):
    run = Run(task, tmp_path / "run", branches=1)
    for path in (run.predicted[0], run.output):
        with h5py.File(path) as file:
            assert "agreement" not in file and "least_agreement" not in file.attrs
    with Predictions(run.predicted[0]) as shard:
        assert shard.branches == 1 and (shard.agreement(2) == np.ones((20, 30))).all()
        assert shard.votes().tolist() == shard.histogram().sum(1)[:, None].tolist()
    labels = PseudoLabels(run.output)
    assert labels.branches == 1 and (labels.agreement(2) == np.ones((20, 30), np.uint8)).all()
    assert pd.read_csv(run.csv).agreeing.isna().all()
    with pytest.raises(UserError, match=r"1\.safetensors: has one branch"):
        Run(task, tmp_path / "filtered", branches=1, agreement=1)
    assert not list((tmp_path / "filtered").iterdir())


def test_shards_of_other_branches_or_filters_are_refused(task, tmp_path):
    one, other = (Run(task, tmp_path / str(share), agreement=share, shards=2) for share in (None, 1))

    def refused(second):
        with pytest.raises(
            UserError, match=r"the shards differ in their \(branches, how many of them a filter asks for\)"
        ):
            merge(one.told, one.labels, [one.predicted[0], second], one.cut, tmp_path / "out.h5", tmp_path / "out.csv")

    refused(other.predicted[1])
    with h5py.File(one.predicted[1], "a") as file:
        del file["agreement"], file["votes"]
        file["votes"] = np.zeros((3, 1), int)
    refused(one.predicted[1])
    assert not list(tmp_path.glob("out*"))
