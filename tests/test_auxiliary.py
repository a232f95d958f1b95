"""PSPNet's auxiliary classifier: its loss, that every algorithm trains it, and that nothing else knows of it."""

import logging

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn import functional as F

from selftrain.data.batches import Batch
from selftrain.models import files
from selftrain.models.auxiliary import Auxiliary, auxiliary
from selftrain.models.encoders import Maps
from selftrain.models.segmenter import AUXILIARY, Outputs, Segmenter
from selftrain.settings.curriculum import CurriculumSettings
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.settings.model import AuxiliarySettings, ModelSettings
from selftrain.settings.training import SelfTrainingSettings, SupervisedSettings
from selftrain.train import stage
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.curriculum import Curriculum
from selftrain.train.algorithms.mean_teacher_mixing import MeanTeacherMixing
from selftrain.train.algorithms.self_training import SelfTraining
from selftrain.train.algorithms.supervised import Supervised
from selftrain.train.losses import cross_entropy, of_outputs

SMALL = {"encoder": "mobilenetv3_small_050", "decoder": {"name": "light", "channels": 8}}
SIZE = (64, 64)
HEAD = f"heads.{AUXILIARY}."


def model(weight=0.4, **told):
    return ModelSettings(**SMALL | told, auxiliary={"weight": weight, "channels": 8})


def network(settings, seed=0):
    """With the head, as training makes it."""
    torch.manual_seed(seed)
    segmenter = Segmenter(settings, 3)
    segmenter.heads.update(auxiliary(segmenter, settings, 3))
    return segmenter


def batch(count, seed, size=(8, 8)):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, *size), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, 3, (count, *size), generator=draw, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=draw) < 0.2] = 255
    return Batch(images, labels, ("x",) * count)


# Settings


def test_it_is_off_unless_asked_for_and_true_is_pspnets():
    assert ModelSettings().auxiliary is None and ModelSettings(auxiliary=False).auxiliary is None
    told = ModelSettings(auxiliary=True).auxiliary
    assert (told.weight, told.channels, told.dropout) == (0.4, 256, 0.1)
    with pytest.raises(ValidationError, match="auxiliary\n  needs the features of an 'encoder'"):
        ModelSettings(module="a:b", auxiliary=True)


# The classifier and its loss


def test_the_classifier_is_two_convolutions_of_the_second_last_map():
    torch.manual_seed(0)
    head = Auxiliary(AuxiliarySettings(channels=5), 6, 3).eval()
    features = torch.randn(2, 6, 4, 7)
    convolution, norm = head.hidden[0], head.hidden[1]
    norm.running_mean.normal_()
    hidden = F.conv2d(features, convolution.weight, padding=1) - norm.running_mean.view(-1, 1, 1)
    expected = F.conv2d((hidden / (1 + norm.eps) ** 0.5).relu(), head.classifier.weight, head.classifier.bias)
    torch.testing.assert_close(head(Maps(None, features, None)), expected)
    assert not torch.equal(head.train()(Maps(None, features, None)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(Maps(None, features, None)).dtype == torch.float32


def test_its_loss_is_added_by_its_weight():
    """Of one pixel: -log softmax, by hand."""
    logits = [torch.tensor(of).view(1, 2, 1, 1) for of in ([0.0, 0.0], [1.0, 0.0], [0.0, 2.0])]
    labels = torch.zeros(1, 1, 1, dtype=torch.uint8)
    outputs = Outputs(tuple(logits[:2]), {"other": torch.zeros(1), AUXILIARY: logits[2]}, 0.4)
    expected = np.log(2) + np.log(1 + np.exp(-1)) + 0.4 * np.log(1 + np.exp(2))
    assert of_outputs(lambda z: cross_entropy(z, labels), outputs).item() == pytest.approx(expected)
    bare = of_outputs(lambda z: cross_entropy(z, labels), outputs._replace(heads={}))
    assert bare.item() == pytest.approx(np.log(2) + np.log(1 + np.exp(-1)))
    assert torch.equal(outputs.logits, (logits[0] + logits[1]) / 2)


def terms(name, said):
    """The terms of a step in which the network says of every batch what `said` makes of its images' number."""
    given, batches = Given(3), {"labeled": batch(2, 1), "unlabeled": batch(2, 2)}
    if name == "supervised":
        algorithm, batches = Supervised(SupervisedSettings(), given), {"labeled": batch(2, 1)}
    elif name in ("joint", "separate"):
        algorithm = SelfTraining(SelfTrainingSettings(forwards=name, weight=0.5), given)
        batches = {"labeled": batch(2, 1), "pseudo_labeled": batch(2, 2)}
    elif name == "curriculum":
        settings = CurriculumSettings(target_easy_mining=False, source_hard_mining=False)
        algorithm, batches = Curriculum(settings, given), {"labeled": batch(2, 1)}
    else:
        settings = MeanTeacherMixingSettings(loss=name.partition(" ")[2], threshold=0.5)
        algorithm = MeanTeacherMixing(settings, given)

    def student(images, *, apart):
        return said(len(images))

    def teacher(images):
        return 5 * logits(9)(len(images))

    return algorithm.loss(Step(0, 1, batches, student, teacher)).terms


def logits(seed):
    """As a network would say of up to four images."""
    whole = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return lambda count: whole[:count]


ALGORITHMS = ["supervised", "joint", "separate", "curriculum", "mixing cross_entropy", "mixing squared_error"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_adds_the_same_loss_of_it(name):
    main, second = logits(1), logits(2)
    found = terms(name, lambda count: Outputs((main(count),), {AUXILIARY: second(count)}, 0.3))
    alone = [terms(name, lambda count, of=of: Outputs((of(count),), {})) for of in (main, second)]
    assert found.keys() == alone[0].keys()
    for term in found:
        assert found[term].item() == pytest.approx((alone[0][term] + 0.3 * alone[1][term]).item(), rel=1e-5)
        assert alone[1][term] > 0


def test_the_curriculum_teaches_it_what_the_branches_say_of_easy_pixels():
    branches, second, unlabeled = [logits(seed)(2) for seed in (1, 2)], logits(3)(2), batch(2, 5, (4, 4))
    outputs = Outputs(tuple(branches), {AUXILIARY: second}, 0.3)
    algorithm = Curriculum(CurriculumSettings(), Given(3))
    found = algorithm.loss(Step(0, 1, {"unlabeled": unlabeled}, lambda images, apart: outputs, None)).terms
    agreed = (branches[0].argmax(1) == branches[1].argmax(1)) & (unlabeled.labels != 255)
    taught = torch.where(agreed, sum(branches).argmax(1), 255)
    losses = [F.cross_entropy(z, taught, ignore_index=255) for z in (*branches, second)]
    assert found["unlabeled"].item() == pytest.approx((losses[0] + losses[1] + 0.3 * losses[2]).item(), rel=1e-5)


# A network with it


def test_the_network_says_the_same_with_it_and_learns_it_with_the_decoder():
    settings = model()
    with_it, images = network(settings).eval(), batch(2, 0, SIZE).images
    torch.manual_seed(0)
    bare = Segmenter(ModelSettings(**SMALL), 3).eval()
    with torch.inference_mode():
        outputs = with_it(images, apart=True)
        assert torch.equal(bare(images), with_it(images)) and torch.equal(outputs.logits, with_it(images))
        features = with_it.encoder((images / 255 - with_it.mean) / with_it.std)
        torch.testing.assert_close(outputs.heads[AUXILIARY], with_it.heads[AUXILIARY](features))
    assert outputs.heads[AUXILIARY].shape[2:] == features.second_last.shape[2:]
    decoder = {id(p) for p in with_it.parts()["decoder"]}
    assert {id(p) for p in with_it.heads.parameters()} < decoder
    assert with_it.describe()["parameters"] == bare.describe()["parameters"]


def gradients(of, images, labels):
    torch.manual_seed(1)
    of_outputs(lambda z: cross_entropy(z, labels), of.train()(images, apart=True)).backward()
    return {name: p.grad for name, p in of.named_parameters() if not name.startswith("heads.")}


def test_without_weight_the_gradient_is_that_of_a_network_without_it():
    shown = batch(2, 0, SIZE)
    torch.manual_seed(0)
    bare = gradients(Segmenter(ModelSettings(**SMALL), 3), shown.images, shown.labels)
    none, some = (gradients(network(model(weight)), shown.images, shown.labels) for weight in (0, 0.4))
    assert all(torch.equal(none[name], bare[name]) for name in bare)
    assert all(torch.equal(some[name], bare[name]) for name in bare if name.startswith("decoder"))
    stem = "encoder.body.conv_stem.weight"
    assert not torch.equal(some[stem], bare[stem])


# Files and training


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    table = tiny.split(folder / "labeled", (SIZE,) * 4)
    unlabeled = tiny.split(folder / "unlabeled", (SIZE,) * 4, seed=1, label_files=False)
    names = pd.read_csv(unlabeled).image.to_list()
    labels = [tiny.blocks(SIZE, 1000 + number, cell=16) for number in range(4)]
    path = tiny.write_pseudo_labels(folder / "pseudo_labels.h5", names, labels)
    return {"labeled": table, "unlabeled": unlabeled, "pseudo_labels": path}


def settings(algorithm="supervised", told=None, steps=3, **train_options):
    small = {"crop": (48, 48)}
    return tiny.stage(algorithm, told or model(), augmentation=small, steps=steps, **train_options)


LEARNERS = {
    "supervised": {},
    "self_training": {},
    "weak_labels": {"channels": 8, "hidden": 8},
    "hybrid": {},
    "mean_teacher_mixing": {},
    "curriculum": {"target_easy_mining": False, "source_hard_mining": False},
}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_training_keeps_it_in_the_file_and_predicting_has_none(run, name):
    teacher = {"teacher": {}, "evaluate": "teacher"} if name == "mean_teacher_mixing" else {}
    before, after = (run(f"{n}", settings({"name": name} | LEARNERS[name], steps=n, **teacher)) for n in (0, 2))
    old, new = load_file(before.model), load_file(after.model)
    learned = [key for key in new if key.startswith(HEAD) and key.endswith("weight")]
    assert len(learned) == 3 and not any(torch.equal(old[key], new[key]) for key in learned)
    loaded, about = files.load(after.model)
    assert not loaded.heads and about["model"]["auxiliary"]["weight"] == 0.4
    assert pd.read_json(after.manifest, typ="series").network["head_parameters"] > 0


def test_the_next_round_goes_on_with_it(run, caplog):
    caplog.set_level(logging.INFO)
    first = run("first", settings())
    second = run("second", settings("self_training", steps=0), start=first.model)
    assert "auxiliary" not in caplog.text
    assert all(torch.equal(tensor, load_file(second.model)[name]) for name, tensor in load_file(first.model).items())
    run("bare", settings(told=ModelSettings(**SMALL), steps=0), start=first.model)
    assert f"not used: {HEAD}" in caplog.text and "WARNING" not in caplog.text


def test_without_weight_training_is_that_of_a_network_without_it(run):
    """Bit for bit: weights, batch-norm statistics and losses."""
    bare, none = (run(name, settings(told=told)) for name, told in (("b", ModelSettings(**SMALL)), ("n", model(0.0))))
    expected = load_file(bare.model)
    found = {name: tensor for name, tensor in load_file(none.model).items() if not name.startswith(HEAD)}
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []
    assert pd.read_csv(bare.table).labeled.equals(pd.read_csv(none.table).labeled)


def test_killed_and_resumed_it_ends_the_same(run, kill, monkeypatch, caplog):
    monkeypatch.setattr(stage, "LOGGED_EVERY", 2)
    told = settings(steps=6, teacher={"decay": 0.5}, evaluate="teacher")
    whole = run("whole", told)
    kill(3)
    with pytest.raises(tiny.Killed):
        run("killed", told)
    kill()
    caplog.set_level(logging.INFO)
    killed = run("killed", told)
    assert "going on from step 2" in caplog.text
    assert killed.model.read_bytes() == whole.model.read_bytes()
