import numpy as np
import pytest
import torch
from torch import nn

from selftrain.data.batches import Batch
from selftrain.models.segmenter import Outputs
from selftrain.settings.training import SelfTrainingSettings
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.self_training import SelfTraining
from selftrain.train.losses import cross_entropy, soft_cross_entropy, squared_error

WEIGHTS = (0.5, 2.0, 0.0, 1.0)


def brute_cross_entropy(logits, labels, weights, pixel_weights=None):
    """Per pixel, in float64."""
    total = weight_sum = 0.0
    for image, row, column in np.ndindex(*labels.shape):
        label = int(labels[image, row, column])
        if label == 255:
            continue
        z = logits[image, :, row, column].astype(np.float64)
        factor = 1 if pixel_weights is None else float(pixel_weights[image, row, column])
        total += factor * weights[label] * (np.log(np.exp(z - z.max()).sum()) + z.max() - z[label])
        weight_sum += weights[label]
    return total / weight_sum


def draw(seed=0):
    """Logits, labels a fifth of which are ignored, weights of pixels, some of them 0, and probabilities."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.normal(0, 3, (2, 4, 5, 6)).astype(np.float32))
    labels = torch.from_numpy(draw.choice(np.array([0, 1, 2, 3, 255], np.uint8), (2, 5, 6)))
    pixel_weights = torch.from_numpy((draw.random((2, 5, 6)) * draw.integers(0, 3, (2, 5, 6))).astype(np.float32))
    return logits, labels, pixel_weights, torch.from_numpy(draw.dirichlet([0.5] * 4, (2, 5, 6))).movedim(3, 1).float()


def one_hot(labels):
    """Ignored pixels get a class too: nothing may come of it."""
    return nn.functional.one_hot(labels.long().clamp(max=3), 4).movedim(3, 1).float()


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_the_mean_over_valid_pixels(weights, pixels):
    """Weights of pixels are factors of the loss, not of the mean."""
    logits, labels, pixel_weights, _ = draw()
    pixel_weights = pixel_weights if pixels else None
    value = cross_entropy(logits, labels, None if weights is None else torch.tensor(weights), pixel_weights)
    expected = brute_cross_entropy(logits.numpy(), labels.numpy(), weights or (1,) * 4, pixel_weights)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_focal_loss_against_loops(weights, pixels, gamma):
    logits, labels, pixel_weights, _ = draw(4)
    told = {"class_weights": None if weights is None else torch.tensor(weights), "focal": gamma}
    weights = weights or (1,) * 4
    total = weight_sum = 0.0
    for image, row, column in (labels != 255).nonzero().tolist():
        label = int(labels[image, row, column])
        p = float(logits[image, :, row, column].double().softmax(0)[label])
        factor = float(pixel_weights[image, row, column]) if pixels else 1.0
        total -= factor * weights[label] * (1 - p) ** gamma * np.log(p)
        weight_sum += weights[label]
    value = Given(4, **told).cross_entropy(logits, labels, pixel_weights if pixels else None)
    assert value.item() == pytest.approx(total / weight_sum, rel=1e-5)


@pytest.mark.parametrize("weights", [None, torch.tensor(WEIGHTS)])
def test_gamma_0_is_plain_cross_entropy_bit_by_bit(weights):
    logits, labels, pixel_weights, _ = draw(5)
    plain, focal = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    one = nn.functional.cross_entropy(plain, labels.long(), weights, ignore_index=255, reduction="none")
    valid = labels != 255
    one = (one * pixel_weights).sum() / (valid.sum() if weights is None else weights[labels[valid].long()].sum())
    other = Given(4, class_weights=weights, focal=0).cross_entropy(focal, labels, pixel_weights)
    one.backward()
    other.backward()
    assert torch.equal(one, other) and torch.equal(plain.grad, focal.grad)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_has_a_slope_where_a_pixel_is_sure(gamma):
    """1 - p is 0 in float32, or nearly: nothing becomes infinite."""
    logits = torch.zeros(4, 3, 1, 1)
    logits[:, 0, 0, 0] = torch.tensor([0.0, 12.0, 30.0, 200.0])
    logits.requires_grad_()
    labels = torch.zeros((4, 1, 1), dtype=torch.uint8)
    Given(3, focal=gamma).cross_entropy(logits, labels).backward()
    assert logits.grad.isfinite().all() and logits.grad[0].abs().sum() > 0


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_soft_cross_entropy_against_loops(weights):
    logits, labels, pixel_weights, targets = draw()
    total = count = 0.0
    for image, row, column in (labels != 255).nonzero().tolist():
        for index, weight in enumerate(weights or (1,) * 4):
            z, share = logits[image, :, row, column].double(), float(targets[image, index, row, column])
            total -= float(pixel_weights[image, row, column]) * weight * share * float(z[index] - z.logsumexp(0))
            count += weight * share
    value = soft_cross_entropy(
        logits, targets, labels != 255, pixel_weights, None if weights is None else torch.tensor(weights)
    )
    assert value.item() == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("weights", [None, torch.tensor(WEIGHTS)])
def test_soft_cross_entropy_of_one_hot_targets_is_the_hard_one(weights):
    logits, labels, pixel_weights, _ = draw(1)
    hard, soft = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    one = cross_entropy(hard, labels, weights, pixel_weights)
    other = soft_cross_entropy(soft, one_hot(labels), labels != 255, pixel_weights, weights)
    one.backward()
    other.backward()
    assert other.item() == pytest.approx(one.item(), rel=1e-6) and torch.allclose(hard.grad, soft.grad, atol=1e-7)


def test_squared_error_against_loops():
    """Equation 2.1: summed over classes, not their mean."""
    logits, labels, pixel_weights, targets = draw(2)
    total = 0.0
    for image, row, column in (labels != 255).nonzero().tolist():
        z = logits[image, :, row, column].double()
        for index in range(4):
            error = float(torch.exp(z[index] - z.logsumexp(0))) - float(targets[image, index, row, column])
            total += float(pixel_weights[image, row, column]) * error**2
    value = squared_error(logits, targets, labels != 255, pixel_weights)
    assert value.item() == pytest.approx(total / int((labels != 255).sum()), rel=1e-5)


def test_squared_error_ends_at_two():
    logits, labels = 50 * one_hot(torch.tensor([[[0, 1]]])), torch.tensor([[[3, 1]]])
    values = [
        squared_error(logits, one_hot(labels), torch.tensor([[valid]]), torch.ones(1, 1, 2)).item()
        for valid in ([True, False], [False, True], [True, True])
    ]
    assert values == pytest.approx([2, 0, 1])


@pytest.mark.parametrize("loss", [soft_cross_entropy, squared_error])
def test_losses_against_probabilities_ignore_and_resize(loss):
    logits, labels, pixel_weights, targets = draw(3)
    valid, large = labels != 255, nn.functional.interpolate(logits, (9, 13), mode="bilinear", align_corners=False)
    maps = [nn.functional.interpolate(one.float(), (9, 13)) for one in (valid[:, None], pixel_weights[:, None])]
    sized = nn.functional.interpolate(targets, (9, 13)), maps[0][:, 0] > 0, maps[1][:, 0]
    assert loss(logits, *sized).item() == pytest.approx(loss(large, *sized).item())
    logits.requires_grad_()
    loss(logits, targets, valid, torch.ones_like(pixel_weights)).backward()
    moved = logits.grad.abs().sum(1) > 0
    assert torch.equal(moved, valid)
    nothing = loss(logits, targets, torch.zeros_like(valid), pixel_weights)
    nothing.backward()
    assert nothing.item() == 0 and logits.grad.isfinite().all()


def test_cross_entropy_brings_logits_to_the_labels_size():
    logits, labels = torch.randn(1, 3, 4, 5), torch.randint(0, 3, (1, 9, 13), dtype=torch.uint8)
    large = nn.functional.interpolate(logits, (9, 13), mode="bilinear", align_corners=False)
    assert torch.allclose(cross_entropy(logits, labels), nn.functional.cross_entropy(large, labels.long()))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.0])])
def test_cross_entropy_of_nothing_is_zero(weights):
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    labels = torch.full((2, 4, 5), 255 if weights is None else 2, dtype=torch.uint8)
    value = cross_entropy(logits, labels, weights)
    value.backward()
    assert value.item() == 0 and logits.grad.eq(0).all()


def halves(labeled_ids, pseudo_ids):
    def batch(ids):
        return Batch(torch.randint(0, 256, (len(ids), 3, 6, 8), dtype=torch.uint8), ids, ("x",) * len(ids))

    return {"labeled": batch(labeled_ids), "pseudo_labeled": batch(pseudo_ids)}


def step(model, batches):
    return Step(0, 1, batches, model, teacher=None)


class Linear(nn.Conv2d):
    """Without batch-norm: an image's logits do not depend on its neighbors."""

    def forward(self, images):
        return super().forward(images.float() / 255)


class Headless(nn.Sequential):
    """Called as a segmenter without heads is."""

    def forward(self, images, *, apart=False):
        logits = super().forward(images)
        return Outputs((logits,), {}) if apart else logits


@pytest.mark.parametrize("valid", [0, 3, 96])
def test_each_half_is_a_mean_over_its_own_pixels(valid):
    torch.manual_seed(0)
    model, ids = Headless(Linear(3, 4, 1)), torch.randint(0, 4, (2, 6, 8), dtype=torch.uint8)
    pseudo_ids = ids.flatten().where(torch.arange(96) < valid, 255).view(2, 6, 8).byte()
    batches = halves(ids, pseudo_ids)
    joint, separate = (
        SelfTraining(SelfTrainingSettings(forwards=forwards, weight=0.5), Given(4)).loss(step(model, batches)).terms
        for forwards in ("joint", "separate")
    )
    for name, weight in (("labeled", 1), ("pseudo_labeled", 0.5)):
        logits = model(batches[name].images).detach().numpy()
        known = brute_cross_entropy(logits, batches[name].labels.numpy(), (1,) * 4) if valid or weight == 1 else 0
        assert joint[name].item() == pytest.approx(weight * known, rel=1e-5)
        assert separate[name].item() == pytest.approx(weight * known, rel=1e-5)


def test_joint_forwards_share_batch_norm_and_separate_ones_do_not():
    batches = halves(*torch.zeros(2, 2, 6, 8, dtype=torch.uint8))
    batches["pseudo_labeled"].images.zero_()
    seen = {}
    for forwards in ("joint", "separate"):
        norm = nn.BatchNorm2d(3)
        model = Headless(Linear(3, 3, 1), norm)
        SelfTraining(SelfTrainingSettings(forwards=forwards), Given(3)).loss(step(model, batches))
        seen[forwards] = int(norm.num_batches_tracked)
    assert seen == {"joint": 1, "separate": 2}
