"""A teacher that averages the student's weights over steps."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selftrain.settings.training import TeacherSettings


class Teacher:
    """Exponential moving average of a network's weights (thesis eq. 2.16), ramped as min(1 − 1/(step + 1), decay).

    Dropout is off. With `batch_norm: own` it normalizes by the batch it is given, and its running averages, which only
    predicting uses, are of those batches. With `batch_norm: student` it normalizes by the student's running averages:
    copied at each step and not averaged, since they belong to the activations and are averages already. So does a
    teacher that nobody asks anything, which has no averages of its own.
    """

    def __init__(self, student: nn.Module, settings: TeacherSettings) -> None:
        self.model = copy.deepcopy(student).requires_grad_(False).eval()
        self.settings, self.asked = settings, False
        if settings.batch_norm == "own":
            for module in self.model.modules():
                module.train(isinstance(module, _BatchNorm))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits of images, without a gradient."""
        self.asked = True
        return self.model(images)

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Move towards the student after step number `step`, counted from 0."""
        decay = min(1 - 1 / (step + 1), self.settings.decay)
        torch._foreach_lerp_(list(self.model.parameters()), list(student.parameters()), 1 - decay)
        if self.settings.batch_norm == "student" or not self.asked:
            torch._foreach_copy_(list(self.model.buffers()), list(student.buffers()))
