"""Minimizing a calibrator's loss: few parameters, all pixels of a sample at once, in double precision."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from selftrain.errors import UserError

log = logging.getLogger(__name__)

STEPS = 1000
SLOPE = 1e-4
"""Largest slope, in nats a unit of a parameter, at which a fit has converged."""


def minimum(loss: Callable[[Tensor], Tensor], start: Tensor, what: str) -> Tensor:
    """Where a loss is lowest, float64 (P,): L-BFGS from `start` on, the same bits every time at equal threads.

    Raises:
        UserError: the loss is not finite.
    """
    point = start.double().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point],
        max_iter=STEPS,
        tolerance_grad=SLOPE / 100,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def evaluated() -> Tensor:
        point.grad = None
        value = loss(point)
        value.backward()
        return value

    optimizer.step(evaluated)
    value = evaluated()
    if not (value.isfinite() and point.isfinite().all() and point.grad is not None):
        raise UserError(f"the {what} could not be fitted: its loss is {value.item()}")
    slope = point.grad.abs().max().item()
    if slope > SLOPE:
        log.warning("the fit of the %s has not converged: its slope is still %.1g; more labels may help", what, slope)
    return point.detach()
