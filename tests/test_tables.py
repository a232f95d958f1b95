"""The table of a split's images, and the statistics of its labels against brute force."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from selftrain.data.reading import read_label
from selftrain.data.tables import COLUMNS, STATISTICS, read_images, write_images, write_statistics
from selftrain.errors import UserError
from selftrain.settings.data import ListSettings, ReadSettings

Writes = Callable[..., Path]


def listing(root: Path, **given: Any) -> ListSettings:
    both: dict[str, Any] = {"images": ("images/*",), "labels": ("labels/*",), "list": None, "labeled": True}
    return ListSettings(root=str(root), data_root=str(root), **{**both, **given})


@pytest.fixture
def labeled(tmp_path: Path, folder_task: dict[str, Any]) -> Path:
    return tmp_path / "labeled"


def test_the_table_has_names_files_sizes_and_digests(labeled: Path) -> None:
    write_images(listing(labeled), labeled / "images.csv")
    table = read_images(labeled / "images.csv")
    assert list(table.columns) == COLUMNS
    assert table.image.tolist() == ["labeled-0", "labeled-1", "labeled-2"]
    assert table.image_file.tolist() == [str(path) for path in sorted((labeled / "images").iterdir())]
    assert table.label_file.tolist() == [str(path) for path in sorted((labeled / "labels").iterdir())]
    assert table[["height", "width"]].drop_duplicates().values.tolist() == [[6, 8]]
    assert table.image_digest.nunique() == table.label_digest.nunique() == 3


def test_names_that_look_like_something_else_stay_names(tmp_path: Path, picture: Writes) -> None:
    names = ["007", "1e5", "NA", "a b", 'a"b,c', "nan", "ü"]
    for seed, name in enumerate(names):
        picture(tmp_path / "images" / f"{name}.png", seed)
    write_images(listing(tmp_path, labels=None, labeled=False), tmp_path / "images.csv")
    table = read_images(tmp_path / "images.csv")
    assert table.image.tolist() == sorted(names)
    assert table.label_file.tolist() == table.label_digest.tolist() == [""] * len(names)


def test_the_table_changes_when_a_picture_or_label_does(labeled: Path, picture: Writes, mask: Writes) -> None:
    def written() -> bytes:
        write_images(listing(labeled), labeled / "images.csv")
        return (labeled / "images.csv").read_bytes()

    first = written()
    (labeled / "images/labeled-0.png").touch()
    assert written() == first
    picture(labeled / "images/labeled-0.png", seed=99)
    second = written()
    assert second != first
    mask(labeled / "labels/labeled-0.png", np.zeros((6, 8), np.uint8))
    assert written() != second


def test_an_unreadable_image_is_a_user_error_and_leaves_no_table(labeled: Path) -> None:
    (labeled / "images/labeled-0.png").write_text("text")
    with pytest.raises(UserError, match=r"labeled-0\.png"):
        write_images(listing(labeled), labeled / "images.csv")
    assert not (labeled / "images.csv").exists()


LABELS = st.lists(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 3, 255])),
    min_size=1,
    max_size=4,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=LABELS, size=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_statistics_are_what_counting_gives(
    tmp_path: Path, labels: list[np.ndarray], size: tuple[int, int] | None
) -> None:
    read = ReadSettings(classes=("a", "b", "c", "d"), ignore_index=255, size=size)
    files = [tmp_path / f"{number}.png" for number in range(len(labels))]
    for file, label in zip(files, labels, strict=True):
        Image.fromarray(label).save(file)
    rows = [[file.stem, "", str(file), *label.shape, "", ""] for file, label in zip(files, labels, strict=True)]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(tmp_path / "images.csv", index=False)
    write_statistics(read, tmp_path / "images.csv", tmp_path / "classes.csv", tmp_path / "statistics.h5")

    resized = [read_label(file, read, size) for file in files]
    counts = np.array([[int((label == index).sum()) for index in range(4)] for label in resized])
    present = [[int(count) for count in counts[:, index] if count] for index in range(4)]
    valid = sum(int((label != 255).sum()) for label in resized)
    areas = [label.shape[0] * label.shape[1] for label in resized]
    shares = [[count / area for count, area in zip(counts[:, index], areas, strict=True)] for index in range(4)]
    table = pd.read_csv(tmp_path / "classes.csv")
    assert table["class"].tolist() == ["a", "b", "c", "d"]
    assert table.pixels.tolist() == [sum(own) for own in present]
    assert table.images.tolist() == [len(own) for own in present]
    assert table.image_share.tolist() == pytest.approx([len(own) / len(labels) for own in present])
    assert table.share.tolist() == pytest.approx([sum(own) / valid if valid else 0 for own in present])
    assert table.mean_size.tolist() == pytest.approx(
        [sum(own) / len(seen) if seen else 0 for own, seen in zip(shares, present, strict=True)]
    )
    with STATISTICS.open(tmp_path / "statistics.h5") as file:
        assert file["counts"].dtype == np.int64
        assert (file["counts"][()] == counts).all()
        assert file["images"].asstr()[()].tolist() == [path.stem for path in files]
        assert json.loads(file.attrs["classes"]) == ["a", "b", "c", "d"]
        assert file["frequency"][()] == pytest.approx(_frequency(resized))


def _frequency(labels: list[np.ndarray]) -> np.ndarray:
    """The share of images that show class c at each of 64 × 128 places: the pixel that a place's center falls in."""
    shown = np.zeros((4, 64, 128))
    for label in labels:
        height, width = label.shape
        rows, columns = (np.arange(64) * 2 + 1) * height // 128, (np.arange(128) * 2 + 1) * width // 256
        for index in range(4):
            shown[index] += label[rows][:, columns] == index
    return shown / len(labels)


def test_statistics_do_not_depend_on_the_order_of_images(labeled: Path) -> None:
    write_images(listing(labeled), labeled / "images.csv")
    table = pd.read_csv(labeled / "images.csv")
    table.iloc[::-1].to_csv(labeled / "reversed.csv", index=False)
    read = ReadSettings(classes=("a", "b", "c"), ignore_index=255)
    for name in ("images", "reversed"):
        write_statistics(read, labeled / f"{name}.csv", labeled / f"{name}-classes.csv", labeled / f"{name}.h5")
    assert (labeled / "images-classes.csv").read_bytes() == (labeled / "reversed-classes.csv").read_bytes()
    with h5py.File(labeled / "images.h5") as one, h5py.File(labeled / "reversed.h5") as other:
        assert (one["counts"][()] == other["counts"][()][::-1]).all()
        assert (one["frequency"][()] == other["frequency"][()]).all()


def test_an_image_that_is_all_ignored_counts_nothing(tmp_path: Path, picture: Writes, mask: Writes) -> None:
    picture(tmp_path / "images/a.png")
    mask(tmp_path / "labels/a.png", np.full((6, 8), 255, np.uint8))
    write_images(listing(tmp_path), tmp_path / "images.csv")
    read = ReadSettings(classes=("a", "b"), ignore_index=255)
    write_statistics(read, tmp_path / "images.csv", tmp_path / "classes.csv", tmp_path / "statistics.h5")
    table = pd.read_csv(tmp_path / "classes.csv")
    assert table[["pixels", "share", "images", "mean_size"]].to_numpy().tolist() == [[0, 0, 0, 0]] * 2
