"""Composes a street: what stands where, and who hides whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from selftrain.data.streets import objects
from selftrain.data.streets.brush import NEAR, Brush, Camera
from selftrain.data.streets.domains import Domain, Range

END = 90.0
"""Where the street ends, in meters."""


@dataclass(frozen=True)
class Street:
    """The cross-section of a street, symmetric about x = 0."""

    curb: float
    """Half the road's width."""
    wall: float
    """From the middle to where buildings and hedges begin."""


def paint(domain: Domain, size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint one scene: float32 (H, W, 3) and uint8 (H, W).

    Everything is drawn from `rng` in the same order whatever the size, so a seed is the same street at any size.
    """
    curb = rng.uniform(*domain.road)
    street = Street(curb, curb + rng.uniform(*domain.pavement))
    camera = Camera(
        focal=rng.uniform(*domain.focal),
        x=rng.uniform(-0.1, 0.5) * curb,
        height=rng.uniform(*domain.camera_height),
        horizon=rng.uniform(*domain.horizon),
        middle=size[1] / size[0] / 2 + rng.uniform(-0.12, 0.12),
    )
    brush = Brush(domain, camera, size, rng)
    objects.sky(brush)
    objects.ground(brush, street.curb, street.wall, END)
    _sides(brush, street)
    for _, thing in sorted(_things(brush, street), key=lambda placed: -placed[0]):
        thing()
    if domain.photographed:
        objects.bonnet(brush)
    return brush.finish()


def _sides(brush: Brush, street: Street) -> None:
    """Both sides of the street and its end, far stretches first."""
    objects.skyline(brush, street.wall, END)
    for side in (-1, 1):
        for near, far in reversed(_stretches(brush.rng)):
            _stretch(brush, side * street.wall, near, far)


def _stretches(rng: np.random.Generator) -> list[Range]:
    """Cut the street's length into stretches of one building or hedge each."""
    lengths = rng.uniform(6, 18, size=16)
    ends = NEAR + np.concatenate([[0], np.cumsum(lengths)])
    return [(a, min(b, END)) for a, b in pairwise(ends.tolist()) if a < END]


def _stretch(brush: Brush, wall: float, near: float, far: float) -> None:
    green, fenced = brush.rng.random(2) < (brush.domain.greenery, brush.domain.fenced)
    (objects.hedge if green else objects.building)(brush, wall, near, far)
    if fenced:
        objects.fence(brush, wall - 0.3 * np.sign(wall), near, far)


Thing = tuple[float, partial[None]]


def _things(brush: Brush, street: Street) -> list[Thing]:
    """Everything that stands or moves on road and pavements, with its depth."""
    domain, walk = brush.domain, (street.curb + 0.3, street.wall - 0.5)
    kinds: list[tuple[Callable[..., None], float, Range, Range]] = [
        (objects.tree, domain.trees, (street.wall - 0.6, street.wall + 0.4), (9, 55)),
        (objects.pole, domain.poles, (street.curb + 0.2, street.curb + 0.5), (5, 45)),
        (objects.pedestrian, domain.pedestrians, walk, (5, 26)),
        (objects.bicyclist, domain.bicyclists, (street.curb - 1.6, street.curb - 0.4), (5.5, 20)),
        (objects.car, domain.parked, (street.curb - 1.4, street.curb - 1.1), (5, 45)),
        (objects.car, domain.driving, (street.curb * 0.2, street.curb * 0.35), (8, 40)),
    ]
    return [thing for kind, mean, across, along in kinds for thing in _place(brush, kind, mean, across, along)]


def _place(brush: Brush, kind: Callable[..., None], mean: float, across: Range, along: Range) -> list[Thing]:
    """A Poisson number of one kind, on either side of the street, denser where it is near."""
    rng, things = brush.rng, []
    for _ in range(rng.poisson(mean)):
        x = float(rng.choice((-1, 1)) * rng.uniform(*across))
        z = along[0] + (along[1] - along[0]) * rng.random() ** 1.5
        things.append((z, partial(kind, brush, x, z)))
    return things
