"""Colors of classes in masks and pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence


def palette(classes: int, colors: Sequence[Sequence[int]] | None = None) -> list[int]:
    """The 768 values of an image palette: the given colors or distinct hues, black for ignore and the rest.

    All 256 entries are there, since a short palette would be saved in fewer bits and lose the ignore index.
    """
    chosen = [tuple(color) for color in colors] if colors is not None else [_hue(index) for index in range(classes)]
    flat = [channel for color in chosen for channel in color]
    return flat + [0] * (768 - len(flat))


def _hue(index: int) -> tuple[int, ...]:
    """Hues a golden angle apart: neighbors differ, however many there are."""
    color = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.65 + 0.35 * (index % 2), 0.95 - 0.3 * (index // 2 % 2))
    return tuple(round(255 * channel) for channel in color)
