"""Distribution alignment, by itself and in the algorithm."""

import numpy as np
import pytest
import torch
from mixtures import CLASSES, SIZE, batch, generator, logits, make, scene

from selftrain.errors import UserError
from selftrain.train.alignment import align, run_on, shares_of

WANTED = torch.tensor([0.1, 0.2, 0.3, 0.4])
averages = pytest.mark.parametrize("average", ["pseudo_labels", "probabilities"])
kinds = pytest.mark.parametrize("pseudo_labels", ["hard", "soft"])


def probabilities(count=2, seed=0):
    return logits(count, seed).softmax(1)


# The parts


@pytest.mark.parametrize("target", [(0.1, 0.2, 0.3, 0.4), (0.25, 0.25, 0.25, 0.25), (0.5, 0, 0, 0.5)])
def test_align_against_loops(target):
    said, average = probabilities(), (0.7, 0.1, 0.15, 0.05)
    found = align(said, torch.tensor(target), torch.tensor(average))
    for item, row, column in np.ndindex(2, *SIZE):
        scaled = [said[item, c, row, column].item() * target[c] / average[c] for c in range(CLASSES)]
        expected = [value / sum(scaled) for value in scaled]
        assert found[item, :, row, column].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_class_of_no_share_is_never_predicted():
    """Not even where its average is 0 too, or where the teacher is all but certain of it."""
    target = torch.tensor([0.0, 0.5, 0.5, 0.0])
    certain = (torch.tensor([0.0, 0, 0, 15]).view(1, 4, 1, 1) + logits(1, 0)).softmax(1)
    for said in (probabilities(), certain):
        for average in (target, torch.tensor([0.1, 0.4, 0.4, 0.1]), torch.tensor([0.5, 0, 0, 0.5])):
            found = align(said, target, average)
            assert found[:, [0, 3]].eq(0).all() and set(found.argmax(1).unique().tolist()) <= {1, 2}
            assert torch.allclose(found.sum(1), torch.ones(1), atol=1e-5)


def test_at_its_target_nothing_changes():
    said = probabilities()
    assert torch.allclose(align(said, WANTED, WANTED), said, atol=1e-6)


def test_shares_are_means_over_valid_pixels():
    said, valid = probabilities(), batch(2, 1).labels != 255
    assert shares_of(said, valid).tolist() == pytest.approx(said.movedim(1, 3)[valid].mean(0).tolist(), rel=1e-5)
    assert shares_of(said, torch.zeros_like(valid)).isnan().all()


def test_an_average_runs_on_in_place_and_nothing_moves_it_by_nothing():
    average, shares = WANTED.clone(), torch.tensor([1.0, 0, 0, 0])
    expected = WANTED.clone()
    for _ in range(3):
        run_on(average, shares, 0.9)
        expected = 0.9 * expected + 0.1 * shares
    assert torch.allclose(average, expected)
    before = average.clone()
    run_on(average, torch.full((4,), torch.nan), 0.9)
    assert torch.equal(average, before)
    run_on(average, shares, 0)
    assert torch.equal(average, shares)


# In the algorithm


def aligned(average="pseudo_labels", decay=0.9, target=WANTED, **told):
    return make({"distribution": target}, alignment={"average": average, "decay": decay}, **told)


@averages
@kinds
def test_the_first_step_is_not_aligned_and_moves_the_average_once(average, pseudo_labels):
    plain, algorithm = make(pseudo_labels=pseudo_labels), aligned(average, pseudo_labels=pseudo_labels)
    assert torch.equal(algorithm.state["average"], WANTED)
    step = scene()
    expected, found = plain.loss(scene()), algorithm.loss(step)
    for name, term in (expected.terms | expected.facts).items():
        assert (found.terms | found.facts)[name].item() == pytest.approx(term.item(), rel=1e-5)
    said, valid = step.teacher.answers[0].softmax(1), step.batches["unlabeled"].labels != 255
    if average == "pseudo_labels" and pseudo_labels == "hard":
        shares = said.argmax(1)[valid].bincount(minlength=CLASSES) / valid.sum()
    else:
        shares = said.movedim(1, 3)[valid].mean(0)
    assert torch.allclose(algorithm.state["average"], 0.9 * WANTED + 0.1 * shares, atol=1e-6)
    assert plain.state == {}


@averages
@kinds
def test_the_second_step_is_aligned_by_the_average_of_the_first(average, pseudo_labels):
    algorithm = aligned(average, 0.5, pseudo_labels=pseudo_labels)
    algorithm.teach(scene(), scene().batches["unlabeled"])
    first, step = algorithm.state["average"].clone(), scene(teacher=logits(3, 77))
    taught, facts = algorithm.teach(step, step.batches["unlabeled"])
    told, valid = align(logits(3, 77).softmax(1), WANTED, first), step.batches["unlabeled"].labels != 255
    assert torch.equal(taught.labels, told.argmax(1).where(valid, 255).to(torch.uint8))
    assert facts["share_above_threshold"].item() == pytest.approx(
        ((told.amax(1) > 0.7) & valid).sum().item() / valid.sum().item()
    )
    assert (taught.probabilities is None) == (pseudo_labels == "hard")
    assert pseudo_labels == "hard" or torch.allclose(taught.probabilities, told)
    hard = torch.eye(CLASSES)[told.argmax(1)].movedim(3, 1)
    counted = {"hard": hard, "soft": told}[pseudo_labels] if average == "pseudo_labels" else logits(3, 77).softmax(1)
    expected = 0.5 * first + 0.5 * counted.movedim(1, 3)[valid].mean(0)
    assert torch.allclose(algorithm.state["average"], expected, atol=1e-6)


def distance(shares):
    return (shares - WANTED).abs().sum().item()


@averages
@kinds
def test_pseudo_labels_move_towards_the_target(average, pseudo_labels):
    """Of a teacher that sees the first class nearly everywhere, and does not learn.

    An average of what is aligned already goes half the way: at rest the shares are as target · own / shares.
    """
    bias, off = torch.tensor([2.0, 0, 0, -1]).view(1, -1, 1, 1), {}
    told = {"pseudo_labels": pseudo_labels}
    for name, algorithm in (("plain", make(**told)), ("aligned", aligned(average, **told))):
        counts = torch.zeros(CLASSES)
        for number in range(50):
            step = scene(number=number, steps=50, teacher=logits(3, number) + bias)
            labels = algorithm.teach(step, step.batches["unlabeled"])[0].labels
            counts += labels[labels != 255].bincount(minlength=CLASSES) * (number >= 25)
        off[name] = (counts / counts.sum() - WANTED).abs().sum().item()
    assert off["plain"] > 0.9
    assert off["aligned"] < {"pseudo_labels": 0.6, "probabilities": 0.4}[average] * off["plain"], off


def test_a_class_of_target_zero_is_never_taught():
    target = torch.tensor([0.0, 0.5, 0.25, 0.25])
    for average in ("pseudo_labels", "probabilities"):
        algorithm = aligned(average, target=target)
        for number in range(10):
            step = scene(teacher=logits(3, number) + torch.tensor([3.0, 0, 0, 0]).view(1, -1, 1, 1))
            taught, _ = algorithm.teach(step, step.batches["unlabeled"])
            assert not (taught.labels == 0).any() and taught.labels.unique().tolist() == [1, 2, 3, 255]


def test_alignment_needs_a_distribution():
    with pytest.raises(UserError, match=r"algorithm\.alignment: needs the class shares to align with"):
        make(alignment={})


def test_the_state_goes_on_where_it_was():
    """As a resumed training sets it: in place."""
    one, other = aligned(), aligned()
    draw = generator(0)
    for number in range(3):
        one.loss(scene(number=number, teacher=torch.randn(3, CLASSES, *SIZE, generator=draw) * 3))
    for name, tensor in other.state.items():
        tensor.copy_(one.state[name])
    last, resumed = (algorithm.loss(scene(number=3)) for algorithm in (one, other))
    assert all(torch.equal(term, resumed.terms[name]) for name, term in last.terms.items())
    assert torch.equal(one.state["average"], other.state["average"]) and not torch.equal(one.state["average"], WANTED)


def test_what_a_class_of_share_0_leaves_is_shared_by_classes_too_improbable_for_a_float():
    probabilities = torch.tensor([300.0, 0, 1]).softmax(0).view(1, 3, 1, 1)
    target = torch.tensor([0, 0.25, 0.75])
    aligned = align(probabilities, target, torch.tensor([0, 0.5, 0.5])).flatten()
    assert aligned[0] == 0 and aligned.sum().item() == pytest.approx(1) and aligned[2] > aligned[1] > 0
