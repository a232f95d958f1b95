"""A teacher that averages the student's weights over steps."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Teacher:
    """Exponential moving average of a network's weights (thesis eq. 2.16), ramped as min(1 − 1/(step + 1), decay).

    Buffers (batch-norm statistics) are copied, not averaged: they are averages already.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Move towards the student after step number `step`, counted from 0."""
        decay = min(1 - 1 / (step + 1), self.decay)
        for weight, target in zip(self.model.parameters(), student.parameters(), strict=True):
            weight.lerp_(target, 1 - decay)
        for own, other in zip(self.model.buffers(), student.buffers(), strict=True):
            own.copy_(other)
