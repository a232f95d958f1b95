"""From files to arrays, and what is refused."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from selftrain.data.decoding import image_size
from selftrain.data.reading import read_image, read_label, read_raw_label
from selftrain.errors import UserError
from selftrain.settings.data import ReadSettings

Writes = Callable[..., Path]
THREE = ReadSettings(classes=("a", "b", "c"), ignore_index=255)


def png(path: Path, depth: int, kind: int, width: int, *rows: bytes) -> Path:
    """A PNG of any bit depth (kind 0: gray, 2: color), which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def save(path: Path, array: Any, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(np.asarray(array))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_color_is_read_as_it_is(tmp_path: Path, picture: Writes) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)
    read = read_image(picture(tmp_path / "a b ü.png", 3))
    assert read.dtype == np.uint8
    assert (read == pixels).all()


def test_gray_becomes_three_equal_channels(tmp_path: Path) -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (read_image(save(tmp_path / "a.png", gray)) == gray[..., None]).all()
    assert read_image(save(tmp_path / "a.jpg", gray)).shape == (3, 4, 3)


def test_packed_gray_images_fill_the_scale(tmp_path: Path) -> None:
    assert read_image(png(tmp_path / "a.png", 4, 0, 2, b"\x0f"))[0, :, 0].tolist() == [0, 255]


def test_images_are_resized_bilinearly(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.repeat(np.array([[0], [0], [200], [200]], np.uint8), 4, 1))
    assert read_image(path, (4, 4)).shape == (4, 4, 3)
    small, large = read_image(path, (1, 2)), read_image(path, (8, 6))
    assert small.shape == (1, 2, 3)
    assert (small == 100).all()  # the mean: no row is skipped
    assert large.shape == (8, 6, 3)
    assert 0 < large[3, 0, 0] < 100 < large[4, 0, 0] < 200


def test_labels_are_resized_to_the_nearest(tmp_path: Path, mask: Writes) -> None:
    path = mask(tmp_path / "a.png", np.array([[0, 2], [255, 1]], np.uint8))
    large = read_label(path, THREE, (4, 6))
    assert (large == np.array([[0, 2], [255, 1]]).repeat(2, 0).repeat(3, 1)).all()
    assert read_label(path, THREE, (1, 1)).shape == (1, 1)


def test_the_size_is_read_without_decoding(tmp_path: Path, picture: Writes) -> None:
    path = picture(tmp_path / "a.png", size=(6, 8))
    assert image_size(path) == (6, 8)
    path.write_text("no image")
    with pytest.raises(UserError, match="not readable as an image"):
        image_size(path)


IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def test_labels_may_be_gray_palette_or_many_bits(tmp_path: Path) -> None:
    palette = Image.fromarray(IDS)
    palette = Image.frombytes("P", palette.size, palette.tobytes())
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 77])
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "gray.png", IDS)
    save(tmp_path / "16.png", IDS.astype(np.uint16))
    save(tmp_path / "16.tif", IDS.astype(np.uint16))
    save(tmp_path / "32.tif", IDS.astype(np.int32))
    for file in sorted(tmp_path.iterdir()):
        label = read_label(file, THREE)
        assert label.dtype == np.uint8, file
        assert (label == IDS).all(), file


def test_labels_that_an_optimizer_packed_keep_their_ids(tmp_path: Path) -> None:
    assert read_raw_label(png(tmp_path / "1.png", 1, 0, 4, b"\xa0")).tolist() == [[1, 0, 1, 0]]
    assert read_raw_label(png(tmp_path / "2.png", 2, 0, 4, b"\x1b")).tolist() == [[0, 1, 2, 3]]
    assert read_raw_label(png(tmp_path / "4.png", 4, 0, 3, b"\x12\xf0")).tolist() == [[1, 2, 15]]


def test_a_table_maps_ids_to_classes(tmp_path: Path, mask: Writes) -> None:
    path = mask(tmp_path / "a.png", np.array([[7, 11], [26, 0], [255, 7]], np.uint8))
    read = THREE.model_copy(update={"ids": {7: 0, 11: 2, 26: 1, 0: 255}})
    assert read_label(path, read).tolist() == [[0, 2], [1, 255], [255, 0]]


@pytest.mark.parametrize("ignore", [3, 99, 254, 255, 300, 65535])
def test_any_ignore_index_becomes_255(tmp_path: Path, mask: Writes, ignore: int) -> None:
    kind = np.uint8 if ignore < 256 else np.uint16
    read = ReadSettings(classes=("a", "b", "c"), ignore_index=ignore)
    assert read_label(mask(tmp_path / "a.png", np.array([[0, ignore, 2]], kind)), read).tolist() == [[0, 255, 2]]
    mapped = read.model_copy(update={"ids": {9: 1, 8: ignore}})
    assert read_label(mask(tmp_path / "b.png", np.array([[9, 8, ignore]], kind)), mapped).tolist() == [[1, 255, 255]]


def test_255_is_no_id_where_another_index_is_ignored(tmp_path: Path, mask: Writes) -> None:
    path = mask(tmp_path / "a.png", np.array([[0, 255]], np.uint8))
    with pytest.raises(UserError, match=r"a\.png: label ids 255 are neither classes 0 to 2 nor the ignore index 99"):
        read_label(path, ReadSettings(classes=("a", "b", "c"), ignore_index=99))


def test_255_classes_are_possible(tmp_path: Path, mask: Writes) -> None:
    read = ReadSettings(classes=tuple(map(str, range(255))), ignore_index=255)
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (read_label(mask(tmp_path / "a.png", ids), read) == ids).all()


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (np.array([[0, 3], [7, 255]], np.uint8), "label ids 3, 7 are"),
        (np.arange(20, dtype=np.uint8).reshape(4, 5), "label ids 3, 4, 5, 6, 7 and 12 more are"),
        (np.array([[0, 60000]], np.uint16), "label ids 60000 are"),
        (np.array([[-5, 2**31 - 1]], np.int32), "label ids -5, 2147483647 are"),
    ],
)
def test_ids_beyond_the_classes_are_told(tmp_path: Path, ids: np.ndarray, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_label(save(tmp_path / "a.tif", ids), THREE)


COLOR = np.full((4, 4, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("name", "mode", "told"),
    [
        ("rgba.png", "RGBA", "mode RGBA; 8-bit RGB or gray is needed"),
        ("cmyk.jpg", "CMYK", "mode CMYK"),
        ("palette.png", "P", "mode P"),
        ("bits.png", "1", "mode 1"),
        ("gray-alpha.png", "LA", "mode LA"),
        ("float.tif", "F", "mode F"),
    ],
)
def test_images_of_other_kinds_are_refused(tmp_path: Path, name: str, mode: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        read_image(save(tmp_path / name, COLOR, mode))
    assert str(tmp_path / name) in str(error.value)


def test_images_of_16_bits_are_refused(tmp_path: Path) -> None:
    gray = save(tmp_path / "gray.png", np.full((2, 2), 4000, np.uint16))
    color = png(tmp_path / "color.png", 16, 2, 1, b"\1\2\3\4\5\6")
    for path in (gray, color):
        with pytest.raises(UserError, match="16"):
            read_image(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "LA"])
def test_labels_of_color_are_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(UserError, match=f"label of mode {mode}; a palette or gray image"):
        read_raw_label(save(tmp_path / "a.tif", COLOR, mode))


def test_images_turned_by_exif_are_refused(tmp_path: Path, picture: Writes) -> None:
    turned, upright = Image.Exif(), Image.Exif()
    turned[0x0112], upright[0x0112] = 6, 1
    with pytest.raises(UserError, match="save it upright"):
        read_image(picture(tmp_path / "a.jpg", exif=turned))
    assert read_image(picture(tmp_path / "b.jpg", exif=upright)).shape == (6, 8, 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_truncated_files_are_refused(tmp_path: Path, picture: Writes, name: str) -> None:
    path = picture(tmp_path / name, size=(40, 40))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="not readable as an image") as error:
        read_image(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, read_raw_label, image_size):
        with pytest.raises(UserError, match="not readable as an image") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "no.png")
    with pytest.raises(UserError, match="not readable"):
        read_image(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["png", "jpg", "tif", "gif", "bmp", "webp"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_read_or_refused_but_never_a_traceback(
    tmp_path: Path, kind: str, changes: list[tuple[int, int]]
) -> None:
    path = save(tmp_path / f"a.{kind}", COLOR)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content)
    for read in (read_image, read_raw_label):
        try:
            assert read(path).ndim in (2, 3)
        except UserError as error:
            assert str(path) in str(error)
