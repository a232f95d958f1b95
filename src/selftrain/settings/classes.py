"""The class names and colors of published data sets, as tables: `classes: cityscapes` stands for a list of them."""

from typing import Literal, get_args

CITYSCAPES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
NOT_IN_SYNTHIA = ("terrain", "truck", "train")
SELDOM_LEARNED = ("wall", "fence", "pole")
"""What papers leave out beside those, for mIoU* over 13 classes."""
VOC = {
    "background": (0, 0, 0),
    "aeroplane": (128, 0, 0),
    "bicycle": (0, 128, 0),
    "bird": (128, 128, 0),
    "boat": (0, 0, 128),
    "bottle": (128, 0, 128),
    "bus": (0, 128, 128),
    "car": (128, 128, 128),
    "cat": (64, 0, 0),
    "chair": (192, 0, 0),
    "cow": (64, 128, 0),
    "diningtable": (192, 128, 0),
    "dog": (64, 0, 128),
    "horse": (192, 0, 128),
    "motorbike": (64, 128, 128),
    "person": (192, 128, 128),
    "pottedplant": (0, 64, 0),
    "sheep": (128, 64, 0),
    "sofa": (0, 192, 0),
    "train": (128, 192, 0),
    "tvmonitor": (0, 64, 128),
}
CAMVID = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}

Color = tuple[int, int, int]
ClassTable = Literal["cityscapes", "cityscapes-16", "cityscapes-13", "voc", "camvid"]


def _without(names: tuple[str, ...]) -> dict[str, Color]:
    return {name: color for name, color in CITYSCAPES.items() if name not in names}


TABLES: dict[str, dict[str, Color]] = {
    "cityscapes": CITYSCAPES,
    "cityscapes-16": _without(NOT_IN_SYNTHIA),
    "cityscapes-13": _without(NOT_IN_SYNTHIA + SELDOM_LEARNED),
    "voc": VOC,
    "camvid": CAMVID,
}
"""Colors by class, in the order of the class indices."""
assert tuple(TABLES) == get_args(ClassTable)
