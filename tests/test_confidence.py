import numpy as np
import pytest
import torch
from exact import quantize
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from selftrain.confidence import (
    BINS,
    coarse,
    groups,
    log_odds_of,
    log_odds_of_coarse,
    probability_of,
    stored_probability,
)
from selftrain.errors import UserError
from selftrain.models import top
from selftrain.predict.confidence import UNDEFINED, decide, decide_probabilities
from selftrain.predict.forward import Decided, Pending

torch.set_num_threads(1)


def exact_log_odds(logits):
    """float64, the other way: the log of each sum, without max and zeroing."""
    z = logits.astype(np.float64)
    top = z.argmax(1)
    others = np.where(np.arange(z.shape[1])[:, None, None] == top[:, None], -np.inf, z)
    rest = np.logaddexp.reduce(others, axis=1)
    return top, z.max(1) - rest


def logits_of(scale, shape=(2, 19, 37, 53), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def test_bins_and_log_odds_are_inverse():
    bins = np.arange(BINS)
    assert (quantize(log_odds_of(bins)) == bins).all()
    assert (quantize(log_odds_of(bins).astype(np.float32)) == bins).all()
    assert quantize([-np.inf, -8, 0, 56, np.inf]).tolist() == [0, 0, 8192, BINS - 1, BINS - 1]


def test_probability_is_the_sigmoid():
    assert probability_of(8192) == 0.5
    assert probability_of(quantize(np.log(9))) == pytest.approx(0.9, abs=2e-4)


def test_coarse_byte_is_the_quarter_below():
    bins = np.arange(BINS)
    assert coarse(bins).max() == 255
    behind = log_odds_of(bins) - log_odds_of_coarse(coarse(bins))
    assert behind.min() == 0 and behind.max() < 0.25


@pytest.mark.parametrize("resolution", [None, "float16", "float32"])
def test_groups_hold_what_a_stored_probability_cannot_tell_apart(resolution):
    group, stored = groups(resolution), stored_probability(resolution)
    assert group[0] == 0 and (np.diff(group) >= 0).all() and (group[group] == group).all()
    if resolution is None:
        assert (group == np.arange(BINS)).all()
    else:
        assert (stored[group] == stored).all()
        assert len(np.unique(group)) == len(np.unique(stored))


@pytest.mark.parametrize("scale", [0, 0.1, 1, 8, 30, 1000])
def test_decide_against_float64(scale):
    logits = logits_of(scale)
    classes, bins = decide(logits)
    top, log_odds = exact_log_odds(logits.numpy())
    assert classes.dtype == torch.uint8 and (classes.numpy() == top).all()
    exact = np.clip((log_odds + 8) * 1024, 0, BINS - 1)
    assert np.abs(bins.numpy() - exact).max() <= 0.51


def test_torch_and_numpy_round_alike():
    p = logits_of(8).double().softmax(1).float()
    classes, bins = decide_probabilities(p)
    top = p.gather(1, classes[:, None].long())[:, 0]
    others = p.scatter(1, classes[:, None].long(), 0).sum(1)
    assert (bins.numpy() == quantize((top.log() - others.log()).numpy())).all()


@pytest.mark.parametrize("views", [1, 5])
def test_averaged_predictions(views):
    logits = [logits_of(6, seed=seed) for seed in range(views)]
    classes, bins = decide_probabilities(sum(z.softmax(1) for z in logits))
    exact = sum(z.double().softmax(1) for z in logits)
    top, at = exact.max(1)
    others = exact.scatter(1, at[:, None], 0).sum(1)
    assert (classes == at).all()
    assert np.abs(bins.numpy() - quantize((top.log() - others.log()).numpy()).astype(int)).max() <= 1


def test_saturated_logits_go_to_the_ends():
    logits = torch.full((1, 3, 1, 2), -200.0)
    logits[0, 2, 0, 0] = 200
    logits[0, 1, 0, 1], logits[0, 0, 0, 1], logits[0, 2, 0, 1] = 5, float("-inf"), float("-inf")
    classes, bins = decide(logits)
    assert classes.flatten().tolist() == [2, 1] and (bins == BINS - 1).all()
    assert (decide_probabilities(logits.softmax(1))[1] == BINS - 1).all()


def test_equal_logits_go_to_the_lowest_class():
    logits = torch.zeros(1, 5, 2, 2)
    logits[0, [2, 4]] = 3
    for classes, bins in (decide(logits), decide_probabilities(logits.softmax(1))):
        assert (classes == 2).all()
        assert (bins == int(quantize(3 - np.log(np.exp(3) + 3)))).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_without_log_odds_are_an_error(bad):
    logits = logits_of(1, (3, 4, 5, 6))
    sound = Decided(*decide(logits))
    logits[1, 2, 3, 4] = bad
    classes, bins = decide(logits)
    assert bins[1, 3, 4] == UNDEFINED and (bins == UNDEFINED).sum() == 1
    with pytest.raises(UserError, match="logits for b;"):
        Pending(lambda: Decided(classes, bins)).on_host(["a", "b", "c"])
    planes = Pending(lambda: sound).on_host(["a", "b", "c"])
    assert planes.bins.dtype == np.uint16 and (planes.bins == sound.bins.numpy()).all() and planes.agreement is None


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.booleans()
)
def test_logits_are_enlarged_on_the_way(own, size, small_cache):
    logits = logits_of(3, (2, 5, *own)).to(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch:
        if small_cache:
            patch.setattr(top, "CACHED", 5 * 3 * size[1])  # parts of one row, and of three where no row is made
        classes, bins = decide(logits, size=size)
        voted = top.top_classes(logits, size)
    whole = F.interpolate(logits.contiguous().double(), size=size, mode="bilinear", align_corners=False)
    first, second = whole.topk(2, 1).values.unbind(1)
    clear = (first - second > 1e-4).numpy()
    best, log_odds = exact_log_odds(whole.numpy())
    assert (classes.numpy() == best)[clear].all() and torch.equal(voted, classes)
    assert np.abs(bins.numpy() - quantize(log_odds))[clear].max(initial=0) <= 1


def test_memory_layout_does_not_matter():
    logits = logits_of(5)
    for one, other in zip(decide(logits), decide(logits.contiguous(memory_format=torch.channels_last)), strict=True):
        assert (one == other).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees():
    logits = logits_of(8)
    (classes, bins), (gpu_classes, gpu_bins) = decide(logits), decide(logits.cuda())
    assert (classes == gpu_classes.cpu()).all()
    assert (bins - gpu_bins.cpu()).abs().max() <= 1


def test_few_pixels_are_decided_by_ties():
    """Over-confident predictions as DARS has them (a third of all at p = 1 in float16): the bin at a cut is small."""
    coarse_logits = torch.randn((1, 19, 64, 128), generator=torch.Generator().manual_seed(1)) * 25
    logits = torch.nn.functional.interpolate(coarse_logits, scale_factor=8, mode="bilinear")
    _, bins = decide(logits)
    counts = np.bincount(bins.numpy().ravel(), minlength=BINS)
    group = groups("float16")
    overlap = np.bincount(group, weights=counts) / counts.sum()
    assert overlap.max() > 1 / 3
    assert counts.max() / counts.sum() < 0.001
