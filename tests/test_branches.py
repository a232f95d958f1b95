"""Networks with several decoders on one encoder: how far these agree, how alike they are, and what trains them."""

import json
import logging
from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from selftrain.agreement import least
from selftrain.data.batches import Batch
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.models.agreement import agreement
from selftrain.models.decoders.pyramid_pooling import PyramidPooling, grid_means
from selftrain.models.segmenter import Segmenter
from selftrain.settings.model import ModelSettings, PyramidPoolingSettings
from selftrain.settings.training import OptimizerSettings, SelfTrainingSettings, SupervisedSettings
from selftrain.train import stage
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.self_training import SelfTraining
from selftrain.train.algorithms.supervised import Supervised
from selftrain.train.branches import branch_similarity
from selftrain.train.losses import cross_entropy
from selftrain.train.stage import train
from selftrain.train.synchronized import synchronize

torch.set_num_threads(1)

ONE, TWO, THREE = (ModelSettings(decoder={"name": "light", "channels": 8}, branches=count) for count in (1, 2, 3))


class Branched(nn.Module):
    """A network of a user's own with decoders side by side; tests say what it calls them, and what else it returns."""

    def __init__(self, classes, count=2, width=6, dropout=0.0, said="tuple", attribute="branches"):
        super().__init__()
        self.said, self.attribute = said, attribute
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(dropout)
        )
        setattr(self, attribute, nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in range(count)))

    def forward(self, images):
        features = self.features(images)
        logits = tuple(decoder(features) for decoder in getattr(self, self.attribute))
        first, last = logits[0], logits[-1]
        wrong = {"fewer": (first,), "more": (*logits, first), "classes": (first, last[:, 1:]), "flat": (first, last[0])}
        wrong["sizes"] = (first, last[..., 1:])
        return (wrong | {"text": (first, "x"), "one": first, "list": list(logits)}).get(self.said, logits)


def own(**arguments):
    return ModelSettings(module="test_branches:Branched", arguments=arguments)


def segmenter(model, classes=3, seed=0):
    torch.manual_seed(seed)
    return Segmenter(model, classes)


def images(count=2, size=(32, 48), seed=0):
    return torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def batch(count, seed, size=(32, 48), classes=3):
    draw = torch.Generator().manual_seed(seed + 100)
    labels = torch.randint(0, classes, (count, *size), generator=draw, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=draw) < 0.2] = 255
    return Batch(images(count, size, seed), labels, ("x",) * count)


# Agreement


@given(count=st.integers(1, 4), classes=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_agreement_is_the_frequency_of_the_mode(count, classes, seed):
    probabilities = np.random.default_rng(seed).dirichlet([1] * classes, (count, 2, 3, 4))  # branch, image, h, w, class
    decisions = probabilities.argmax(-1)
    found = agreement([torch.from_numpy(one) for one in decisions])
    assert found.dtype == torch.uint8 and found.shape == (2, 3, 4)
    for at in np.ndindex(2, 3, 4):
        mode, _ = Counter(decisions[:, *at].tolist()).most_common(1)[0]
        f_m = sum(one == mode for one in decisions[:, *at])
        assert found[at] == f_m
        assert count != 2 or 1 - f_m / count in (0, 0.5)


@pytest.mark.parametrize("branches", range(1, 13))
def test_the_least_number_of_branches_that_make_a_share(branches):
    for number in range(1, branches + 1):
        assert least(number / branches, branches) == number
        assert least((number - 0.5) / branches, branches) == number
        assert number == branches or least((number + 0.1) / branches, branches) == number + 1


# Similarity


def decoder(seed, scale=1.0):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale)
    return layers.double()


def filters(branch):
    return np.concatenate([branch[at].weight.detach().numpy().ravel() for at in (0, 3)])


def cosine(one, other):
    return one @ other / np.sqrt((one @ one) * (other @ other))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_similarity_is_the_mean_cosine_between_filters_and_so_is_its_gradient(count):
    """d cos(a, b) / da = b / (|a| |b|) - cos(a, b) a / |a|², of each pair that a branch is in."""
    branches = [decoder(seed, scale=seed + 1) for seed in range(count)]
    flat, found = [filters(one) for one in branches], branch_similarity(branches)
    cosines = [cosine(*pair) for pair in combinations(flat, 2)]
    assert found.item() == pytest.approx(np.mean(cosines), abs=1e-12) and len(set(cosines)) == len(cosines)
    found.backward()
    for at, one in enumerate(flat):
        others = [(other, np.linalg.norm(one) * np.linalg.norm(other)) for other in flat[:at] + flat[at + 1 :]]
        closed = sum(other / lengths - cosine(one, other) * one / (one @ one) for other, lengths in others)
        gradient = np.concatenate([branches[at][layer].weight.grad.numpy().ravel() for layer in (0, 3)])
        np.testing.assert_allclose(gradient, closed / len(cosines), atol=1e-12)
        assert all(parameter.grad is None for parameter in branches[at].parameters() if parameter.ndim == 1)


def test_neither_biases_nor_scales_nor_lengths_make_branches_alike():
    one, other = decoder(0), decoder(1)
    before = branch_similarity([one, other]).item()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(5) if parameter.ndim > 1 else parameter.fill_(7)
    assert branch_similarity([one, other]).item() == pytest.approx(before, abs=1e-12) and abs(before) < 0.9
    assert branch_similarity([one, decoder(0, scale=3)]).item() == pytest.approx(1)


# The network


def test_branches_are_copies_of_the_decoder_by_name_and_not_by_weights():
    plain, model = segmenter(ONE).state_dict(), segmenter(THREE)
    state = model.state_dict()
    of_decoder = [name.removeprefix("decoder.") for name in plain if name.startswith("decoder.")]
    expected = {name for name in plain if name.startswith("encoder.")}
    assert set(state) == expected | {f"decoder.{branch}.{name}" for branch in range(3) for name in of_decoder}
    assert "classifier.weight" in of_decoder and len(expected) > 100
    for one, other in combinations(model.branches, 2):
        drawn = [(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True) if p.ndim > 1]
        assert drawn and not any(torch.equal(*pair) for pair in drawn)
    assert abs(branch_similarity(model.branches).item()) < 0.2


@pytest.mark.parametrize("model", [ONE, TWO, THREE], ids=["one", "two", "three"])
def test_a_network_says_the_mean_of_its_branches_logits(model):
    network, pixels = segmenter(model).eval(), images()
    with torch.no_grad():
        mean, std = (torch.tensor(stat).view(3, 1, 1) for stat in (model.mean, model.std))
        features = network.encoder((pixels / 255 - mean) / std)
        by_hand = [decoder.classify(decoder.hidden(features.fine, features.last)) for decoder in network.branches]
        together, apart = network(pixels), network(pixels, apart=True)
    assert len(by_hand) == len(apart.branches) == model.branches and apart.heads == {}
    torch.testing.assert_close(apart.branches, tuple(by_hand))
    torch.testing.assert_close(together, sum(by_hand) / model.branches)
    assert torch.equal(apart.logits, together)
    softly = sum(one.softmax(1) for one in by_hand) / model.branches  # what it would be after softmax
    assert torch.allclose(together.softmax(1), softly, atol=1e-6) == (model.branches == 1)


@pytest.mark.parametrize("model", [ONE, TWO, THREE, own(), own(count=3)])
def test_parts_are_the_encoder_and_all_branches(model):
    network = segmenter(model)
    network.heads["head"] = nn.Linear(2, 2)
    parts = {name: [id(p) for p in parameters] for name, parameters in network.parts().items()}
    assert sorted(parts["encoder"] + parts["decoder"]) == sorted(id(p) for p in network.parameters())
    encoder = network.encoder.network.features if model.module else network.encoder
    assert set(parts["encoder"]) == {id(p) for p in encoder.parameters()}


@pytest.mark.parametrize("model", [TWO, own()], ids=["ours", "own"])
def test_the_decoders_learning_rate_is_that_of_every_branch(model):
    network = segmenter(model)
    optimizer = stage._optimizer(network, OptimizerSettings(lr=0.1, decoder_lr_factor=10))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    of_branches = {id(p) for branch in network.branches for p in branch.parameters()}
    assert rates == {id(p): 1.0 if id(p) in of_branches else 0.1 for p in network.parameters()}


def test_a_layer_that_branches_share_is_trained_once():
    network = segmenter(own())
    network.branches[1].weight = network.branches[0].weight
    trained = [id(p) for p in network.parts()["decoder"]]
    assert sorted(trained) == sorted({id(p) for branch in network.branches for p in branch.parameters()})


# What trains them


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0)])
@pytest.mark.parametrize("model", [own(count=1), own(), own(count=3), TWO], ids=["one", "two", "three", "ours"])
def test_supervised_training_adds_the_losses_of_branches(model, weights):
    network, labeled = segmenter(model), batch(2, 1)
    class_weights = None if weights is None else torch.tensor(weights)
    algorithm = Supervised(SupervisedSettings(), Given(3, class_weights=class_weights))
    found = algorithm.loss(Step(0, 1, {"labeled": labeled}, network, None)).terms["labeled"]
    losses = [cross_entropy(one, labeled.labels, class_weights) for one in network(labeled.images, apart=True).branches]
    assert found.item() == pytest.approx(sum(losses).item(), rel=1e-6) and len(set(losses)) == len(network.branches)


@pytest.mark.parametrize("forwards", ["joint", "separate"])
@pytest.mark.parametrize("count", [1, 2])
def test_self_training_adds_the_losses_of_branches_in_both_terms(count, forwards):
    network, batches = segmenter(own(count=count)), {"labeled": batch(2, 1), "pseudo_labeled": batch(3, 2)}
    algorithm = SelfTraining(SelfTrainingSettings(forwards=forwards, weight=0.3), Given(3))
    found = algorithm.loss(Step(0, 1, batches, network, None)).terms
    shown = [one.images for one in batches.values()]
    if forwards == "joint":
        whole = network(torch.cat(shown), apart=True).branches
        said = [[one[:2] for one in whole], [one[2:] for one in whole]]
    else:
        said = [network(one, apart=True).branches for one in shown]
    sums = [sum(cross_entropy(z, one.labels) for z in of) for of, one in zip(said, batches.values(), strict=True)]
    expected = {"labeled": sums[0].item(), "pseudo_labeled": 0.3 * sums[1].item()}
    assert {name: term.item() for name, term in found.items()} == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    return tiny.split(tmp_path_factory.mktemp("data") / "labeled")


@pytest.fixture
def run(tmp_path, labeled):
    def train_in(name, **told):
        paths = tiny.outputs(tmp_path / name, labeled)
        train(tiny.stage(**{"steps": 3} | told), paths, tiny.NOW)
        return paths

    return train_in


def test_a_network_with_one_branch_knows_no_penalty(run):
    paths = [run(str(beta), branch_similarity=beta) for beta in (0.0, 0.5)]
    assert paths[0].model.read_bytes() == paths[1].model.read_bytes()
    assert "branch_similarity" not in pd.read_csv(paths[1].table)
    assert "branches" not in json.loads(paths[1].manifest.read_text())["network"]


@pytest.mark.parametrize("model", [TWO, own(dropout=0.1)], ids=["ours", "own"])
def test_a_penalty_drives_branches_apart(run, model):
    ends = {}
    for beta in (1e-9, 30.0):
        paths = run(str(beta), branch_similarity=beta, model=model, steps=10)
        table = pd.read_csv(paths.table)
        ends[beta] = branch_similarity(files.load(paths.model)[0].branches).item()
        assert table.branch_similarity.between(-1, 1).all() and (table.labeled > 0).all()
        assert json.loads(paths.manifest.read_text())["network"]["branches"] == 2
    assert ends[30.0] < ends[1e-9] - 0.05


# Files


@pytest.mark.parametrize("model", [TWO, own(), own(count=3, said="list")], ids=["two", "own", "three"])
def test_a_model_file_keeps_branches(tmp_path, model):
    network = segmenter(model).eval()
    files.save(tmp_path / "model.safetensors", network, model, ("a", "b", "c"), step=1)
    again, about = files.load(tmp_path / "model.safetensors")
    assert len(again.branches) == len(network.branches) and about["model"]["branches"] == model.branches
    assert torch.equal(again(images()), network(images()))


def test_branches_start_on_the_encoder_of_a_plain_model_and_stay_different(tmp_path, caplog):
    plain, other = tiny.save_model(tmp_path / "plain.safetensors", ONE, seed=1), segmenter(TWO)
    drawn = {name: tensor.clone() for name, tensor in other.decoder.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        files.start_from(other, tmp_path / "plain.safetensors")
    assert "new values for decoder.0." in caplog.text and "not used: decoder." in caplog.text
    state = plain.encoder.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.encoder.state_dict().items())
    assert all(torch.equal(tensor, drawn[name]) for name, tensor in other.decoder.state_dict().items())


# Networks of one's own


@pytest.mark.parametrize("said", ["tuple", "list"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_network_of_ones_own_brings_its_branches(count, said):
    network, pixels = segmenter(own(count=count, said=said)).eval(), images()
    logits = network.encoder.network((pixels / 255 - network.mean) / network.std)
    assert network.branches == list(network.encoder.network.branches) and len(network.branches) == count
    assert network.describe()["branches"] == count
    torch.testing.assert_close(network(pixels, apart=True).branches, tuple(logits))
    torch.testing.assert_close(network(pixels), sum(logits) / count)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"attribute": "decoders"}, "it returns logits of 2 branch.* and has 1 by its attribute 'branches'"),
        ({"said": "fewer"}, "it returns logits of 1 branch.* and has 2 by its attribute 'branches'"),
        ({"said": "more"}, "it returns logits of 3 branch.* and has 2 by its attribute 'branches'"),
        ({"said": "one"}, "has 2 by its attribute 'branches'; .* or rename"),
        ({"said": "classes"}, r"its output is \(2, 2, 16, 24\); logits \(B, 3, h, w\) of each branch are needed"),
        ({"said": "flat"}, r"its output is \(3, 16, 24\); logits"),
        ({"said": "text"}, "its output is str; logits"),
        ({"said": "sizes"}, "its branches' logits have the shapes"),
    ],
    ids=str,
)
def test_outputs_that_are_not_those_of_the_branches_are_told(arguments, told):
    with pytest.raises(UserError, match=rf"^model\.module: .*{told}"):
        segmenter(own(**arguments))(images())


# Pyramid pooling


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 14), width=st.integers(1, 14), bins=st.integers(1, 8))
def test_grid_means_are_adaptive_average_pooling(height, width, bins):
    draw = torch.Generator().manual_seed(height * 1000 + width * 10 + bins)
    ours, theirs = (torch.randn(2, 3, height, width, generator=draw.manual_seed(0)).requires_grad_() for _ in "ab")
    pooled, expected = grid_means(ours, bins), F.adaptive_avg_pool2d(theirs, bins)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    upstream = torch.randn(pooled.shape, generator=draw)
    pooled.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_pyramid_pooling_classifies_the_map_and_its_averages_together():
    torch.manual_seed(0)
    pooling = PyramidPooling(PyramidPoolingSettings(bins=(3, 2, 1)), (8, 12), 5).eval()
    for normalization in (thin[1] for thin in pooling.thinned):
        for tensor in (normalization.running_mean, normalization.weight.data, normalization.bias.data):
            tensor.copy_(torch.randn(4))
        normalization.running_var.copy_(torch.rand(4) + 0.5)
    last = torch.randn(2, 12, 7, 10)
    stack = [last]
    for thin, bins in zip(pooling.thinned, (3, 2, 1), strict=True):
        grid = torch.zeros(2, 4, bins, bins)
        for row, column in np.ndindex(bins, bins):
            rows = slice(row * 7 // bins, -(-(row + 1) * 7 // bins))
            columns = slice(column * 10 // bins, -(-(column + 1) * 10 // bins))
            channels = last[:, :, rows, columns].mean((2, 3)) @ thin[0].weight[:, :, 0, 0].T
            spread = (thin[1].running_var + thin[1].eps).sqrt()
            normalized = (channels - thin[1].running_mean) / spread * thin[1].weight + thin[1].bias
            grid[:, :, row, column] = normalized.clamp(min=0)
        stack.append(F.interpolate(grid, size=(7, 10), mode="bilinear", align_corners=False))
    hidden = pooling.hidden(None, last)
    assert hidden.shape == (2, 12 + 3 * 4, 7, 10)
    torch.testing.assert_close(hidden, torch.cat(stack, 1), atol=1e-5, rtol=1e-5)
    kernel = pooling.classifier.weight[:, :, 0, 0]
    expected = torch.einsum("kc,bchw->bkhw", kernel, torch.cat(stack, 1)) + pooling.classifier.bias[:, None, None]
    torch.testing.assert_close(pooling.classify(hidden), expected, atol=1e-5, rtol=1e-5)


def test_the_papers_network_is_two_pyramids_on_a_dilated_resnet():
    settings = ModelSettings(encoder="resnet18", output_stride=8, decoder="pyramid_pooling", branches=2)
    network = segmenter(settings, 19).eval()
    assert network.describe()["strides"][-1] == 8 and len(network.branches) == 2
    last_blocks = [network.encoder.body[f"layer{number}"][-1].conv2.dilation for number in (2, 3, 4)]
    assert last_blocks == [(1, 1), (2, 2), (4, 4)]
    for branch in network.branches:
        assert isinstance(branch, PyramidPooling) and branch.bins == (6, 3, 2, 1)
        assert branch.classifier.weight.shape == (19, 512 + 4 * 128, 1, 1)
    with torch.no_grad():
        assert network(images(1, (64, 96))).shape == (1, 19, 8, 12)


def test_a_single_image_has_no_batch_statistics_of_its_mean():
    last = torch.randn(1, 8, 5, 5)
    whole, coarse = (PyramidPooling(PyramidPoolingSettings(bins=bins), (8, 8), 3) for bins in ((2, 1), (3, 2)))
    with pytest.raises(UserError, match=r"^model\.decoder: pyramid_pooling.* raise train\.batch_size"):
        whole.hidden(None, last)
    assert whole.hidden(None, last.expand(2, -1, -1, -1)).shape == (2, 16, 5, 5)
    shared = PyramidPooling(PyramidPoolingSettings(bins=(2, 1)), (8, 8), 3)
    assert synchronize(shared, torch.device("cpu")).hidden(None, last.expand(2, -1, -1, -1)).isfinite().all()
    shared.hidden(None, last)  # the rest of the batch is another process's
    assert whole.eval().hidden(None, last).shape == coarse.hidden(None, last).shape == (1, 16, 5, 5)
