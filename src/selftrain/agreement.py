"""The scale of agreement: how many of a network's E branches name the most frequent class of a pixel, f_m, from 1 to E.

The variation ratio (strategic curriculum eq. 3) is 1 - f_m / E. Settings say a share, f_m / E; files hold f_m.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def least(share: float, branches: int) -> int:
    """How many branches a share of them is: the fewest that make it. Shares may be rounded to two digits.

    >>> least(1, 3), least(0.67, 3), least(0.68, 3), least(0.5, 2)
    (3, 2, 3, 1)
    """
    if share == 1:  # all of them, of however many
        return branches
    return max(1, math.ceil((share - 0.005) * branches))


def agreeing(votes: npt.NDArray[np.int64], least_agreement: int = 0) -> npt.NDArray[np.float64]:
    """Per class the share of its pixels on which so many branches agree (0: all of them), NaN of a class without any.

    Args:
        votes: pixels of each class that 1, 2, ... branches agree on, (C, E).
        least_agreement: how many.
    """
    enough, pixels = votes[:, (least_agreement or votes.shape[1]) - 1 :].sum(1), votes.sum(1)
    return np.divide(enough, pixels, out=np.full(len(votes), np.nan), where=pixels > 0)
