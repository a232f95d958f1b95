import numpy as np
import pytest
import torch
from torch import nn

from selftrain.data.batches import Batch
from selftrain.settings.training import SelfTrainingSettings
from selftrain.train.algorithms import Given
from selftrain.train.algorithms.self_training import SelfTraining
from selftrain.train.losses import cross_entropy


def brute_cross_entropy(logits, labels, weights):
    """Per pixel, in float64."""
    total = weight_sum = 0.0
    for image, row, column in np.ndindex(*labels.shape):
        label = int(labels[image, row, column])
        if label == 255:
            continue
        z = logits[image, :, row, column].astype(np.float64)
        total += weights[label] * (np.log(np.exp(z - z.max()).sum()) + z.max() - z[label])
        weight_sum += weights[label]
    return total / weight_sum


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 0.0, 1.0)])
def test_cross_entropy_is_the_mean_over_valid_pixels(weights):
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 3, (2, 4, 5, 6)).astype(np.float32)
    labels = draw.choice(np.array([0, 1, 2, 3, 255], np.uint8), (2, 5, 6))
    tensor = None if weights is None else torch.tensor(weights)
    value = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), tensor)
    assert value.item() == pytest.approx(brute_cross_entropy(logits, labels, weights or (1,) * 4), rel=1e-5)


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


class Linear(nn.Conv2d):
    """Without batch-norm: an image's logits do not depend on its neighbors."""

    def forward(self, images):
        return super().forward(images.float() / 255)


class Headless(nn.Sequential):
    """Called as a segmenter without heads is."""

    def forward(self, images, *, heads=False):
        return (super().forward(images), {}) if heads else super().forward(images)


@pytest.mark.parametrize("valid", [0, 3, 96])
def test_each_half_is_a_mean_over_its_own_pixels(valid):
    torch.manual_seed(0)
    model, ids = Headless(Linear(3, 4, 1)), torch.randint(0, 4, (2, 6, 8), dtype=torch.uint8)
    pseudo_ids = ids.flatten().where(torch.arange(96) < valid, 255).view(2, 6, 8).byte()
    batches = halves(ids, pseudo_ids)
    joint, separate = (
        SelfTraining(SelfTrainingSettings(forwards=forwards, weight=0.5), Given(4)).terms(model, batches, 0)
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
        SelfTraining(SelfTrainingSettings(forwards=forwards), Given(3)).terms(model, batches, 0)
        seen[forwards] = int(norm.num_batches_tracked)
    assert seen == {"joint": 1, "separate": 2}
