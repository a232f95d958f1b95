"""SYNTHIA-RAND-CITYSCAPES: 9,400 drawn street scenes with Cityscapes' classes but terrain, truck and train."""

from selftrain.data.datasets import DataSet, Layout

IDS: dict[int, str | None] = {
    0: None,
    1: "sky",
    2: "building",
    3: "road",
    4: "sidewalk",
    5: "fence",
    6: "vegetation",
    7: "pole",
    8: "car",
    9: "traffic sign",
    10: "person",
    11: "bicycle",
    12: "motorcycle",
    13: None,  # parking
    14: None,  # road work
    15: "traffic light",
    16: "terrain",  # has an id, and no pixel
    17: "rider",
    18: "truck",
    19: "bus",
    20: "train",
    21: "wall",
    22: None,  # lane markings
}

DATA_SET = DataSet(
    title="SYNTHIA-RAND-CITYSCAPES",
    source=(
        "synthia-dataset.net: unpack SYNTHIA_RAND_CITYSCAPES.rar so that RGB/0000000.png and GT/LABELS/0000000.png "
        "lie in this folder"
    ),
    # Its labels are RGB files of 16 bits: the class, the instance, nothing.
    splits={"all": (Layout("RGB/{}.png", "GT/LABELS/{}.png", IDS, label_channel=0),)},
    counts={"all": 9400},
)
