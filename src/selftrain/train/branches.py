"""What keeps the branches of a network apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain.errors import UserError


def branch_similarity(branches: Sequence[nn.Module]) -> Tensor:
    """The cosine between the filters of two branches, flattened and concatenated; the mean over all pairs.

    Filters are weights of two dimensions or more: neither biases nor the scales of normalizations.

    Raises:
        UserError: branches that are not alike.
    """
    shapes = [[p.shape for p in one.parameters() if p.ndim > 1] for one in branches]
    if not shapes[0] or any(of_branch != shapes[0] for of_branch in shapes):
        raise UserError("train.branch_similarity: the branches' filters cannot be compared one by one; set it to 0")
    filters = [torch.cat([p.flatten() for p in one.parameters() if p.ndim > 1]) for one in branches]
    cosines = [F.cosine_similarity(one, other, dim=0) for one, other in combinations(filters, 2)]
    return torch.stack(cosines).mean()
