"""Published data sets: which files a split has, and which class each id of its labels is."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import yaml

from selftrain.cli import check as check_command
from selftrain.data.batches import Stream
from selftrain.data.check import check
from selftrain.data.listing import list_split
from selftrain.data.reading import read_label
from selftrain.data.tables import read_images, working_sizes, write_images
from selftrain.errors import UserError
from selftrain.graph import Graph
from selftrain.settings.classes import TABLES
from selftrain.settings.config_file import parse
from selftrain.settings.data import IGNORE, ListSettings

CITYSCAPES = tuple(TABLES["cityscapes"])
# As published: trainIds of Cityscapes' labels.py by id; of SYNTHIA's ids, the trainIds that papers give them.
LABEL_IDS = [IGNORE] * 7 + [0, 1, IGNORE, IGNORE, 2, 3, 4, IGNORE, IGNORE, IGNORE, 5, IGNORE, 6, 7, 8, 9, 10, 11, 12]
LABEL_IDS += [13, 14, 15, IGNORE, IGNORE, 16, 17, 18]
SYNTHIA_IDS = {1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18, 12: 17, 15: 6, 17: 12, 19: 15}
SYNTHIA_IDS |= {21: 3, 16: 9, 18: 14, 20: 16}


def config(root: Path, classes: Any = "cityscapes", **splits: Any) -> dict[str, Any]:
    """A task of one data set in every place, but for the places given."""
    first = next(iter(splits.values()))
    places = {"labeled": first, "unlabeled": first, "val": first} | splits
    return {
        "data_root": str(root),
        "results": str(root / "results"),
        "tasks": {
            "task": {
                "classes": classes,
                "labeled": places["labeled"],
                "unlabeled": places["unlabeled"],
                "evaluation": {"val": places["val"]},
            }
        },
        "pretrain": {"base": {}},
    }


def cityscapes(split: str) -> dict[str, Any]:
    return {"dataset": {"name": "cityscapes", "split": split}}


def graph(root: Path, classes: Any = "cityscapes", **splits: Any) -> Graph:
    return Graph(parse(config(root, classes, **splits)))


def files(of: Graph, split: str = "labeled") -> list[tuple[str, str]]:
    """Image and label of each item, below the data."""
    root = Path(of.config.data_root)
    items = list_split(of.listing("task", split))
    return [
        (str(item.image.relative_to(root)), str(item.label.relative_to(root)) if item.label else "") for item in items
    ]


def labels(of: Graph, split: str = "labeled") -> np.ndarray:
    """The first label, row by row."""
    item = list_split(of.listing("task", split))[0]
    assert item.label is not None
    return read_label(item.label, of.read("task", split)).ravel()


def problems(of: Graph) -> list[str]:
    with pytest.raises(UserError) as error:
        of.check_files()
    return str(error.value).split("\n  ")[1:]


def fill(ids: list[int]) -> list[int]:
    """As `published.label` lays them."""
    return np.resize(np.array(ids), published.SHAPE).ravel().tolist()


def test_cityscapes(tmp_path: Path) -> None:
    published.cityscapes(tmp_path)
    of = graph(tmp_path, labeled=cityscapes("train"))
    assert files(of)[:2] == [
        (
            f"cityscapes/leftImg8bit/train/aachen/aachen_{number}_000019_leftImg8bit.png",
            f"cityscapes/gtFine/train/aachen/aachen_{number}_000019_gtFine_labelIds.png",
        )
        for number in ("000000", "000002")
    ]
    assert len(files(of)) == 3 and len(files(of, "unlabeled")) == 3
    assert labels(of).tolist() == fill(LABEL_IDS)
    assert all(label == "" for _, label in files(of, "unlabeled"))


def test_train_ids_are_used_where_all_labels_have_them(tmp_path: Path) -> None:
    folder = published.cityscapes(tmp_path, kinds=("labelIds", "labelTrainIds"))
    split = cityscapes("train")
    assert all(label.endswith("_labelTrainIds.png") for _, label in files(graph(tmp_path, labeled=split)))
    assert labels(graph(tmp_path, labeled=split)).tolist() == fill([*range(19), 255])
    next(folder.glob("gtFine/train/ulm/*_labelTrainIds.png")).unlink()
    assert all(label.endswith("_labelIds.png") for _, label in files(graph(tmp_path, labeled=split)))
    assert labels(graph(tmp_path, labeled=split)).tolist() == fill(LABEL_IDS)


def test_images_alone_do_for_unlabeled_splits(tmp_path: Path) -> None:
    folder = published.cityscapes(tmp_path)
    shutil.rmtree(folder / "gtCoarse")
    splits = {
        "unlabeled": cityscapes("train_extra"),
        "labeled": {"dataset": "cityscapes"},
    }
    of = graph(tmp_path, val=cityscapes("val"), **splits)
    of.check_files()
    assert [image.split("/")[2] for image, _ in files(of, "unlabeled")] == ["train_extra"] * 2


def test_gta5_has_the_ids_of_cityscapes_and_labels_of_odd_sizes(tmp_path: Path) -> None:
    published.gta5(tmp_path, odd=(2,))
    published.cityscapes(tmp_path)
    of = graph(tmp_path, labeled={"dataset": "gta5"}, unlabeled=cityscapes("train"), val=cityscapes("val"))
    assert files(of)[0] == ("gta5/images/00001.png", "gta5/labels/00001.png")
    assert labels(of).tolist() == fill([*LABEL_IDS, 255])
    assert check(of.check("task")).images.tolist() == [3, 3, 2]
    write_images(of.listing("task", "labeled"), tmp_path / "images.csv")
    image, label = Stream(tmp_path / "images.csv", of.read("task", "labeled")).item(1)
    assert tuple(image.shape[1:]) == tuple(label.shape) == published.SHAPE


def test_synthia_labels_are_the_first_of_three_channels_of_16_bits(tmp_path: Path) -> None:
    published.synthia(tmp_path)
    published.cityscapes(tmp_path)
    of = graph(tmp_path, labeled={"dataset": "synthia"}, unlabeled=cityscapes("train"), val=cityscapes("val"))
    assert files(of)[1] == ("synthia/RGB/0000001.png", "synthia/GT/LABELS/0000001.png")
    assert labels(of).tolist() == fill([SYNTHIA_IDS.get(raw, IGNORE) for raw in range(23)])
    check(of.check("task"))


@pytest.mark.parametrize(("classes", "count"), [("cityscapes-16", 16), ("cityscapes-13", 13)])
def test_classes_that_a_task_does_not_have_are_ignored(tmp_path: Path, classes: str, count: int) -> None:
    published.synthia(tmp_path)
    published.cityscapes(tmp_path)
    of = graph(tmp_path, classes, labeled={"dataset": "synthia"}, val={"dataset": "cityscapes"})
    names = of.config.tasks["task"].classes
    assert len(names) == count and not {"terrain", "truck", "train"} & set(names)
    for split, trained in (("labeled", SYNTHIA_IDS), ("val", dict(enumerate(LABEL_IDS)))):
        told = [CITYSCAPES[trained[raw]] if trained.get(raw, IGNORE) != IGNORE else "" for raw in sorted({*range(34)})]
        expected = [names.index(name) if name in names else IGNORE for name in told]
        known = len(of.read("task", split).ids or {})
        assert labels(of, split).tolist() == fill(expected[: 23 if split == "labeled" else 34]) and known >= 23


def test_voc_and_what_the_augmented_set_adds(tmp_path: Path) -> None:
    published.voc(tmp_path)
    voc = {name: {"dataset": {"name": "voc", "split": name}} for name in ("train", "val", "aug", "train_aug")}
    of = graph(tmp_path, "voc", labeled=voc["train"], unlabeled=voc["aug"], val=voc["val"])
    assert [image.split("_")[1] for image, _ in files(of)] == ["000000.jpg", "000001.jpg"]
    assert [image.split("_")[1] for image, _ in files(of, "val")] == ["000002.jpg", "000003.jpg"]
    assert [image.split("_")[1] for image, _ in files(of, "unlabeled")] == ["000004.jpg", "000005.jpg", "000006.jpg"]
    assert files(of)[0][1] == "voc/SegmentationClass/2007_000000.png"
    assert labels(of).tolist() == fill([*range(21), 255])
    whole = files(graph(tmp_path, "voc", labeled=voc["train_aug"]))
    assert len(whole) == 5 and whole[0][1] == "voc/SegmentationClassAug/2007_000000.png"


@pytest.mark.parametrize("first_release", [False, True])
def test_bdd100k_in_both_layouts(tmp_path: Path, first_release: bool) -> None:
    published.bdd100k(tmp_path, first_release=first_release)
    of = graph(tmp_path, labeled={"dataset": "bdd100k"}, val={"dataset": {"name": "bdd100k", "split": "val"}})
    expected = (
        "seg/labels/train/00000000-train_train_id.png"
        if first_release
        else "labels/sem_seg/masks/train/00000000-train.png"
    )
    assert files(of)[0][1] == f"bdd100k/{expected}"
    assert labels(of).tolist() == fill([*range(19), 255])
    assert len(files(of, "val")) == 2


def test_camvid(tmp_path: Path) -> None:
    published.camvid(tmp_path)
    of = graph(tmp_path, "camvid", labeled={"dataset": "camvid"}, val={"dataset": {"name": "camvid", "split": "test"}})
    assert files(of, "val")[0] == ("camvid/test/0001TP_000000.png", "camvid/testannot/0001TP_000000.png")
    assert labels(of).tolist() == fill([*range(11), 255])


def test_a_data_set_may_lie_elsewhere_and_have_ids_of_its_own(tmp_path: Path) -> None:
    published.gta5(tmp_path / "games")
    (tmp_path / "games/gta5").rename(tmp_path / "games/grand theft [5]")
    ids = dict.fromkeys(range(35), 255) | {7: 0, 11: 1}
    split = {"dataset": {"name": "gta5", "folder": "games/grand theft [5]"}, "ids": ids}
    of = graph(tmp_path, ["way", "house"], labeled=split)
    of.check_files()
    assert labels(of).tolist() == fill([ids[raw] for raw in range(35)])


def test_a_missing_data_set_says_where_to_get_it(tmp_path: Path) -> None:
    for name in published.TREES:
        classes = name if name in ("voc", "camvid") else "cityscapes"
        told = problems(graph(tmp_path, classes, labeled={"dataset": name}))
        places = "tasks.task.labeled, tasks.task.unlabeled, tasks.task.evaluation.val"
        assert len(told) == 1 and told[0].startswith(f"{places}: {tmp_path / name}: no such folder. ")
        assert "lie in this folder" in told[0]


def test_missing_files_are_counted_not_listed(tmp_path: Path) -> None:
    folder = published.cityscapes(tmp_path, train=7)
    for file in sorted(folder.glob("gtFine/train/*/*_labelIds.png"))[:5]:
        file.unlink()
    told = problems(
        graph(
            tmp_path,
            labeled={"dataset": "cityscapes"},
            unlabeled={"dataset": "cityscapes"},
            val=cityscapes("val"),
        )
    )
    assert len(told) == 4 and all(line.startswith("tasks.task.labeled: ") for line in told)
    assert told[0].endswith("aachen_000000_000019_gtFine_labelIds.png: no such file")
    assert told[3].endswith("2 further files of Cityscapes are missing")


def test_a_data_set_that_is_not_whole_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    published.cityscapes(tmp_path, train=4)
    labeled = cityscapes("train") | {"draw": {"count": "1/4"}}
    unlabeled = cityscapes("train") | {"draw": {"count": "1/4", "rest": True}}
    check(graph(tmp_path, labeled=labeled, unlabeled=unlabeled, val=cityscapes("val")).check("task"))
    assert caplog.messages[:3] == [
        "cityscapes train: 1 images, where 744 are published",
        "cityscapes train: 3 images, where 2231 are published",
        "cityscapes val: 2 images, where 500 are published",
    ]


def test_labels_without_an_image_are_missed(tmp_path: Path) -> None:
    folder = published.gta5(tmp_path)
    (folder / "images/00002.png").unlink()
    told = problems(graph(tmp_path, labeled={"dataset": "gta5"}))
    assert told == [f"tasks.task.labeled, tasks.task.evaluation.val: {folder}/images/00002.png: no such file"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "val.txt: no such list of images"),
        ("", "val.txt: names no image that is there; a name such as 2007_000000 is needed per line"),
        ("2009_000002.jpg\n", "val.txt: names no image that is there"),
    ],
)
def test_what_is_left_out_must_be_known(tmp_path: Path, text: str | None, told: str) -> None:
    """Else the validation images would be trained on."""
    file = published.voc(tmp_path) / "ImageSets/Segmentation/val.txt"
    file.unlink() if text is None else file.write_text(text)
    split = {"dataset": {"name": "voc", "split": "train_aug"}}
    assert told in problems(graph(tmp_path, "voc", labeled=split))[0]


def test_lists_may_begin_as_windows_writes_them(tmp_path: Path) -> None:
    file = published.voc(tmp_path) / "ImageSets/Segmentation/train.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert len(files(graph(tmp_path, "voc", labeled={"dataset": "voc"}))) == 2


def test_a_folder_of_something_else_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "gta5/pictures").mkdir(parents=True)
    (tmp_path / "voc").mkdir()
    assert (
        f"{tmp_path}/gta5/images/*.png: no such files. GTA5: "
        in problems(graph(tmp_path, labeled={"dataset": "gta5"}))[0]
    )
    told = problems(graph(tmp_path, "voc", labeled={"dataset": "voc"}))[0]
    assert f"{tmp_path}/voc/ImageSets/Segmentation/train.txt: no such list of images" in told


def test_wrong_names_are_told_with_the_right_ones(tmp_path: Path) -> None:
    published.cityscapes(tmp_path)
    of = graph(
        tmp_path,
        labeled=cityscapes("trian"),
        unlabeled={"dataset": "cityscapes"},
        val={"dataset": "cityscapes"},
    )
    assert problems(of) == ["tasks.task.labeled: unknown split of Cityscapes 'trian'; did you mean 'train'?"]
    of = graph(
        tmp_path,
        labeled=cityscapes("test"),
        unlabeled={"dataset": "cityscapes"},
        val={"dataset": "cityscapes"},
    )
    assert problems(of) == ["tasks.task.labeled: the split 'test' of Cityscapes has no labels"]
    told = problems(graph(tmp_path, ["road", "Person"], labeled={"dataset": "cityscapes"}))
    assert told == [
        "tasks.task.labeled, tasks.task.evaluation.val: unknown class of the data set 'cityscapes' 'Person'; "
        "did you mean 'person'? (the two go by the same names, or by 'ids')"
    ]
    with pytest.raises(UserError, match=r"unknown table of classes 'cityscape'; did you mean 'cityscapes'\?"):
        graph(tmp_path, "cityscape", labeled={"dataset": "cityscapes"})
    with pytest.raises(
        UserError, match="should be 'cityscapes', 'gta5', 'synthia', 'voc', 'bdd100k' or 'camvid', not 'citscapes'"
    ):
        graph(tmp_path, labeled={"dataset": "citscapes"})


def test_other_labels_of_odd_sizes_are_refused(tmp_path: Path) -> None:
    folder = published.bdd100k(tmp_path)
    published.label(folder / "labels/sem_seg/masks/train/00000000-train.png", range(19), (7, 12))
    with pytest.raises(UserError, match="label of 7×12, its image is 6×12"):
        check(graph(tmp_path, labeled={"dataset": "bdd100k"}).check("task"))


def test_a_label_with_an_unknown_id_is_found(tmp_path: Path) -> None:
    folder = published.bdd100k(tmp_path)
    published.label(folder / "labels/sem_seg/masks/train/00000000-train.png", [*range(21)])
    with pytest.raises(UserError, match="label ids 19, 20 are neither in 'ids'"):
        check(graph(tmp_path, labeled={"dataset": "bdd100k"}).check("task"))


def test_tables_of_classes_bring_their_colors(tmp_path: Path) -> None:
    published.camvid(tmp_path)
    of = graph(tmp_path, "camvid", labeled={"dataset": "camvid"})
    task = of.config.tasks["task"]
    assert task.classes[0] == "Sky" and task.colors is not None and task.colors[3] == (128, 64, 128)
    assert {name: len(table) for name, table in TABLES.items()} == {
        "cityscapes": 19,
        "cityscapes-16": 16,
        "cityscapes-13": 13,
        "voc": 21,
        "camvid": 11,
    }


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("size", True, "should be a height such as 720, or height and width such as [720, 1280], not True"),
        ("size", "720", "should be a height such as 720, or height and width such as [720, 1280], not '720'"),
        ("size", [1, 2, 3], "has too many entries"),
        ("size", [True, 2], "[0]: should be a whole number, not True"),
        ("draw", {"count": None}, "count: should be a number of images, or a share of them such as 1/8, not empty"),
        ("draw", {"count": True}, "count: should be a number of images, or a share of them such as 1/8, not True"),
    ],
)
def test_sizes_and_counts_are_told_in_plain_words(tmp_path: Path, key: str, value: Any, told: str) -> None:
    with pytest.raises(UserError) as error:
        graph(
            tmp_path,
            labeled={"dataset": "cityscapes", key: value},
            unlabeled=cityscapes("train"),
            val=cityscapes("val"),
        )
    assert f"tasks.task.labeled.{key}" in str(error.value) and str(error.value).endswith(told)


def test_check_tells_everything_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published.gta5(tmp_path, odd=(1,))
    published.label(tmp_path / "gta5/labels/00003.png", [99])
    of = config(
        tmp_path,
        labeled={"dataset": "gta5"},
        unlabeled=cityscapes("train"),
        val={"dataset": {"name": "gta5", "split": "x"}},
    )
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(of))
    with pytest.raises(UserError) as error:
        check_command([tmp_path / "my.yaml"])
    told = str(error.value)
    assert "tasks.task.evaluation.val: unknown split of GTA5 'x'; valid: all" in told
    assert "unlabeled: " in told and "00003.png: label ids 99" in told


def test_a_height_alone_keeps_the_shape(tmp_path: Path) -> None:
    published.image(tmp_path / "a.png", shape=(10, 30))
    published.image(tmp_path / "b.png", shape=(11, 30))
    listing = ListSettings(
        root=str(tmp_path), data_root=str(tmp_path), images=("*.png",), labels=None, list=None, labeled=False
    )
    write_images(listing, tmp_path / "images.csv")
    table = read_images(tmp_path / "images.csv")
    assert working_sizes(table, 5) == [(5, 15), (5, 14)]
    assert working_sizes(table, (4, 7)) == [(4, 7)] * 2 and working_sizes(table, None) == [(10, 30), (11, 30)]
