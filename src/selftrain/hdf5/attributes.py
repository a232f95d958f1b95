"""Whether the value of an attribute is right."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def is_text(value: Any) -> bool:
    """Whether it is text."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """Whether it is a whole number from 0 on."""
    return isinstance(value, int | np.integer) and int(value) >= 0


def is_number(value: Any) -> bool:
    """Whether it is a number, or NaN."""
    return isinstance(value, int | float | np.number)


def are_colors(value: Any) -> bool:
    """Whether it is JSON of null or of colors, three numbers from 0 to 255 each; it may be absent."""
    if value is None:
        return True
    try:
        colors = json.loads(value)
        return colors is None or (
            len(colors) <= 256
            and all(len(color) == 3 and all(type(one) is int and 0 <= one <= 255 for one in color) for color in colors)
        )
    except (ValueError, TypeError):
        return False
