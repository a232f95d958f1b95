"""Bad data, a row a case: the command line says which file is wrong and why, and writes nothing."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refusals import COLOR, Code, changed, cut, unprivileged, written
from walking import call

from selftrain.graph import Graph
from selftrain.settings.config_file import parse

# A change is made to the files of a task that is well; `images` are those of a split.


def png(path: Path, pixels: Any, mode: str | None = None, **options: Any) -> None:
    picture = Image.fromarray(np.asarray(pixels))
    (picture if mode is None else picture.convert(mode)).save(path, **options)


def hidden(root: Path) -> None:
    (root / "hidden").mkdir()
    (root / "hidden/list.txt").write_text("a.png\n")
    (root / "hidden").chmod(0)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    png(path, COLOR, exif=exif)


def listed(root: Path, line: str) -> dict[str, Any]:
    (root / "list.txt").write_text(f"unlabeled/images/unlabeled-0.png\n{line}\n")
    return {"tasks.tiny.unlabeled": {"list": "list.txt"}}


def same(root: Path, split: str, of: str) -> None:
    shutil.rmtree(root / split / "images")
    shutil.copytree(root / of / "images", root / split / "images")


def bomb(path: Path) -> dict[str, Any]:
    """A small file of a million and a half pixels, where one million is allowed."""
    png(path, np.zeros((1500, 1000), np.uint8))
    assert path.stat().st_size < 4000
    return {"tasks.tiny.pixels": {"limit": 1}}


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n"
"""For which Pillow would start Ghostscript."""
IMAGE, LABEL = "labeled/images/labeled-0.png", "labeled/labels/labeled-0.png"
DATA: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a missing image": (lambda root: listed(root, "no.png"), ("unlabeled: ", "no.png: no such file")),
    "a missing label": (lambda root: (root / LABEL).unlink(), ("labeled-0.png: no label", "labeled/labels/*")),
    "no images": (lambda root: shutil.rmtree(root / "unlabeled"), ("unlabeled/images/*: no file matches",)),
    "an empty list": (lambda root: (listed(root, ""), (root / "list.txt").write_text("\n"))[0], ("split is empty",)),
    "a missing list": (lambda root: {"tasks.tiny.unlabeled": {"list": "no.txt"}}, ("no.txt: no such list file",)),
    "a list of bytes": (
        lambda root: (listed(root, ""), (root / "list.txt").write_bytes(b"\xff\x80"))[0],
        ("list.txt: not readable as a list",),
    ),
    "a line of three": (lambda root: listed(root, "a b c"), ("list.txt:2: 'a b c' should be an image",)),
    "a line that leaves the data": (
        lambda root: listed(root, "../../etc/passwd"),
        ("list.txt:2: '../../etc/passwd' points outside data_root", "only `outside_data_root: true` allows"),
    ),
    "an empty image": (lambda root: (root / IMAGE).write_bytes(b""), (IMAGE, "not readable as an image")),
    "a truncated image": (lambda root: cut(root / IMAGE), (IMAGE, "not readable as an image")),
    "text for an image": (lambda root: (root / IMAGE).write_text("text"), (IMAGE, "not readable as an image")),
    "a pickle for an image": (lambda root: (root / IMAGE).write_bytes(pickle.dumps(Code())), (IMAGE, "not readable")),
    "a pipe for an image": (
        lambda root: (os.mkfifo(root / "pipe.png"), listed(root, "pipe.png"))[1],
        ("unlabeled: ", "pipe.png: a pipe, not a file"),
    ),
    "a program for an image": (
        lambda root: (root / IMAGE).write_bytes(POSTSCRIPT),
        (IMAGE, "not readable as an image", "cannot identify"),
    ),
    "a line that is too long": (lambda root: listed(root, "a" * 5000), ("unlabeled: ", "aaa", "File name too long")),
    "a list that may not be read": (
        lambda root: (hidden(root), {"tasks.tiny.unlabeled": {"list": "hidden/list.txt"}})[1],
        ("hidden/list.txt: not readable as a list", "Permission denied"),
    ),
    "CMYK": (
        lambda root: png(root / "labeled/images/labeled-0.png", COLOR, "CMYK", format="jpeg"),
        ("CMYK", "8-bit RGB or gray is needed"),
    ),
    "alpha": (lambda root: png(root / IMAGE, COLOR, "RGBA"), (IMAGE, "RGBA; 8-bit RGB or gray is needed")),
    "16 bits": (lambda root: png(root / IMAGE, np.zeros((6, 8), np.uint16)), (IMAGE, "I;16", "8-bit RGB or gray")),
    "turned by EXIF": (lambda root: turned(root / IMAGE), (IMAGE, "EXIF orientation; save it upright")),
    "a bomb": (
        lambda root: bomb(root / IMAGE),
        (IMAGE, "image of 2 million pixels; at most 1", "pixels: {limit: ...}"),
    ),
    "a bomb for a label": (lambda root: bomb(root / LABEL), (LABEL, "image of 2 million pixels", "limit")),
    "a label of another size": (
        lambda root: png(root / LABEL, np.zeros((3, 4), np.uint8)),
        (LABEL, "label of 3×4, its image is 6×8"),
    ),
    "a label of other ids": (
        lambda root: png(root / LABEL, np.full((6, 8), 77, np.uint8)),
        (LABEL, "label ids 77 are neither classes 0 to 2 nor the ignore index 255"),
    ),
    "a label of floats": (
        lambda root: (
            png(root / "labeled/labels/labeled-0.tif", np.zeros((6, 8), np.float32)),
            (root / LABEL).unlink(),
        ),
        ("labeled-0.tif: label of floating-point numbers; integer class ids are needed",),
    ),
    "a label of colors": (lambda root: png(root / LABEL, COLOR), (LABEL, "mode RGB; a palette or gray image")),
    "a name with a line break": (
        lambda root: (root / IMAGE).rename(root / "labeled/images/labeled\n0.png"),
        ("labeled\\n0.png': a name with a line break", "rename it"),
    ),
    "a name that is no text": (
        lambda root: (root / IMAGE).rename(os.fsdecode(os.fsencode(root) + b"/labeled/images/labeled-0\xff.png")),
        ("labeled-0\\udcff.png': a name", "rename it"),
    ),
    "a stem twice": (
        lambda root: shutil.copy(root / IMAGE, root / "labeled/images/labeled-0.bmp"),
        ("labeled-0.bmp", "the same stem 'labeled-0' 2 times"),
    ),
    "a link that leads nowhere": (
        lambda root: (root / "labeled/images/x.png").symlink_to(root / "gone.png"),
        ("labeled/images/x.png: a link that leads nowhere",),
    ),
    "a link to itself": (
        lambda root: (root / "labeled/images/x.png").symlink_to(root / "labeled/images/x.png"),
        ("labeled/images/x.png: a link that leads nowhere",),
    ),
    "no permission": (lambda root: (root / IMAGE).chmod(0), (IMAGE, "not readable as an image", "Permission denied")),
    "a disk that fails": (
        lambda root: ((root / IMAGE).unlink(), (root / IMAGE).symlink_to("/proc/self/mem")),
        (IMAGE, "not readable as an image", "Input/output error"),
    ),
    "learned and evaluated on": (
        lambda root: shutil.copy(root / IMAGE, root / "val/images/val-0.png"),
        ("val: ", "val-0.png is in the labeled split too", IMAGE),
    ),
    "unlabeled images that are those to evaluate on": (
        lambda root: same(root, "unlabeled", of="val"),
        ("val: has the images of the unlabeled split", "transductive: true"),
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data(case, folder_task, tmp_path, refused, monkeypatch):
    change, told = DATA[case]
    monkeypatch.chdir(tmp_path)
    changes = change(tmp_path)
    config = changed(folder_task, changes if isinstance(changes, dict) else {})
    job = Graph(parse(config))
    settings = Path(job.told(job.check("tiny")))
    with unprivileged():
        refused("check", written(tmp_path, config), told=("task 'tiny': ", *told))
        refused(
            "stage", "check", "--settings", settings, "--output", "out.csv", told=told, outputs=[tmp_path / "out.csv"]
        )
    assert not (tmp_path / "code-ran").exists()


def test_files_outside_of_the_data_may_be_allowed(folder_task, tmp_path):
    shutil.copy(tmp_path / "unlabeled/images/unlabeled-0.png", tmp_path.parent / "other.png")
    change = listed(tmp_path, "../other.png") | {"outside_data_root": True}
    assert call("check", written(tmp_path, changed(folder_task, change))) == 0


def test_images_may_be_learned_from_without_labels_and_evaluated_on(folder_task, tmp_path):
    same(tmp_path, "unlabeled", of="val")
    assert call("check", written(tmp_path, changed(folder_task, {"tasks.tiny.transductive": True}))) == 0


def test_links_that_lead_in_circles_are_followed_once(folder_task, tmp_path):
    """Each of two such links in a folder doubles what a walk finds at every level."""
    for name in ("a", "b", "c"):
        (tmp_path / "unlabeled/images" / name).symlink_to(tmp_path / "unlabeled/images")
    change = {"tasks.tiny.unlabeled.images": "unlabeled/images/**/*.png"}
    assert call("check", written(tmp_path, changed(folder_task, change))) == 0
