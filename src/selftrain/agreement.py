"""The scale of agreement: how many of a network's E branches name the most frequent class of a pixel, f_m, from 1 to E.

The variation ratio (strategic curriculum eq. 3) is 1 - f_m / E. Settings say a share, f_m / E; files hold f_m.
"""

from __future__ import annotations

import math


def least(share: float, branches: int) -> int:
    """How many branches a share of them is: the fewest that make it. Shares may be rounded to two digits.

    >>> least(1, 3), least(0.67, 3), least(0.68, 3), least(0.5, 2)
    (3, 2, 3, 1)
    """
    return max(1, math.ceil((share - 0.005) * branches))
