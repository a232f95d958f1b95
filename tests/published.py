"""Small trees in the layouts of published data sets, with files beside the images and labels as there are."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SHAPE = (6, 12)


def image(path: Path, shape: tuple[int, int] = SHAPE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32("/".join(path.parts[-4:]).encode())  # no two are alike
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)).save(path)


def label(path: Path, ids: Iterable[int], shape: tuple[int, int] = SHAPE, palette: bool = False) -> None:
    """All `ids` in turn, row by row; gray, or with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.resize(np.array(list(ids), np.uint8), shape))
    if palette:
        picture.putpalette(list(range(256)) * 3)
    picture.save(path)


def png_16_bits(path: Path, channels: np.ndarray) -> None:
    """Write uint16 (H, W, 3) as PNG, which Pillow cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = channels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def cityscapes(
    root: Path, train: int = 3, val: int = 2, extra: int = 2, kinds: tuple[str, ...] = ("labelIds",)
) -> Path:
    """Cities as folders; the labels of `train` and `val` are fine, those of `train_extra` coarse."""
    folder = root / "cityscapes"
    for split, labels, count in (
        ("train", "gtFine", train),
        ("val", "gtFine", val),
        ("train_extra", "gtCoarse", extra),
    ):
        for number in range(count):
            city = ("aachen", "ulm")[number % 2]
            stem = f"{split}/{city}/{city}_{number:06}_000019"
            image(folder / f"leftImg8bit/{stem}_leftImg8bit.png")
            for kind in kinds:
                ids = [*range(19), 255] if kind == "labelTrainIds" else range(34)
                label(folder / f"{labels}/{stem}_{labels}_{kind}.png", ids)
            label(folder / f"{labels}/{stem}_{labels}_instanceIds.png", [0])
            (folder / f"{labels}/{stem}_{labels}_polygons.json").write_text("{}")
    return folder


def gta5(root: Path, count: int = 3, odd: tuple[int, ...] = ()) -> Path:
    """The labels numbered in `odd` are a row higher than their images."""
    folder = root / "gta5"
    for number in range(1, count + 1):
        image(folder / f"images/{number:05}.png")
        shape = (SHAPE[0] + 1, SHAPE[1]) if number in odd else SHAPE
        label(folder / f"labels/{number:05}.png", range(35), shape, palette=True)
    (folder / "read_mapping").mkdir(parents=True, exist_ok=True)
    return folder


def synthia(root: Path, count: int = 2) -> Path:
    """Labels of 16 bits: classes, instances beyond 255, nothing."""
    folder = root / "synthia"
    for number in range(count):
        image(folder / f"RGB/{number:07}.png")
        channels = np.zeros((*SHAPE, 3), np.uint16)
        channels[..., 0] = np.resize(np.arange(23), SHAPE)
        channels[..., 1] = np.resize(np.arange(0, 60000, 777), SHAPE)
        png_16_bits(folder / f"GT/LABELS/{number:07}.png", channels)
        image(folder / f"GT/COLOR/{number:07}.png")
    return folder


def voc(root: Path, train: int = 2, val: int = 2, aug: int = 3, other: int = 2) -> Path:
    """The augmented set holds labels of all of them; `other` images have none."""
    folder = root / "voc"
    names = [f"20{7 + number:02}_{number:06}" for number in range(train + val + aug + other)]
    fine, augmented = names[: train + val], names[: train + val + aug]
    for name in names:
        image(folder / f"JPEGImages/{name}.jpg")
    for name in fine:
        label(folder / f"SegmentationClass/{name}.png", [*range(21), 255], palette=True)
    for name in augmented:
        label(folder / f"SegmentationClassAug/{name}.png", [*range(21), 255])
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, part in (("train", names[:train]), ("val", names[train : train + val]), ("trainval", fine)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in part))
    return folder


def bdd100k(root: Path, train: int = 2, val: int = 2, *, first_release: bool = False) -> Path:
    """With class ids as trained, in either layout."""
    folder = root / "bdd100k"
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            name = f"{number:08x}-{split}"
            of_image = f"seg/images/{split}/{name}.jpg" if first_release else f"images/10k/{split}/{name}.jpg"
            of_label = (
                f"seg/labels/{split}/{name}_train_id.png"
                if first_release
                else f"labels/sem_seg/masks/{split}/{name}.png"
            )
            image(folder / of_image)
            label(folder / of_label, [*range(19), 255])
    return folder


def camvid(root: Path, count: int = 2) -> Path:
    """As in SegNet's tutorial."""
    folder = root / "camvid"
    for split in ("train", "val", "test"):
        for number in range(count):
            image(folder / f"{split}/0001TP_{number:06}.png")
            label(folder / f"{split}annot/0001TP_{number:06}.png", range(12))
        (folder / f"{split}.txt").write_text("/SegNet/CamVid/...\n")
    return folder


TREES = {
    "cityscapes": cityscapes,
    "gta5": gta5,
    "synthia": synthia,
    "voc": voc,
    "bdd100k": bdd100k,
    "camvid": camvid,
}
