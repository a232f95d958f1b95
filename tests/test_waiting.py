"""Steps that never make a GPU wait for the host, or the host for a GPU."""

import pytest
import torch
import trainings
from torch.utils._python_dispatch import TorchDispatchMode

from selftrain.train import stage

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "unique_dim"}
"""Operations whose result, or its size, depends on values: on a GPU the host has to wait for them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return trainings.files(tmp_path_factory.mktemp("data"))


class Refusing(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        picked = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        by_mask = [one for one in picked if one is not None and one.dtype in (torch.bool, torch.uint8)]
        assert name not in WAITING and not by_mask, f"{operation} waits"
        return operation(*args, **kwargs or {})


def test_what_waits_is_seen():
    mask = torch.tensor([True, False])
    for waiting in (lambda: mask.sum().item(), lambda: mask[mask], lambda: mask.nonzero(), lambda: bool(mask[0])):
        with Refusing(), pytest.raises(AssertionError, match="waits"):
            waiting()


@pytest.fixture
def every_step(monkeypatch):
    """Lets all steps of trainings run within what a context manager sets up, and lists those that did."""
    advance, taken = stage._Run.advance, []

    def within(context):
        def advancing(self, batches):
            with context():
                told = advance(self, batches)
            taken.append(self.step)
            return told

        monkeypatch.setattr(stage._Run, "advance", advancing)
        return taken

    return within


@pytest.mark.parametrize("kind", trainings.EVERY)
def test_no_step_asks_for_a_value(run, every_step, kind):
    taken = every_step(Refusing)
    run(kind, trainings.settings(kind))
    assert taken == [1, 2, 3, 4]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("kind", trainings.EVERY)
def test_no_step_waits_for_the_gpu(run, every_step, kind, precision):
    if precision == "16-mixed" and "clip_gradient" in trainings.EVERY[kind]:
        pytest.skip("torch looks for infinite gradients before it clips what was scaled")
    taken = every_step(lambda: _SyncDebug("error"))
    run(kind, trainings.settings(kind, precision=precision, channels_last=True))
    assert taken == [1, 2, 3, 4]


class _SyncDebug:
    def __init__(self, mode):
        self.mode = mode

    def __enter__(self):
        torch.cuda.set_sync_debug_mode(self.mode)

    def __exit__(self, *raised):
        torch.cuda.set_sync_debug_mode("default")
