"""How each thing of a street is painted. All lengths are in meters."""

from __future__ import annotations

import numpy as np

from selftrain.data.streets.brush import Brush, mix, shade
from selftrain.data.streets.domains import (
    BICYCLIST,
    BUILDING,
    CAR,
    FENCE,
    IGNORE,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
    Color,
)

STORY = 2.9
TIRE = (24, 24, 26)


def sky(brush: Brush) -> None:
    """A sky that pales toward the horizon, with some clouds."""
    color, cloud = brush.pick("sky"), brush.pick("cloud")
    bands = 12
    for band in range(bands):
        top = brush.camera.horizon * band / bands
        paler = mix(color, brush.domain.haze, 0.8 * band / bands)
        brush.screen([(0, top), (brush.edge, top), (brush.edge, 1), (0, 1)], paler, SKY)
    for _ in range(brush.rng.integers(2, 6)):
        x, y, radius = brush.rng.uniform((-15, 4, 0.8), (15, 16, 3))
        brush.disc(x, y, 30, radius, mix(cloud, color, 0.3), None, flat=0.3)


def ground(brush: Brush, curb: float, wall: float, end: float) -> None:
    """Pavement from wall to wall, and the road between the curbs with its markings."""
    paving, asphalt = brush.pick("pavement"), brush.pick("road")
    _strip(brush, -wall - 1, wall + 1, 0, end, paving, PAVEMENT)
    _strip(brush, -curb, curb, 0, end, asphalt, ROAD)
    if brush.domain.photographed:
        _shadow(brush, curb, wall, end, paving, asphalt)
    for edge in (-curb, curb - 0.15):
        _strip(brush, edge, edge + 0.15, 0, end, shade(paving, 1.15), PAVEMENT)
    white, start = brush.pick("marking"), brush.rng.uniform(0, 6)
    for z in np.arange(start - 6, 60, 6):
        _strip(brush, -0.08, 0.08, z, z + 3, white, None)
    if brush.rng.random() < 0.3:
        _crossing(brush, curb, brush.rng.uniform(6, 25), white)


def _strip(brush: Brush, left: float, right: float, near: float, far: float, color: Color, label: int | None) -> None:
    brush.polygon([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)], color, label)


def _crossing(brush: Brush, curb: float, z: float, white: Color) -> None:
    for x in np.arange(-curb + 0.3, curb - 0.3, 1.0):
        _strip(brush, x, x + 0.5, z, z + 3, white, None)


def _shadow(brush: Brush, curb: float, wall: float, end: float, paving: Color, asphalt: Color) -> None:
    """In sunlight the houses of one side darken the ground in front of them."""
    side, reach = brush.rng.choice((-1, 1)), brush.rng.uniform(0, 1.2) * curb
    _strip(brush, side * wall, side * curb, 0, end, shade(paving, 0.75), None)
    _strip(brush, side * curb, side * (curb - reach), 0, end, shade(asphalt, 0.75), None)


def skyline(brush: Brush, wall: float, end: float) -> None:
    """Houses and trees that close the street."""
    x = -wall - 4
    while x < wall + 4:
        width = brush.rng.uniform(3, 8)
        if brush.rng.random() < brush.domain.greenery:
            brush.disc(x + width / 2, 2, end, width * 0.8, brush.pick("tree"), TREE)
        else:
            brush.box(x, end, (0, 0, width, brush.rng.uniform(4, 10)), brush.pick("building"), BUILDING)
        x += width


def building(brush: Brush, wall: float, near: float, far: float) -> None:
    """A block with a facade along the street and a gable toward the camera."""
    side, color = np.sign(wall), brush.pick("building")
    stories = int(brush.rng.integers(*brush.domain.stories, endpoint=True))
    top = stories * STORY + brush.rng.uniform(0.3, 1.2)
    brush.box(wall, near, (0, 0, side * 14, top), shade(color, 0.8), BUILDING)
    facade = [(wall, 0, near), (wall, 0, far), (wall, top, far), (wall, top, near)]
    brush.polygon(facade, color, BUILDING)
    _windows(brush, wall, near, far, stories)


def _windows(brush: Brush, wall: float, near: float, far: float, stories: int) -> None:
    glass, gap = brush.pick("window"), brush.rng.uniform(2.2, 3.6)
    for z in np.arange(near + 0.8, min(far, 45) - 1.2, gap):
        for story in range(stories):
            low, high = story * STORY + 0.9, story * STORY + 2.3
            pane = [(wall, low, z), (wall, low, z + 1.1), (wall, high, z + 1.1), (wall, high, z)]
            brush.polygon(pane, glass, None)


def hedge(brush: Brush, wall: float, near: float, far: float) -> None:
    """A hedge along the street, with bushes that break its outline."""
    color, top = brush.pick("hedge"), brush.rng.uniform(1.9, 2.8)
    brush.box(wall, near, (0, 0, 12 * np.sign(wall), top), shade(color, 0.85), TREE)
    brush.polygon([(wall, 0, near), (wall, 0, far), (wall, top, far), (wall, top, near)], color, TREE)
    for z in np.arange(far, max(near, 3), -2.5):
        brush.disc(wall + np.sign(wall) * 0.8, top, z, brush.rng.uniform(0.7, 1.5), color, TREE)
    if brush.rng.random() < 0.6:
        tree(brush, wall + 1.5 * np.sign(wall), max(far - 2, 8))


def fence(brush: Brush, wall: float, near: float, far: float) -> None:
    """A fence of boards."""
    color, top = brush.pick("fence"), brush.rng.uniform(1.1, 1.6)
    brush.polygon([(wall, 0, near), (wall, 0, far), (wall, top, far), (wall, top, near)], color, FENCE)
    dark = shade(color, 0.7)
    for z in np.arange(near, min(far, 30), 0.6):
        pale = [(wall, 0, z), (wall, 0, z + 0.2), (wall, top, z + 0.2), (wall, top, z)]
        brush.polygon(pale, dark, None)


def tree(brush: Brush, x: float, z: float) -> None:
    """A trunk and a crown of overlapping tufts, lighter to the top."""
    rng, color = brush.rng, brush.pick("tree")
    top, radius = rng.uniform(4.0, 6.5), rng.uniform(1.2, 2.2)
    brush.box(x, z, (-0.15, 0, 0.15, top - radius), brush.pick("trunk"), TREE)
    for light in np.linspace(0.75, 1.15, 9):
        dx, dy = rng.uniform(-0.6, 0.6, 2) * radius
        y = top - radius + dy + (light - 0.95) * radius
        brush.disc(x + dx, y, z, radius * rng.uniform(0.5, 0.8), shade(color, light), TREE)


def pole(brush: Brush, x: float, z: float) -> None:
    """A lamp post, or a shorter pole that carries a sign."""
    color = brush.pick("pole")
    if brush.rng.random() < brush.domain.signed:
        high = brush.rng.uniform(2.4, 3.2)
        brush.bar((x, 0, z), (x, high, z), 0.15, color, POLE)
        _sign(brush, x, high, z)
    else:
        high, arm = brush.rng.uniform(5, 7), -1.2 * np.sign(x)
        brush.bar((x, 0, z), (x, high, z), 0.24, color, POLE)
        brush.bar((x, high, z), (x + arm, high + 0.2, z), 0.15, color, POLE)


def _sign(brush: Brush, x: float, y: float, z: float) -> None:
    color, size = brush.pick("sign"), brush.rng.uniform(0.4, 0.6)
    shape = brush.rng.integers(3)
    if shape == 0:
        brush.disc(x, y, z, size, color, SIGN)
        brush.disc(x, y, z, size * 0.6, (245, 245, 245), None)
    elif shape == 1:
        brush.upright(x, z, [(-size, y - size), (size, y - size), (0, y + size)], color, SIGN)
    else:
        brush.box(x, z, (-size, y - size, size, y + size), color, SIGN)


def car(brush: Brush, x: float, z: float) -> None:
    """A car seen from one end, with the flank that faces the camera."""
    color = brush.pick("car")
    half, length, hood, roof = brush.rng.uniform((0.8, 3.6, 0.85, 1.4), (0.95, 4.6, 1.0, 1.75)).tolist()
    side, far = x + (half if x < brush.camera.x else -half), z + length
    _strip(brush, x - half - 0.1, x + half + 0.1, z - 0.2, far, (30, 30, 34), ROAD)
    body = [(side, 0.25, z), (side, 0.25, far), (side, hood, far), (side, hood, z)]
    brush.polygon(body, shade(color, 0.75), CAR)
    for wheel in (far - 0.8, z + 0.8):
        brush.disc(side, 0.32, wheel, 0.32, TIRE, CAR)
    deck = [(x - half, hood, z), (x + half, hood, z), (x + half, hood, far), (x - half, hood, far)]
    brush.polygon(deck, shade(color, 0.9), CAR)
    top = x + (side - x) * 0.8
    cabin = [(side, hood, z + 0.3), (side, hood, far - 1), (top, roof, far - 1.6), (top, roof, z + 0.3)]
    brush.polygon(cabin, shade(color, 0.8), CAR)
    _car_end(brush, x, z, half, hood, roof, color)


def _car_end(brush: Brush, x: float, z: float, half: float, hood: float, roof: float, color: Color) -> None:
    """The near end: wheels, body, window, lights and plate."""
    glass, oncoming = brush.pick("glass"), x < 0
    for side in (-1, 1):
        brush.box(x + side * (half - 0.2), z, (-0.12, 0, 0.12, 0.4), TIRE, CAR)
    top = [(-half, hood), (half, hood), (half * 0.8, roof), (-half * 0.8, roof)]
    brush.upright(x, z + 0.3, top, color, CAR)
    pane = [(-half * 0.86, hood), (half * 0.86, hood), (half * 0.72, roof - 0.1), (-half * 0.72, roof - 0.1)]
    brush.upright(x, z + 0.3, pane, glass, None)
    brush.box(x, z, (-half, 0.22, half, hood), color, CAR)
    brush.box(x, z, (-0.26, 0.42, 0.26, 0.54), (236, 236, 220), None)
    light = (250, 246, 210) if oncoming else (220, 30, 30)
    for side in (-1, 1):
        brush.box(x + side * (half - 0.2), z, (-0.16, 0.62, 0.16, 0.78), light, None)


def pedestrian(brush: Brush, x: float, z: float) -> None:
    """A person on foot."""
    tall, stride = brush.rng.uniform(1.55, 1.9), brush.rng.uniform(0.05, 0.3)
    hip, shoulder = tall * 0.5, tall * 0.83
    trousers, clothes = brush.pick("trousers"), brush.pick("clothes")
    for side in (-1, 1):
        brush.bar((x + side * stride, 0, z), (x + side * 0.08, hip, z), 0.17, trousers, PEDESTRIAN)
        brush.bar((x + side * 0.3, hip, z), (x + side * 0.2, shoulder, z), 0.12, shade(clothes, 0.85), PEDESTRIAN)
    torso = [(-0.2, hip - 0.05), (0.2, hip - 0.05), (0.26, shoulder), (-0.26, shoulder)]
    brush.upright(x, z, torso, clothes, PEDESTRIAN)
    brush.disc(x, tall - 0.13, z, 0.13, brush.pick("skin"), PEDESTRIAN, flat=1.2)


def bicyclist(brush: Brush, x: float, z: float) -> None:
    """A bicycle seen aslant and its rider, one silhouette."""
    rng, frame, jersey = brush.rng, brush.pick("bicycle"), brush.pick("jersey")
    ahead = rng.choice((-1, 1)) * rng.uniform(0.3, 0.55)
    for wheel in (-ahead, ahead):
        _wheel(brush, x + wheel, z, frame)
    brush.bar((x - ahead, 0.36, z), (x, 0.9, z), 0.1, frame, BICYCLIST)
    brush.bar((x, 0.9, z), (x + ahead, 0.95, z), 0.1, frame, BICYCLIST)
    brush.bar((x + ahead, 0.36, z), (x + ahead, 1.05, z), 0.1, frame, BICYCLIST)
    legs = brush.pick("trousers")
    brush.bar((x - ahead * 0.2, 0.95, z), (x + ahead * 0.2, 0.35, z), 0.2, legs, BICYCLIST)
    brush.bar((x - ahead * 0.2, 0.9, z), (x + ahead * 0.35, 1.5, z), 0.42, jersey, BICYCLIST)
    brush.bar((x + ahead * 0.35, 1.4, z), (x + ahead, 1.05, z), 0.13, brush.pick("skin"), BICYCLIST)
    brush.disc(x + ahead * 0.5, 1.68, z, 0.16, jersey, BICYCLIST, flat=1.1)


def _wheel(brush: Brush, x: float, z: float, color: Color) -> None:
    """A tire with the road seen through it: labels count the whole wheel, as people draw them."""
    brush.disc(x, 0.34, z, 0.34, color, BICYCLIST)
    brush.disc(x, 0.34, z, 0.22, mix(color, (120, 120, 124), 0.7), None)


def bonnet(brush: Brush) -> None:
    """The camera's own car at the bottom of the image, which is nobody's class."""
    color, high = shade(brush.pick("car"), 0.7), brush.rng.uniform(0.03, 0.09)
    angles = np.linspace(0, np.pi, 24)
    for inset, light in ((0.0, 1.0), (0.3, 1.25)):
        outline = [(brush.edge * (0.5 + 0.6 * np.cos(a)), 1.0 - high * (1 - inset) * np.sin(a) ** 0.6) for a in angles]
        brush.screen([(brush.edge * 1.1, 1.05), *outline, (-0.1, 1.05)], shade(color, light), IGNORE)
