"""Cityscapes: streets of 50 cities, 2,975 finely labeled images to train on, 500 to validate, 20,000 coarse ones."""

from selftrain.data.datasets import DataSet, Layout
from selftrain.settings.classes import CITYSCAPES as CLASSES

LABEL_IDS: dict[int, str | None] = dict.fromkeys([*range(35), 255]) | {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""Of 35 classes the 19 that are evaluated; license plates, −1, are 255 in a file."""
TRAIN_IDS: dict[int, str | None] = dict(enumerate(CLASSES)) | {255: None}


def _layouts(split: str, labels: str) -> tuple[Layout, ...]:
    images, stem = f"leftImg8bit/{split}/{{}}_leftImg8bit.png", f"{labels}/{split}/{{}}_{labels}"
    return (
        Layout(images, f"{stem}_labelTrainIds.png", TRAIN_IDS),
        Layout(images, f"{stem}_labelIds.png", LABEL_IDS),
    )


DATA_SET = DataSet(
    title="Cityscapes",
    source=(
        "www.cityscapes-dataset.com (after registration): unpack leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip (for the split train_extra leftImg8bit_trainextra.zip) so that "
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png and "
        "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png lie in this folder"
    ),
    splits={
        "train": _layouts("train", "gtFine"),
        "val": _layouts("val", "gtFine"),
        "train_extra": _layouts("train_extra", "gtCoarse"),
        "test": (Layout("leftImg8bit/test/{}_leftImg8bit.png"),),  # its labels are not public
    },
    counts={"train": 2975, "val": 500, "train_extra": 19998, "test": 1525},
)
