"""One training in several processes, a GPU each: what they have in common, and how they are started.

A step's batch is one batch, of which each process has an equal part; every mean is that of the whole batch. So the
number of processes changes nothing but the rounding of floats (and dropout's draws), unless batch-norm is local.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed import TCPStore
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException
from torch.nn.modules.batchnorm import _BatchNorm

from selftrain.errors import UserError


def launch(work: Callable[..., None], processes: int, precision: str, *arguments: Any) -> None:
    """Call `work(fabric, *arguments)` in each of so many processes; in this one, if it is one.

    They are forked, so that they hold the locks of this one, which must not have used CUDA.

    Raises:
        UserError: of one of them, or that one of them was killed; the others are ended.
    """
    # On one machine, whatever scheduler gave it: Fabric would ask Slurm for processes of its own.
    told: dict[str, Any] = {"accelerator": "auto", "precision": precision, "plugins": [LightningEnvironment()]}
    if processes == 1:
        work(Fabric(devices=1, **told), *arguments)
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # What takes its place does not come with every torch that this runs on.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    # Averages of batch-norm are not DDP's: broadcast between two forwards of one step, they would break its backward.
    strategy = DDPStrategy(start_method="fork", broadcast_buffers=False)
    errors = multiprocessing.get_context("fork").SimpleQueue()
    try:
        with _meeting():
            fabric = Fabric(devices=processes, strategy=strategy, **told)
            fabric.launch(_told(work, errors), *arguments)
    except ProcessException as error:
        if not errors.empty():
            raise UserError(errors.get()) from None
        if isinstance(error, ProcessExitedException):
            reason = error.signal_name or f"exit code {error.exit_code}"
            raise UserError(
                f"process {error.error_index} of {processes} of the training was ended ({reason}); out of memory?"
            ) from None
        raise


@contextmanager
def _meeting() -> Iterator[None]:
    """Where the processes find each other: a port that this one listens at, so that no other training can take it.

    One that was only found free would be another's by now and then.
    """
    here = "127.0.0.1"
    store = TCPStore(here, 0, is_master=True, wait_for_workers=False)
    told = {"MASTER_ADDR": here, "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _told(work: Callable[..., None], errors: Any) -> Callable[..., None]:
    """`work`, whose UserErrors are told to the process that launched it."""

    launcher = os.getpid()

    def telling(*arguments: Any) -> None:
        _end_with(launcher)
        try:
            work(*arguments)
        except UserError as error:
            errors.put(str(error))
            raise

    return telling


PR_SET_PDEATHSIG = 1


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however it ends (on Linux).

    torch has it interrupted, which a run in the background of a script ignores, and one within a collective does not
    see; it would go on to hold the lock of the training.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), signal.SIGKILL)


def count() -> int:
    """How many processes train."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def number() -> int:
    """Which of them this is, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def total(value: Tensor) -> Tensor:
    """The sum over all processes, without a gradient."""
    if count() == 1:
        return value.detach()
    value = value.detach().clone()
    torch.distributed.all_reduce(value)
    return value


def ratio(part: Tensor, whole: Tensor, least: float = 1) -> Tensor:
    """This process's share of a ratio of sums over the whole batch, such that the mean over processes is the ratio.

    Args:
        part: the sum over this process's part of the batch; a gradient flows through it alone.
        whole: the same.
        least: what is divided by at least.
    """
    return part * count() / total(whole).clamp(min=least)


def mean(value: Tensor) -> Tensor:
    """The mean over all processes, without a gradient."""
    return total(value) / count()


def gathered(items: Tensor) -> Tensor:
    """The whole batch, (processes · B, ...), of which this process has (B, ...)."""
    if count() == 1:
        return items
    parts = [torch.empty_like(items, memory_format=torch.contiguous_format) for _ in range(count())]
    torch.distributed.all_gather(parts, items.contiguous())
    return torch.cat(parts)


def own(items: Tensor) -> Tensor:
    """This process's part of a whole batch."""
    return items.chunk(count())[number()]


def average_running(*networks: nn.Module) -> None:
    """Let the running averages of batch-norm be the same in all processes: their mean."""
    modules = [module for network in networks for module in network.modules()]
    norms = [module for module in modules if isinstance(module, _BatchNorm) and module.running_mean is not None]
    if count() == 1 or not norms:
        return
    running = [getattr(norm, name) for norm in norms for name in ("running_mean", "running_var")]
    averages = mean(torch.cat(running)).split([len(one) for one in running])
    torch._foreach_copy_(running, list(averages))
