"""Which files belong to a split."""

from pathlib import Path
from typing import Any

import pytest

from selftrain.data.listing import Item, files_of, list_split
from selftrain.errors import UserError
from selftrain.settings.data import ListSettings


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listing(root: Path, **given: Any) -> ListSettings:
    unset = {"data_root": str(root), "images": None, "labels": None, "list": None, "labeled": False}
    return ListSettings(root=str(root), **{**unset, **given})


def names(root: Path, **given: Any) -> list[str]:
    return [item.name for item in list_split(listing(root, **given))]


def problems(root: Path, **given: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        list_split(listing(root, **given))
    return str(error.value).split("\n")


def listed(root: Path, text: str | bytes, **given: Any) -> dict[str, Any]:
    (root / "list.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"list": "list.txt", **given}


def test_a_glob_gives_files_sorted_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "i/b.png", "i/a.jpg", "i/c.txt", "i/deep/d.png")
    assert names(tmp_path, images=("i/*.png",)) == ["b"]
    assert names(tmp_path, images=("i/*.[jp][pn]g",)) == ["a", "b"]


def test_several_globs_are_joined_and_a_file_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "i/b.png", "j/a.png")
    assert names(tmp_path, images=("i/*", "j/*", "*/b.png")) == ["a", "b"]


def test_two_stars_go_down_the_folders(tmp_path: Path) -> None:
    touch(tmp_path, "i/b.png", "i/x/y/a.png")
    assert names(tmp_path, images=("i/**/*.png",)) == ["a", "b"]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/x/a.png", "task/unrelated.txt")
    (tmp_path / "task/i").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "task", images=("**/*.png",)) == ["a"]
    assert names(tmp_path / "task", **listed(tmp_path / "task", "i/x/a.png")) == ["a"]


def test_brackets_in_the_root_are_no_pattern(tmp_path: Path) -> None:
    touch(tmp_path / "data [old]", "i/a.png")
    assert names(tmp_path / "data [old]", images=("i/*",)) == ["a"]


def test_labels_are_paired_by_stem_whatever_their_ending_and_folder(tmp_path: Path) -> None:
    touch(tmp_path, "i/x/a.b.jpg", "i/c d.png", "i/ü.png", "l/a.b.png", "m/c d.tif", "m/ü.png", "l/more.png")
    items = list_split(listing(tmp_path, images=("i/**/*.*",), labels=("l/*", "m/*"), labeled=True))
    assert [(item.name, item.label.name) for item in items if item.label] == [
        ("a.b", "a.b.png"),
        ("c d", "c d.tif"),
        ("ü", "ü.png"),
    ]


def test_an_image_without_a_label_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png", "i/b.png", "i/c.png", "l/b.png")
    told = problems(tmp_path, images=("i/*",), labels=("l/*",), labeled=True)
    assert [line.split(":")[0] for line in told] == [str(tmp_path / "i/a.png"), str(tmp_path / "i/c.png")]
    assert all("no label" in line and "l/*" in line for line in told)


def test_labels_of_an_unlabeled_split_are_not_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png")
    assert list_split(listing(tmp_path, images=("i/*",), labels=("l/*",))) == [Item("a", tmp_path / "i/a.png", None)]


def test_a_glob_without_a_match_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png", "i/folder.png/file.txt")
    assert problems(tmp_path, images=("i/*.png", "j/*", "i/folder.*")) == [
        f"{tmp_path}/j/*: no file matches",
        f"{tmp_path}/i/folder.*: no file matches",
    ]
    assert "no file matches" in problems(tmp_path / "nowhere", images=("*",))[0]


def test_a_stem_that_is_there_twice_is_told_with_both_files(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png", "j/a.jpg", "i/b.png", "l/a.png", "l/b.png", "l/b.tif")
    told = problems(tmp_path, images=("i/*", "j/*"), labels=("l/*",), labeled=True)
    assert sorted(told) == [
        f"{tmp_path}/i/a.png, {tmp_path}/j/a.jpg: the same stem 'a' 2 times",
        f"{tmp_path}/l/b.png, {tmp_path}/l/b.tif: the same stem 'b' 2 times",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "i/b.png l/b.png\ni/a.png l/x.png\n",
        "i/b.png\tl/b.png\n\n  \ni/a.png\t l/x.png\t\n",
        "\ufeffi/b.png l/b.png\r\ni/a.png   l/x.png",
    ],
    ids=["spaces", "tabs and blank lines", "as Windows writes it"],
)
def test_a_list_keeps_its_order(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "i/a.png", "i/b.png", "l/b.png", "l/x.png")
    items = list_split(listing(tmp_path, **listed(tmp_path, text, labeled=True)))
    assert items == [
        Item("b", tmp_path / "i/b.png", tmp_path / "l/b.png"),
        Item("a", tmp_path / "i/a.png", tmp_path / "l/x.png"),
    ]


def test_tabs_allow_spaces_in_names(tmp_path: Path) -> None:
    touch(tmp_path, "my i/a b.png", "my l/ä b.png")
    settings = listing(tmp_path, **listed(tmp_path, "my i/a b.png\tmy l/ä b.png\n", labeled=True))
    assert list_split(settings) == [Item("a b", tmp_path / "my i/a b.png", tmp_path / "my l/ä b.png")]


def test_a_list_of_images_alone_allows_spaces_in_names(tmp_path: Path) -> None:
    touch(tmp_path, "i/a b.png", "i/c.png")
    assert names(tmp_path, **listed(tmp_path, "i/a b.png\ni/c.png\n")) == ["a b", "c"]


def test_the_labels_in_a_list_are_never_opened_for_an_unlabeled_split(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png")
    settings = listing(tmp_path, **listed(tmp_path, "i/a.png ../../not/there.png\n"))
    assert list_split(settings) == [Item("a", tmp_path / "i/a.png", None)]
    assert files_of(settings) == [str(tmp_path / "list.txt"), str(tmp_path / "i/a.png")]


def test_every_missing_file_of_a_list_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png", "l/b.png")
    told = problems(tmp_path, **listed(tmp_path, "i/a.png l/a.png\ni/b.png l/b.png\n", labeled=True))
    assert told == [f"{tmp_path}/l/a.png: no such file", f"{tmp_path}/i/b.png: no such file"]


def test_a_bad_line_is_told_by_its_number(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png", "l/a.png")
    told = problems(tmp_path, **listed(tmp_path, "i/a.png l/a.png\n\ni/a.png\na b c\n", labeled=True))
    assert [line.split("'")[0] for line in told] == [f"{tmp_path}/list.txt:3: ", f"{tmp_path}/list.txt:4: "]


def test_an_entry_outside_data_root_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(tmp_path, "root/i/a.png", "root-2/b.png", "c.png")
    text = f"i/a.png\n../c.png\n{tmp_path}/c.png\n../root-2/b.png\n{root}/i/../i/a2.png\n"
    told = problems(root, **listed(root, text))
    assert [line.split(" points outside")[0] for line in told] == [
        f"{root}/list.txt:2: '../c.png'",
        f"{root}/list.txt:3: '{tmp_path}/c.png'",
        f"{root}/list.txt:4: '../root-2/b.png'",
        f"{root}/i/../i/a2.png: no such file",
    ]


def test_a_task_root_may_be_left_within_data_root(tmp_path: Path) -> None:
    touch(tmp_path, "shared/a.png", "task/unrelated.txt")
    settings = listing(tmp_path / "task", **listed(tmp_path / "task", "../shared/a.png"), data_root=str(tmp_path))
    assert [item.name for item in list_split(settings)] == ["a"]


def test_relative_roots_are_seen_from_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/a.png")
    monkeypatch.chdir(tmp_path)
    settings = listing(Path("data"), **listed(Path("data"), "a.png"))
    assert list_split(settings) == [Item("a", Path("data/a.png"), None)]


def test_a_missing_an_empty_and_an_unreadable_list_are_told(tmp_path: Path) -> None:
    assert problems(tmp_path, list="no.txt") == [f"{tmp_path}/no.txt: no such list file"]
    assert problems(tmp_path, **listed(tmp_path, "\n \n")) == [f"{tmp_path}/list.txt: no images; the split is empty"]
    assert "not readable as a list" in problems(tmp_path, **listed(tmp_path, b"\xff\xfe\x80"))[0]
    assert "not readable as a list" in problems(tmp_path, list="")[0]


def test_files_of_a_split_are_its_images_and_labels(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png", "i/b.png", "l/a.png", "l/b.png")
    given = listing(tmp_path, images=("i/*",), labels=("l/*",), labeled=True)
    assert files_of(given) == [str(tmp_path / name) for name in ("i/a.png", "l/a.png", "i/b.png", "l/b.png")]
