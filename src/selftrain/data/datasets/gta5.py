"""GTA5 ('Playing for Data'): 24,966 frames of a computer game, labeled with the ids of Cityscapes."""

from selftrain.data.datasets import DataSet, Layout
from selftrain.data.datasets.cityscapes import LABEL_IDS

DATA_SET = DataSet(
    title="GTA5",
    source=(
        "download.visinf.tu-darmstadt.de/data/from_games: unpack 01_images.zip to 10_images.zip and 01_labels.zip to "
        "10_labels.zip so that images/00001.png and labels/00001.png lie in this folder"
    ),
    splits={"all": (Layout("images/{}.png", "labels/{}.png", LABEL_IDS),)},
    counts={"all": 24966},
    stretch_labels=True,  # a few labels are some rows larger or smaller than their image
)
