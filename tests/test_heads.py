"""The multi-task network of MLSL: its image classifier, how that is kept in files, and training with it."""

import logging

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from selftrain.errors import UserError
from selftrain.models import files
from selftrain.models.encoders import Maps
from selftrain.models.heads import ImageClassifier
from selftrain.models.segmenter import Segmenter
from selftrain.settings.model import ModelSettings
from selftrain.train import stage

MODEL = ModelSettings(encoder="mobilenetv3_small_050", decoder={"name": "light", "channels": 16})
CLASSES, SIZE = tiny.CLASSES, (64, 64)
MEAN_SIZE = (0.3, 0.2, 0.0)
HEAD = "heads.image_classifier."
TERMS = ["labeled", "pseudo_labeled", "labeled_classes", "pseudo_labeled_classes"]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def images(*size, count=2):
    return torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def with_head(channels=8, hidden=8, seed=0):
    """A network with a new head, as training makes it."""
    torch.manual_seed(seed)
    network = Segmenter(MODEL, 3).eval()
    network.heads["image_classifier"] = ImageClassifier(network.feature_channels.last, channels, hidden, 3)
    return network


# The image classifier (section 4.1.2)


@pytest.mark.parametrize("classes", [16, 19])
def test_the_papers_classifier_has_its_number_of_parameters(classes):
    with torch.device("meta"):
        head = ImageClassifier(4096, 2048, 512, classes)
    convolutions = (4096 * 2048 + 2048) + (2048 * 2048 * 9 + 2048)
    assert parameters(head) == convolutions + (2048 * 512 + 512) + (512 * classes + classes)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 9)])
def test_the_classifier_takes_features_of_any_size_and_is_what_the_paper_says(size):
    torch.manual_seed(0)
    head, features = ImageClassifier(6, 5, 4, 3), torch.randn(2, 6, *size)
    (one, two), (first, last) = (
        [list(layer.parameters()) for layer in layers if list(layer.parameters())]
        for layers in (head.convolutions, head.layers)
    )
    assert one[0].shape == (5, 6, 1, 1) and two[0].shape == (5, 5, 3, 3)
    maps = F.conv2d(F.conv2d(features, *one).relu(), *two, padding=1).relu()
    assert maps.shape == (2, 5, *size)
    expected = maps.mean((2, 3)) @ first[0].T + first[1]
    expected = expected.relu() @ last[0].T + last[1]
    said = head(Maps(None, None, features))
    assert said.shape == (2, 3)
    torch.testing.assert_close(said, expected)


# A network with a head


def test_the_head_changes_nothing_of_the_logits():
    network = with_head()
    with torch.inference_mode():
        outputs = network(images(50, 67), apart=True)
        assert torch.equal(network(images(50, 67)), outputs.logits)
        features = network.encoder((images(50, 67) / 255 - network.mean) / network.std)
        assert list(outputs.heads) == ["image_classifier"]
        torch.testing.assert_close(outputs.heads["image_classifier"], network.heads["image_classifier"](features))
        assert Segmenter(MODEL, 3).eval()(images(50, 67), apart=True).heads == {}


def test_the_head_learns_with_the_decoder_and_is_not_counted():
    network, bare = with_head(), Segmenter(MODEL, 3)
    parts = {name: {id(p) for p in of_part} for name, of_part in network.parts().items()}
    head = {id(p) for p in network.heads.parameters()}
    assert len(head) == 8 and head < parts["decoder"] and not head & parts["encoder"]
    assert sum(len(of_part) for of_part in parts.values()) == len(list(network.parameters()))
    assert network.describe()["parameters"] == bare.describe()["parameters"] == parameters(bare)
    assert network.describe()["head_parameters"] == parameters(network) - parameters(bare)
    assert "head_parameters" not in bare.describe()


# Model files


@pytest.fixture
def saved(tmp_path):
    """Writes a network and returns its file."""

    def save(network, name="model"):
        files.save(tmp_path / f"{name}.safetensors", network, MODEL, CLASSES, step=0)
        return tmp_path / f"{name}.safetensors"

    return save


def test_a_file_keeps_the_head_and_predicting_has_none(saved):
    network = with_head()
    file = saved(network)
    state = load_file(file)
    kept = {name.removeprefix(HEAD): tensor for name, tensor in state.items() if name.startswith("heads.")}
    own = network.heads["image_classifier"].state_dict()
    assert kept.keys() == own.keys() and all(torch.equal(tensor, own[name]) for name, tensor in kept.items())
    loaded, _ = files.load(file)
    assert not loaded.heads and parameters(loaded) == parameters(Segmenter(MODEL, 3))
    with torch.inference_mode():
        assert torch.equal(loaded(images(64, 64)), network(images(64, 64), apart=True).logits)


def told(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_the_next_round_goes_on_with_the_head(saved, caplog):
    caplog.set_level(logging.INFO)
    before, after = with_head(seed=0), with_head(seed=1)
    file = saved(before)
    assert not torch.equal(after.heads["image_classifier"].layers[0].weight, load_file(file)[HEAD + "layers.0.weight"])
    files.start_from(after, file)
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in after.state_dict().items())
    assert not told(caplog, logging.WARNING) and not told(caplog, logging.INFO)


@pytest.mark.parametrize("which", ["new values for", "not used:"])
def test_a_head_that_only_one_side_has_is_told_without_a_warning(saved, caplog, which):
    caplog.set_level(logging.INFO)
    bare, network = Segmenter(MODEL, 3), with_head()
    theirs, ours = (bare, network) if which == "new values for" else (network, bare)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    files.start_from(ours, saved(theirs))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, before[name] if name.startswith("heads.") else theirs.state_dict()[name]), name
    (message,) = told(caplog, logging.INFO)
    assert f"{which} {HEAD}convolutions.0.bias" in message and not told(caplog, logging.WARNING)


def test_weights_of_a_head_of_another_size_are_new(saved, caplog):
    caplog.set_level(logging.INFO)
    theirs, ours = with_head(channels=8, hidden=8), with_head(channels=16, hidden=12, seed=1)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    files.start_from(ours, saved(theirs))
    after, state = ours.state_dict(), theirs.state_dict()
    other = [name for name, tensor in after.items() if tensor.shape != state[name].shape]
    assert len(other) == 7 and all(name.startswith(HEAD) for name in other)
    assert all(torch.equal(after[name], before[name] if name in other else state[name]) for name in after)
    assert [message.partition(": ")[2].partition(" heads")[0] for message in told(caplog, logging.INFO)] == [
        "new values for",
        "not used:",
    ]
    assert not told(caplog, logging.WARNING)


# Training


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four labeled images, and four pseudo-labeled ones of which one is ignored as a whole."""
    folder = tmp_path_factory.mktemp("data")
    table = tiny.split(folder / "labeled", (SIZE,) * 4)
    unlabeled = tiny.split(folder / "unlabeled", (SIZE,) * 4, seed=1, label_files=False)
    labels = [tiny.blocks(SIZE, 1000 + number, cell=16) for number in range(3)] + [np.full(SIZE, 255, np.uint8)]
    names = pd.read_csv(unlabeled).image.to_list()
    path = tiny.write_pseudo_labels(folder / "pseudo_labels.h5", names, labels, mean_size=MEAN_SIZE)
    return {"labeled": table, "unlabeled": unlabeled, "pseudo_labels": path}


def settings(steps=5, model=MODEL, optimizer=None, name="weak_labels", batch_size=4, told=None, **train_options):
    """A few steps on crops; `told` is for the algorithm."""
    head = {"channels": 8, "hidden": 8} if name == "weak_labels" else {}
    algorithm = {"name": name} | head | (told or {})
    small = {"crop": (48, 48)}
    return tiny.stage(
        algorithm, model, optimizer=optimizer, augmentation=small, steps=steps, batch_size=batch_size, **train_options
    )


def without_head(path):
    return {name: tensor for name, tensor in load_file(path).items() if not name.startswith("heads.")}


def test_weak_labels_learn_from_both(run):
    paths = run("learn", settings(30, optimizer={"lr": 0.01}, told={"classification_weight": 1}))
    table = pd.read_csv(paths.table)
    assert table.columns.to_list() == ["step", *TERMS, "learning_rate", "images_per_second"]
    assert (table.iloc[-1][TERMS] < table.iloc[0][TERMS]).all()
    assert files.load(paths.model)[1]["step"] == 30
    assert pd.read_json(paths.manifest, typ="series").network["head_parameters"] > 0


def cross_entropy(logits, labels):
    """Minus the log-probability of its class, mean over the labeled pixels."""
    large = F.interpolate(logits.double(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    probability = (large - large.amax(1, keepdim=True)).exp()
    probability = probability / probability.sum(1, keepdim=True)
    classes = [probability[:, index][labels == index] for index in range(3)]
    return -torch.cat(classes).log().mean()


def equation_five(said, labels, least):
    """Mean over the crops of which anything is labeled; a class is shown above `least` of the crop."""
    losses = []
    for scores, crop in zip(said.double(), labels, strict=True):
        total = 0.0
        for index, z in enumerate(scores):
            c = float((crop == index).sum().item() > least[index] * crop.numel())
            total = total + c * torch.sigmoid(z).log() + (1 - c) * torch.sigmoid(-z).log()
        if (crop != 255).any():
            losses.append(-total / len(scores))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("forwards", ["joint", "separate"])
def test_a_step_goes_down_equation_seven(run, monkeypatch, forwards):
    """Each stream's term of equation 6, the sum of equation 7, and plain SGD on it."""
    batches, advance = {}, stage._Run.advance

    def recording(self, drawn):
        batches.update({name: batch.to(torch.device("cpu")) for name, batch in drawn.items()})
        return advance(self, drawn)

    monkeypatch.setattr(stage._Run, "advance", recording)
    weight, lambda_, eta = 0.5, 0.3, 0.9
    told = {"forwards": forwards, "weight": weight, "classification_weight": lambda_, "eta": eta}
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0, "weight_decay": 0}
    start, end = (run(f"{n}", settings(n, batch_size=8, optimizer=sgd, told=told)) for n in (0, 1))
    network = with_head().train()
    network.load_state_dict(load_file(start.model))
    labeled, pseudo = (batches[stream] for stream in ("labeled", "pseudo_labeled"))
    if forwards == "joint":
        together = network(torch.cat([labeled.images, pseudo.images]), apart=True)
        logits, said = together.logits.chunk(2), together.heads["image_classifier"].chunk(2)
    else:
        outputs = [network(batch.images, apart=True) for batch in (labeled, pseudo)]
        logits, said = [of.logits for of in outputs], [of.heads["image_classifier"] for of in outputs]
    least = [eta * size for size in MEAN_SIZE]
    expected = {
        "labeled": cross_entropy(logits[0], labeled.labels),
        "pseudo_labeled": weight * cross_entropy(logits[1], pseudo.labels),
        "labeled_classes": lambda_ * equation_five(said[0], labeled.labels, [0, 0, 0]),
        "pseudo_labeled_classes": weight * lambda_ * equation_five(said[1], pseudo.labels, least),
    }
    row = pd.read_csv(end.table).iloc[0]
    assert row[TERMS].to_list() == pytest.approx([expected[name].item() for name in TERMS], rel=1e-4)
    # So that something of each kind was among them: an unknown crop, and a class below its least size.
    shares = torch.stack([(pseudo.labels == index).float().mean((1, 2)) for index in range(3)], 1)
    assert (shares.sum(1) == 0).any() and ((shares > 0) & (shares <= torch.tensor(least))).any()
    sum(expected.values()).backward()
    moved = load_file(end.model)
    for name, value in network.named_parameters():
        torch.testing.assert_close(moved[name], value.detach() - 0.1 * value.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("forwards", ["joint", "separate"])
def test_a_classifier_of_no_weight_changes_nothing_else(run, forwards):
    """Bit for bit: weights, batch-norm statistics and losses."""
    plain = run("plain", settings(3, name="self_training", told={"forwards": forwards}))
    none, some = (
        run(f"{weight}", settings(3, told={"forwards": forwards, "classification_weight": weight})) for weight in (0, 1)
    )
    expected, found = load_file(plain.model), without_head(none.model)
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []
    tables = [pd.read_csv(paths.table) for paths in (plain, none)]
    assert tables[0][["labeled", "pseudo_labeled"]].equals(tables[1][["labeled", "pseudo_labeled"]])
    taught = without_head(some.model)
    assert any(not torch.equal(tensor, taught[name]) for name, tensor in expected.items() if "encoder" in name)


@pytest.mark.parametrize("options", [{}, {"teacher": {"decay": 0.5}, "evaluate": "teacher"}])
def test_killed_and_resumed_it_ends_the_same(run, kill, monkeypatch, caplog, options):
    monkeypatch.setattr(stage, "LOGGED_EVERY", 2)
    told = settings(6, **options)
    whole = run("whole", told)
    for alive in (3, 2):
        kill(alive)
        with pytest.raises(tiny.Killed):
            run("killed", told)
    kill()
    caplog.set_level(logging.INFO)
    killed = run("killed", told)
    assert "going on from step 4" in caplog.text
    assert any(name.startswith(HEAD) for name in load_file(whole.model))
    assert killed.model.read_bytes() == whole.model.read_bytes()
    tables = [pd.read_csv(paths.table).drop(columns="images_per_second") for paths in (killed, whole)]
    pd.testing.assert_frame_equal(*tables)


def test_rounds_hand_the_head_on_and_other_algorithms_drop_it(run):
    first = run("first", settings(2))
    again, plain = (
        run(name, settings(0, name=name), start=first.model).model for name in ("weak_labels", "self_training")
    )
    state = load_file(first.model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(again).items())
    assert load_file(again).keys() == state.keys()
    assert load_file(plain).keys() == without_head(first.model).keys() < state.keys()


def test_weak_labels_without_pseudo_labels_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="algorithm 'weak_labels' needs pseudo-labels, and the mean size of each class"):
        run("none", settings(), unlabeled=None, pseudo_labels=None)
    with pytest.raises(UserError, match="needs the unlabeled split and its pseudo-labels"):
        run("none", settings(), unlabeled=None)
    assert not (tmp_path / "none").exists()


def test_a_network_of_ones_own_has_no_place_for_the_head(run, tmp_path):
    with pytest.raises(UserError, match=r"model\.module: .* no encoder that a head could be put on"):
        run("own", settings(model=tiny.MODEL))
    assert not (tmp_path / "own").exists()
