"""BDD100K: streets of the United States; 7,000 labeled images to train on, 1,000 to validate."""

from selftrain.data.datasets import DataSet, Layout
from selftrain.data.datasets.cityscapes import TRAIN_IDS


def _layouts(split: str) -> tuple[Layout, ...]:
    return (
        Layout(f"images/10k/{split}/{{}}.jpg", f"labels/sem_seg/masks/{split}/{{}}.png", TRAIN_IDS),
        Layout(f"seg/images/{split}/{{}}.jpg", f"seg/labels/{split}/{{}}_train_id.png", TRAIN_IDS),  # as first released
    )


DATA_SET = DataSet(
    title="BDD100K",
    source=(
        "bdd-data.berkeley.edu: unpack '10K Images' and 'Segmentation' so that images/10k/train/0004a4c0-d4dff0ad.jpg "
        "and labels/sem_seg/masks/train/0004a4c0-d4dff0ad.png lie in this folder (or, as first released, seg/images "
        "and seg/labels)"
    ),
    splits={
        "train": _layouts("train"),
        "val": _layouts("val"),
        "test": (Layout("images/10k/test/{}.jpg"), Layout("seg/images/test/{}.jpg")),
        "train_100k": (Layout("images/100k/train/{}.jpg"),),  # 70,000 images without masks
    },
    counts={"train": 7000, "val": 1000, "test": 2000, "train_100k": 70000},
)
