"""Parts of a split, drawn by count or share and seed."""

from pathlib import Path
from typing import Any

import pytest
from test_datasets import config, graph

from selftrain.data.listing import list_split
from selftrain.errors import UserError
from selftrain.settings.config_file import parse
from selftrain.settings.data import ListSettings


def drawn(root: Path, **draw: Any) -> list[str]:
    listing = ListSettings(
        root=str(root), data_root=str(root), images=("*.png",), labels=None, list=None, draw=draw, labeled=False
    )
    return [item.name for item in list_split(listing)]


def test_a_part_is_drawn_by_count_or_share_and_seed(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.png").touch()
    everything = [f"{number:02}" for number in range(40)]
    for count, images in ((7, 7), ("1/8", 5), ("1/30", 2), ("0.5", 20), (39, 39)):
        part, rest = drawn(tmp_path, count=count), drawn(tmp_path, count=count, rest=True)
        assert len(part) == images and sorted(part + rest) == everything
        assert part == sorted(part) and rest == sorted(rest)
        assert part == drawn(tmp_path, count=count) and (part != drawn(tmp_path, count=count, seed=1))
    assert set(drawn(tmp_path, count="1/30")) < set(drawn(tmp_path, count="1/8")) < set(drawn(tmp_path, count="1/4"))


def test_a_part_depends_on_the_names_alone(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number in range(9):
        (tmp_path / f"x/{number}.png").touch()
    lines = [f"x/{number}.png" for number in (3, 8, 1, 0, 7, 2, 6, 5, 4)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    listing = ListSettings(
        root=str(tmp_path),
        data_root=str(tmp_path),
        images=None,
        labels=None,
        list="list.txt",
        draw={"count": 4},
        labeled=False,
    )
    of_list = [item.name for item in list_split(listing)]
    assert sorted(of_list) == drawn(tmp_path / "x", count=4)
    assert of_list == [line[2] for line in lines if line[2] in of_list]  # in the list's order


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        ({"count": 5}, "draw.count: 5 of 4 images; give fewer, or a share such as 1/8"),
        ({"count": 4, "rest": True}, "draw.count: 4 of 4 images, which leaves none for the rest"),
    ],
)
def test_a_part_larger_than_the_whole_is_refused(tmp_path: Path, draw: dict[str, Any], told: str) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").touch()
    with pytest.raises(UserError) as error:
        drawn(tmp_path, **draw)
    assert told in str(error.value)


@pytest.mark.parametrize("count", ["1/0", "8/1", "many", "0", "-1/8", 0])
def test_a_share_is_one(tmp_path: Path, count: Any) -> None:
    of = config(tmp_path, labeled={"dataset": "cityscapes", "draw": {"count": count}})
    with pytest.raises(UserError, match=r"tasks\.task\.labeled\.draw\.count: "):
        parse(of)


def test_a_rest_is_that_of_the_labeled_part(tmp_path: Path) -> None:
    labeled = {"dataset": "cityscapes", "draw": {"count": "1/8", "seed": 1}}
    unlabeled = {"dataset": "cityscapes", "draw": {"count": "1/4", "rest": True}}
    with pytest.raises(UserError) as error:
        graph(tmp_path, labeled=labeled, unlabeled=unlabeled)
    assert str(error.value).split("\n  ")[1:] == [
        "tasks.task.unlabeled.draw.count: 1/4 is not that of 'labeled' (1/8), whose rest this is",
        "tasks.task.unlabeled.draw.seed: 0 is not that of 'labeled' (1), whose rest this is",
    ]


def test_no_more_is_drawn_than_is_painted(tmp_path: Path) -> None:
    streets = {"streets": {"domain": "real", "count": 3}, "draw": {"count": 5}}
    with pytest.raises(UserError, match=r"tasks\.task\.labeled\.draw\.count: 5 of the 3 images of 'streets'"):
        graph(tmp_path, "camvid", labeled=streets)
