"""Matrix scaling: a linear layer behind the logits (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selftrain.calibrate.calibrator import Calibrator
from selftrain.calibrate.fitting import minimum
from selftrain.calibrate.logits import Seen
from selftrain.calibrate.sample import Sample, drawn
from selftrain.settings.calibration import MatrixSettings


@dataclass(frozen=True)
class Matrix(Calibrator):
    """W z + b; a pixel's class may change."""

    weights: Sequence[Sequence[float]]
    """W, C rows of C."""
    bias: Sequence[float]
    """b, C."""

    @cached_property
    def _layer(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.weights), torch.tensor(self.bias)

    def logits(self, logits: Tensor) -> Tensor:
        """Multiplied by the matrix, and moved by the bias."""
        weights, bias = (part.to(logits.device) for part in self._layer)
        return torch.einsum("dc,bchw->bdhw", weights, logits.float()) + bias[:, None, None]

    def parameters(self) -> dict[str, Any]:
        """As the file holds them."""
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def fitted(cls, settings: MatrixSettings, images: Iterable[Seen], classes: int, seed: int) -> tuple[Matrix, int]:
        """The matrix of the lowest loss over a sample, and of how many pixels that is."""
        sample = drawn(images, classes, seed)
        weights, bias = best_matrix(sample, settings.regularization)
        return cls(weights.tolist(), bias.tolist()), len(sample.labels)


def best_matrix(sample: Sample, regularization: float) -> tuple[Tensor, Tensor]:
    """W and b of the lowest negative log-likelihood and regularization, float64 (C, C) and (C,).

    The regularization is that of Kull et al. 2019 (off-diagonal and intercept): the mean square of what is off the
    diagonal, and of the bias, which leaves the temperature of each class free.
    """
    classes = sample.logits.shape[1]
    off_diagonal = ~torch.eye(classes, dtype=torch.bool)

    def loss(parameters: Tensor) -> Tensor:
        weights, bias = _apart(parameters, classes)
        likelihood = F.cross_entropy(sample.logits @ weights.T + bias, sample.labels)
        return likelihood + regularization * (weights[off_diagonal].square().mean() + bias.square().mean())

    identity = torch.cat([torch.eye(classes), torch.zeros(1, classes)]).flatten()
    return _apart(minimum(loss, identity, "matrix"), classes)


def _apart(parameters: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    return parameters[:-classes].view(classes, classes), parameters[-classes:]
