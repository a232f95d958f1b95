"""What the two worlds of `streets` are made of: their classes, colors, cameras and mixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Color = tuple[int, int, int]
Range = tuple[float, float]

CLASSES: tuple[str, ...] = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)
"""CamVid's eleven classes, in the order of their ids."""

COLORS: tuple[Color, ...] = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
"""CamVid's color of each class."""

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CLASSES))
IGNORE = 255


@dataclass(frozen=True)
class Domain:
    """One world: ranges are uniform, means are of Poisson counts, lengths are in meters."""

    colors: Mapping[str, tuple[Color, ...]]
    jitter: float
    """How far an object's color strays from its palette."""
    haze: Color
    sight: float
    """Depth at which haze hides two thirds of a color."""
    focal: Range
    camera_height: Range
    horizon: Range
    road: Range
    """Half the road's width."""
    pavement: Range
    stories: tuple[int, int]
    greenery: float
    """Share of the street's sides that is hedge instead of building."""
    fenced: float
    """Share of the street's sides behind a fence."""
    trees: float
    parked: float
    driving: float
    pedestrians: float
    bicyclists: float
    poles: float
    signed: float
    """Share of the poles that carry a sign."""
    photographed: bool
    """Whether light, lens and sensor leave their marks."""


SYNTHETIC = Domain(
    colors={
        "sky": ((96, 172, 250), (120, 190, 255), (80, 150, 240), (176, 212, 244)),
        "cloud": ((245, 250, 255),),
        "building": ((206, 92, 60), (224, 164, 84), (178, 112, 160), (214, 196, 146), (160, 70, 70)),
        "window": ((70, 110, 150), (90, 140, 180)),
        "road": ((84, 84, 98), (96, 92, 104)),
        "marking": ((250, 250, 240),),
        "pavement": ((206, 184, 172), (190, 176, 180)),
        "hedge": ((40, 140, 54), (60, 150, 40)),
        "tree": ((36, 160, 50), (76, 184, 44), (30, 130, 70)),
        "trunk": ((112, 70, 40),),
        "pole": ((60, 64, 84), (80, 80, 96)),
        "sign": ((232, 36, 36), (36, 76, 232), (250, 210, 30)),
        "fence": ((156, 100, 48), (240, 236, 226), (120, 76, 40)),
        "car": ((232, 30, 40), (30, 60, 220), (250, 220, 20), (244, 244, 244), (20, 180, 170)),
        "glass": ((40, 60, 90),),
        "clothes": ((230, 60, 160), (250, 140, 30), (120, 50, 200), (240, 240, 90)),
        "trousers": ((40, 40, 110), (70, 50, 40)),
        "skin": ((244, 196, 156), (150, 100, 70)),
        "jersey": ((20, 220, 220), (160, 250, 60), (250, 90, 40)),
        "bicycle": ((20, 20, 30),),
    },
    jitter=0.06,
    haze=(160, 194, 236),
    sight=140,
    focal=(0.9, 1.05),
    camera_height=(1.4, 1.7),
    horizon=(0.45, 0.54),
    road=(3.8, 5.4),
    pavement=(1.8, 3.0),
    stories=(1, 3),
    greenery=0.25,
    fenced=0.2,
    trees=2.5,
    parked=4.0,
    driving=1.6,
    pedestrians=2.4,
    bicyclists=0.7,
    poles=4,
    signed=0.65,
    photographed=False,
)

REAL = Domain(
    colors={
        "sky": ((146, 194, 244), (122, 178, 244), (182, 212, 242)),
        "cloud": ((236, 236, 236), (188, 192, 198)),
        "building": ((190, 108, 74), (206, 160, 104), (156, 80, 68), (166, 124, 146), (208, 188, 146)),
        "window": ((60, 66, 74), (110, 118, 126)),
        "road": ((90, 90, 100), (82, 82, 94), (102, 98, 106)),
        "marking": ((226, 224, 216),),
        "pavement": ((194, 174, 164), (180, 166, 166), (200, 180, 168)),
        "hedge": ((44, 116, 48), (62, 126, 42)),
        "tree": ((40, 130, 48), (76, 148, 46), (98, 124, 46), (36, 108, 58)),
        "trunk": ((76, 64, 54),),
        "pole": ((72, 74, 76), (108, 108, 106)),
        "sign": ((216, 40, 40), (40, 78, 206), (234, 196, 44)),
        "fence": ((144, 98, 54), (218, 214, 204), (108, 78, 52)),
        "car": ((44, 48, 60), (206, 208, 212), (234, 234, 234), (196, 34, 42), (36, 64, 176), (222, 194, 44)),
        "glass": ((46, 54, 62),),
        "clothes": ((190, 60, 134), (212, 112, 40), (104, 60, 170), (216, 210, 100), (66, 84, 118)),
        "trousers": ((44, 46, 88), (66, 52, 46)),
        "skin": ((204, 164, 138), (130, 92, 72)),
        "jersey": ((34, 194, 198), (166, 228, 68), (226, 90, 48)),
        "bicycle": ((36, 36, 40),),
    },
    jitter=0.08,
    haze=(176, 198, 226),
    sight=120,
    focal=(0.95, 1.15),
    camera_height=(1.15, 1.4),
    horizon=(0.46, 0.56),
    road=(3.6, 5.2),
    pavement=(1.6, 3.4),
    stories=(1, 4),
    greenery=0.4,
    fenced=0.22,
    trees=6,
    parked=5.0,
    driving=1.6,
    pedestrians=4.0,
    bicyclists=0.9,
    poles=4.5,
    signed=0.6,
    photographed=True,
)

BY_NAME: Mapping[str, Domain] = {"synthetic": SYNTHETIC, "real": REAL}
