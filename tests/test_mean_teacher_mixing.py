"""The loss of one step, with networks whose answers are given; trainings are in test_mixing_training."""

import math
from itertools import product

import numpy as np
import pytest
import tiny
import torch
from mixtures import CLASSES, PLACE, SIZE, SOURCE, TARGET, TAU, batch, generator, logits, make, scene
from torch import nn

from selftrain.data.batches import Batch
from selftrain.models.segmenter import Segmenter
from selftrain.settings.training import TeacherSettings
from selftrain.train.algorithms import Step
from selftrain.train.mixing import paste_mask
from selftrain.train.teacher import Teacher

across_both = pytest.mark.parametrize("across", [TARGET, SOURCE])


# The loss, pixel by pixel


def softmax(z):
    odds = np.exp(z - z.max(0))
    return odds / odds.sum(0)


def reference(told, step, class_weights=(1,) * CLASSES):
    """The mixed term and its facts, from the equations, in float64 and plain loops."""
    labeled, unlabeled = step.batches["labeled"].labels.numpy(), step.batches["unlabeled"].labels.numpy()
    taught = [softmax(one) for one in step.teacher.answers[0].double().numpy()]
    count, area = len(unlabeled), list(np.ndindex(*SIZE))
    pseudo, sure = np.full((count, *SIZE), 255, np.uint8), np.zeros((count, *SIZE))
    for item, at in product(range(count), area):
        if unlabeled[item][at] != 255:
            pseudo[item][at] = taught[item][:, *at].argmax()
            sure[item][at] = taught[item][:, *at].max() > told.threshold
    share = sure.sum() / (unlabeled != 255).sum()
    weight, scale = told.weight, told.weight.scale
    if weight.name == "sigmoid_rampup":
        left = max(0, 1 - step.number / (weight.until * step.steps))
        scale *= math.exp(-weight.c * left**2)
    from_source = told.across == SOURCE
    above = labeled[np.arange(count) % len(labeled)] if from_source else pseudo
    mask = paste_mask(torch.from_numpy(above), CLASSES, told.mixing, (*PLACE, "mixing", step.number))
    loss, weights, valid, norm = 0.0, 0.0, 0, 0.0
    for item, at in product(range(count), area):
        pasted = bool(mask[item][at])
        source = item if pasted or from_source else (item + 1) % count
        label = int((above if pasted else pseudo)[source][at])
        if label == 255:
            continue
        of_truth = pasted and from_source
        factor = scale
        if weight.name == "threshold_proportional" and not (of_truth and weight.pasted == "full"):
            factor *= share
        if weight.name == "pixelwise" and not of_truth:
            factor *= sure[source][at]
        wanted = np.eye(CLASSES)[label]
        if told.pseudo_labels == "soft" and not of_truth:
            wanted = taught[source][:, *at]
        said = softmax(step.student.answers[1][item][:, *at].detach().double().numpy())
        if told.loss == "squared_error":
            loss += factor * ((said - wanted) ** 2).sum()
            norm += 1
        else:
            loss -= factor * (class_weights * wanted * np.log(said)).sum()
            norm += (class_weights * wanted).sum()
        weights += factor
        valid += 1
    return {"mixed": loss / norm, "share_above_threshold": share, "mixed_weight": weights / valid}


WEIGHTS = [
    {"name": "threshold_proportional", "scale": 0.8},
    {"name": "threshold_proportional", "pasted": "full", "scale": 0.8},
    {"name": "pixelwise", "scale": 0.8},
    {"name": "sigmoid_rampup", "scale": 0.8, "until": 0.5, "c": 3},
    {"name": "constant", "scale": 0.8},
]
TAUGHT = list(product(("hard", "soft"), ("cross_entropy", "squared_error")))


@across_both
@pytest.mark.parametrize(("pseudo_labels", "loss"), TAUGHT)
@pytest.mark.parametrize("mixing", ["classmix", "cutmix"])
def test_the_mixed_term_is_that_of_the_equations(across, pseudo_labels, loss, mixing):
    for weight in WEIGHTS:
        algorithm = make(across=across, pseudo_labels=pseudo_labels, loss=loss, mixing=mixing, weight=weight)
        step = scene(labeled=2)
        found = algorithm.loss(step)
        for name, value in reference(algorithm.settings, step).items():
            assert (found.terms | found.facts)[name].item() == pytest.approx(value, rel=1e-5), (weight, name)
        assert list(found.terms) == ["labeled", "mixed"]


@across_both
@pytest.mark.parametrize("pseudo_labels", ["hard", "soft"])
def test_class_weights_count_in_both_terms(across, pseudo_labels):
    weights, step = (0.5, 2, 0, 1), scene()
    algorithm = make({"class_weights": torch.tensor(weights)}, across=across, pseudo_labels=pseudo_labels)
    found = algorithm.loss(step)
    assert found.terms["mixed"].item() == pytest.approx(reference(algorithm.settings, step, weights)["mixed"], rel=1e-5)
    labeled = step.batches["labeled"].labels.long()
    expected = nn.functional.cross_entropy(step.student.answers[0], labeled, torch.tensor(weights), ignore_index=255)
    assert found.terms["labeled"].item() == pytest.approx(expected.item(), rel=1e-5)


# Weights


def certain(*counts):
    """The teacher's logits of one image of 30 pixels per count: of so many it is sure, of the others just not."""
    sure = torch.stack([(torch.arange(30) < count).view(3, 10) for count in counts])
    high, low = (math.log(p / (1 - p) * (CLASSES - 1)) for p in (TAU + 0.01, TAU - 0.01))
    return torch.where(sure, high, low)[:, None] * torch.tensor([0, 1.0, 0, 0]).view(1, -1, 1, 1)


def blank(*counts):
    """Unlabeled images of 30 pixels, so many of which are valid: the first ones."""
    labels = torch.stack([torch.where(torch.arange(30) < count, 0, 255).view(3, 10) for count in counts])
    images = torch.randint(0, 256, (len(counts), 3, 3, 10), generator=generator(0), dtype=torch.uint8)
    return Batch(images, labels.to(torch.uint8), ("x",) * len(counts))


@pytest.mark.parametrize("sure", [(2, 23), (25, 5)])
@pytest.mark.parametrize(
    ("weight", "factor"),
    [
        ({"name": "threshold_proportional"}, 0.5),
        ({"name": "pixelwise"}, 0.5),
        ({"name": "constant"}, 1),
        ({"name": "sigmoid_rampup", "until": 0.5}, math.exp(-5 * 0.3**2)),  # step 7, complete at 10
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_weights_as_worked_by_hand(weight, factor, sure):
    """Sure of 25 of 50 valid pixels (of 5 of the ignored ones too), and a student that knows nothing loses log 4."""
    step = scene(unlabeled=blank(20, 30), teacher=certain(*sure), mixed=torch.zeros(2, CLASSES, 3, 10))
    found = make(mixing="none", weight=weight | {"scale": 3}).loss(step)
    assert found.facts["share_above_threshold"].item() == 0.5
    assert found.facts["mixed_weight"].item() == pytest.approx(3 * factor)
    assert found.terms["mixed"].item() == pytest.approx(3 * factor * math.log(CLASSES))


@pytest.mark.parametrize(("c", "until", "k_max"), [(5, 0.25, 10), (5, 1, 40), (1, 0.5, 20), (0, 0.5, 20)])
def test_the_sigmoid_ramp_up_over_a_training(c, until, k_max):
    algorithm = make(weight={"name": "sigmoid_rampup", "c": c, "until": until, "scale": 2})
    for number in range(40):
        weight = algorithm.loss(scene(number=number, steps=40)).facts["mixed_weight"].item()
        assert weight == pytest.approx(2 * math.exp(-c * (1 - number / k_max) ** 2) if number < k_max else 2)


@pytest.mark.parametrize(
    ("weight", "pasted", "others"),
    [
        ({"name": "threshold_proportional"}, 1.5, 1.5),
        ({"name": "threshold_proportional", "pasted": "full"}, 3, 1.5),
        ({"name": "pixelwise"}, 3, 0),
        ({"name": "constant"}, 3, 3),
    ],
    ids=str,
)
def test_what_pixels_pasted_from_labeled_images_weigh(weight, pasted, others):
    """Two pixels: the teacher is sure of the left one, which is the one that is covered."""
    labels = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    algorithm = make(across=SOURCE, weight=weight | {"scale": 3})
    images = labels.new_zeros(1, 3, 1, 2)
    step = scene(unlabeled=Batch(images, labels * 0, ("x",)), teacher=torch.tensor([9.0, 1] + 6 * [0]).view(1, 4, 1, 2))
    taught, facts = algorithm.teach(step, step.batches["unlabeled"])
    assert facts["share_above_threshold"].item() == 0.5
    mixtures = [algorithm.mix(taught, Batch(images + 1, labels, ("y",)), number) for number in range(20)]
    mixture = next(one for one in mixtures if one.mask.flatten().tolist() == [True, False])
    assert mixture.mixed.weights.flatten().tolist() == [pasted, others]
    assert mixture.mixed.images[0, 0, 0].tolist() == [1, 0]


# What never trains


@across_both
@pytest.mark.parametrize("mixing", ["classmix", "cutmix", "cowmix", "none"])
@pytest.mark.parametrize(("pseudo_labels", "loss"), TAUGHT)
def test_ignored_pixels_get_no_gradient_and_others_do(across, mixing, pseudo_labels, loss):
    algorithm = make(across=across, mixing=mixing, pseudo_labels=pseudo_labels, loss=loss, weight="constant")
    step = scene()
    taught, _ = algorithm.teach(scene(), step.batches["unlabeled"])
    labels = algorithm.mix(taught, step.batches["labeled"], step.number).mixed.labels
    sum(algorithm.loss(step).terms.values()).backward()
    for answer, known in zip(step.student.answers, (step.batches["labeled"].labels, labels), strict=True):
        assert 0 < (known == 255).sum() < known.numel() / 2
        assert torch.equal(answer.grad.abs().sum(1) > 0, known != 255)


@across_both
@pytest.mark.parametrize("mixing", ["classmix", "cutmix"])
def test_what_the_teacher_says_of_ignored_pixels_changes_nothing(across, mixing):
    told = {"alignment": {"average": "probabilities"}, "pseudo_labels": "soft"}
    plain, other = scene(), scene()
    outside = (other.batches["unlabeled"].labels == 255)[:, None]
    other.teacher.answers = (torch.where(outside, logits(3, 99, spread=50), plain.teacher.answers[0]),)
    for weight, soft in product(WEIGHTS, ({}, told)):
        results = []
        for step in (plain, other):
            step.teacher.shown.clear()
            step.student.shown.clear()
            algorithm = make(
                {"distribution": torch.full((CLASSES,), 1 / CLASSES)},
                **{"across": across, "mixing": mixing, "weight": weight} | soft,
            )
            found = algorithm.loss(step)
            results.append(found.terms | found.facts | found.example | algorithm.state)
        assert all(torch.equal(one, results[1][name]) for name, one in results[0].items())


@across_both
@pytest.mark.parametrize(("pseudo_labels", "loss"), TAUGHT)
def test_a_batch_without_a_valid_pixel_is_a_loss_of_zero(across, pseudo_labels, loss):
    target = torch.tensor([0.4, 0.3, 0.2, 0.1])
    for weight in WEIGHTS:
        step = scene(labeled=batch(3, 1, ignored=1.1), unlabeled=batch(3, 2, 1, ignored=1.1))
        algorithm = make(
            {"distribution": target},
            across=across,
            pseudo_labels=pseudo_labels,
            loss=loss,
            weight=weight,
            alignment={},
        )
        found = algorithm.loss(step)
        sum(found.terms.values()).backward()
        assert [term.item() for term in found.terms.values()] == [0, 0]
        assert [fact.item() for fact in found.facts.values()] == [0, 0]
        assert all(answer.grad.eq(0).all() for answer in step.student.answers)
        assert torch.equal(algorithm.state["average"], target)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@across_both
def test_a_teacher_without_a_doubt_makes_soft_labels_hard(across, loss):
    terms = {}
    for pseudo_labels in ("hard", "soft"):
        step = scene(teacher=logits(3, 3, spread=1e4))
        terms[pseudo_labels] = make(across=across, pseudo_labels=pseudo_labels, loss=loss).loss(step).terms["mixed"]
    assert terms["soft"].item() == pytest.approx(terms["hard"].item(), rel=1e-6) and terms["hard"] > 0.1


@across_both
@pytest.mark.parametrize("batch_norm", ["student", "own"])
@pytest.mark.parametrize("pseudo_labels", ["hard", "soft"])
def test_a_step_leaves_the_teacher_as_it_is(across, batch_norm, pseudo_labels):
    torch.manual_seed(0)
    student = Segmenter(tiny.MODEL, CLASSES)
    teacher = Teacher(student, TeacherSettings(batch_norm=batch_norm))
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    step = scene()
    step = Step(0, 10, step.batches, student, teacher)
    sum(make(across=across, pseudo_labels=pseudo_labels, weight="constant").loss(step).terms.values()).backward()
    assert all(p.grad is None for p in teacher.model.parameters())
    assert all(p.grad.abs().sum() > 0 for p in student.decoder.parameters())
    with torch.no_grad():
        for parameter in student.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    moved = {name for name, tensor in teacher.model.state_dict().items() if not torch.equal(tensor, before[name])}
    own = {f"encoder.network.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved == (own if batch_norm == "own" else set())
