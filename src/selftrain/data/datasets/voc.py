"""PASCAL VOC 2012 with the augmented set: 1,464 labeled images to train on, 9,118 more of SBD, 1,449 to validate."""

from selftrain.data.datasets import DataSet, Layout
from selftrain.settings.classes import VOC as CLASSES

IDS: dict[int, str | None] = dict(enumerate(CLASSES)) | {255: None}
IMAGES, FINE, AUGMENTED = "JPEGImages/{}.jpg", "SegmentationClass/{}.png", "SegmentationClassAug/{}.png"
TRAIN, VAL = "ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt"

DATA_SET = DataSet(
    title="PASCAL VOC 2012",
    source=(
        "host.robots.ox.ac.uk/pascal/VOC/voc2012: unpack VOCtrainval_11-May-2012.tar so that JPEGImages, "
        "SegmentationClass and ImageSets of VOCdevkit/VOC2012 lie in this folder; the augmented set is a folder "
        "SegmentationClassAug of 12,031 label PNGs beside them, as SBD's labels are usually passed on"
    ),
    splits={
        "train": (Layout(IMAGES, FINE, IDS, named_by=(TRAIN,)),),
        "val": (Layout(IMAGES, FINE, IDS, named_by=(VAL,)),),
        "train_aug": (Layout(IMAGES, AUGMENTED, IDS, left_out_by=(VAL,)),),
        "aug": (Layout(IMAGES, AUGMENTED, IDS, left_out_by=(TRAIN, VAL)),),  # what the augmented set adds
    },
    counts={"train": 1464, "val": 1449, "train_aug": 10582, "aug": 9118},
)
