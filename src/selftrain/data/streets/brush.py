"""A camera that looks down a street, and a brush that paints picture and label together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from selftrain.data.streets.domains import IGNORE, Color, Domain

SCALE = 2
"""The picture is drawn this much larger and then averaged, so its edges are smooth."""
NEAR = 0.9
"""Nothing closer than this many meters is drawn."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above the road: meters in, fractions of the image's height out.

    The world's x points right, y up and z down the street; the camera is at (x, height, 0).
    """

    focal: float
    x: float
    height: float
    horizon: float
    middle: float
    """Where the vanishing point is, in image heights from the left."""

    def project(self, x: float, y: float, z: float) -> Point:
        """Where a point of the world is seen."""
        zoom = self.focal / max(z, NEAR)
        return self.middle + (x - self.x) * zoom, self.horizon + (self.height - y) * zoom


class Brush:
    """Paints shapes of the world. A shape without a class changes the picture only."""

    def __init__(self, domain: Domain, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size
        self.domain, self.camera, self.rng = domain, camera, rng
        self.unit = height * SCALE
        self.edge = width / height
        """The right edge of the image, in image heights."""
        self.image = Image.new("RGB", (width * SCALE, height * SCALE))
        self.label = Image.new("L", self.image.size, IGNORE)
        self._image = ImageDraw.Draw(self.image)
        self._label = ImageDraw.Draw(self.label)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """The picture, float32 (H, W, 3) of 0 to 255, and its label, uint8 (H, W)."""
        image = np.asarray(self.image.reduce(SCALE), np.float32)
        return image, np.asarray(self.label)[1::SCALE, 1::SCALE].copy()

    def pick(self, what: str) -> Color:
        """One of the domain's colors of `what`, somewhat changed."""
        colors = self.domain.colors[what]
        red, green, blue = colors[self.rng.integers(len(colors))]
        light, *shift = self.rng.normal(0, self.domain.jitter, 4).tolist()
        light, shift = 1 + light, [120 * s for s in shift]
        return _color(red * light + shift[0], green * light + shift[1], blue * light + shift[2])

    def polygon(self, points: Sequence[tuple[float, float, float]], color: Color, label: int | None) -> None:
        """Fill a polygon of the world."""
        depth = sum(max(z, NEAR) for _, _, z in points) / len(points)
        self.screen([self.camera.project(*point) for point in points], color, label, depth)

    def upright(self, x: float, z: float, points: Sequence[Point], color: Color, label: int | None) -> None:
        """Fill a polygon that faces the camera, its points in meters from the spot (x, z) on the ground."""
        self.polygon([(x + dx, y, z) for dx, y in points], color, label)

    def box(
        self, x: float, z: float, corners: tuple[float, float, float, float], color: Color, label: int | None
    ) -> None:
        """Fill an upright rectangle: left, bottom, right and top in meters from the spot (x, z)."""
        left, low, right, high = corners
        self.upright(x, z, [(left, low), (right, low), (right, high), (left, high)], color, label)

    def bar(
        self,
        start: tuple[float, float, float],
        end: tuple[float, float, float],
        width: float,
        color: Color,
        label: int | None,
    ) -> None:
        """Draw a straight bar `width` meters thick, never so thin that the label loses it."""
        ends = [tuple(v * self.unit for v in self.camera.project(*point)) for point in (start, end)]
        thick = max(SCALE, round(width * self.camera.focal / max(start[2], NEAR) * self.unit))
        self._image.line(ends, fill=self._ink(color, start[2]), width=thick)
        if label is not None:
            self._label.line(ends, fill=label, width=thick)

    def disc(
        self, x: float, y: float, z: float, radius: float, color: Color, label: int | None, flat: float = 1
    ) -> None:
        """Fill a disc that faces the camera; `flat` is its height over its width."""
        u, v = self.camera.project(x, y, z)
        wide = radius * self.camera.focal / max(z, NEAR)
        ends = [(e * self.unit) for e in (u - wide, v - wide * flat, u + wide, v + wide * flat)]
        self._image.ellipse(ends, fill=self._ink(color, z))
        if label is not None:
            self._label.ellipse(ends, fill=label)

    def screen(self, points: Sequence[Point], color: Color, label: int | None, depth: float = 0) -> None:
        """Fill a polygon of the image itself, its points in image heights."""
        pixels = [(u * self.unit, v * self.unit) for u, v in points]
        self._image.polygon(pixels, fill=self._ink(color, depth))
        if label is not None:
            self._label.polygon(pixels, fill=label)

    def _ink(self, color: Color, depth: float) -> Color:
        """The color as seen through the air."""
        return mix(color, self.domain.haze, 1 - math.exp(-depth / self.domain.sight))


def mix(color: Color, other: Color, share: float) -> Color:
    """A color between two."""
    (r, g, b), (red, green, blue) = color, other
    return _color(r + (red - r) * share, g + (green - g) * share, b + (blue - b) * share)


def shade(color: Color, light: float) -> Color:
    """The same color in another light."""
    red, green, blue = color
    return _color(red * light, green * light, blue * light)


def _color(red: float, green: float, blue: float) -> Color:
    return _byte(red), _byte(green), _byte(blue)


def _byte(value: float) -> int:
    return min(255, max(0, int(value + 0.5)))
