"""Files of other kinds than 8-bit RGB: read exactly, or refused."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pixel_files import values, write

from selftrain.data.decoding import deep_png, image_size
from selftrain.data.reading import as_photo, read_image, read_photo
from selftrain.errors import UserError
from selftrain.settings.data import PixelSettings

KINDS = [("png", channels, bits) for channels in (1, 2, 3, 4) for bits in (8, 16)]
KINDS += [(ending, channels, bits) for ending in ("tif", "npy") for channels in (1, 2, 3, 4, 5) for bits in (8, 16)]


@pytest.mark.parametrize(("ending", "channels", "bits"), KINDS)
def test_every_kind_is_read_exactly(tmp_path, ending, channels, bits):
    array = values(channels, bits)
    path = write(tmp_path / f"a.{ending}", array)
    image = read_image(path, pixels=PixelSettings(channels=channels, bits=bits))
    assert image.shape == array.shape and image.flags.writeable
    if bits == 8:
        assert image.dtype == np.uint8 and (image == array).all()
    else:
        assert image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1
        assert (np.rint(image * 65535.0) == array).all() and np.allclose(image, array / 65535, atol=1e-7)
    assert image_size(path) == (9, 13)


def test_tiffs_of_every_layout(tmp_path):
    array, five = values(5, 16), PixelSettings(channels=5, bits=16)
    planes = {"photometric": "minisblack"}
    layouts = {
        "separate": (array.transpose(2, 0, 1), planes | {"planarconfig": "separate"}),
        "pages": (array.transpose(2, 0, 1), planes),
        "imagej": (array.transpose(2, 0, 1), {"imagej": True, "metadata": {"axes": "CYX"}}),
        "big-endian": (array, planes | {"planarconfig": "contig", "byteorder": ">"}),
        "zip": (array, planes | {"planarconfig": "contig", "compression": "zlib", "predictor": True}),
        "tiles": (array, planes | {"planarconfig": "contig", "tile": (16, 16), "bigtiff": True}),
    }
    for name, (written, options) in layouts.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ascontiguousarray(written), **options)
        assert (np.rint(read_image(tmp_path / f"{name}.tif", pixels=five) * 65535.0) == array).all(), name
        assert image_size(tmp_path / f"{name}.tif") == (9, 13), name


def test_compressed_tiffs_that_pillow_reads_need_no_other_codec(tmp_path):
    for channels, bits in ((1, 8), (1, 16), (3, 8), (4, 8)):
        array = values(channels, bits)
        Image.fromarray(array.squeeze()).save(tmp_path / "a.tif", compression="tiff_lzw")
        image = read_image(tmp_path / "a.tif", pixels=PixelSettings(channels=channels, bits=bits))
        assert (np.rint(image * (1.0 if bits == 8 else 65535.0)) == array).all()
    tifffile.imwrite(tmp_path / "b.tif", values(3, 8), photometric="rgb", byteorder=">")
    assert (read_image(tmp_path / "b.tif") == values(3, 8)).all()


def test_gray_fills_three_channels_of_any_bits(tmp_path):
    for ending in ("png", "tif", "npy"):
        for bits in (8, 16):
            array = values(1, bits)
            image = read_image(write(tmp_path / f"a.{ending}", array), pixels=PixelSettings(bits=bits))
            assert image.shape == (9, 13, 3) and (image == image[..., :1]).all()
            assert (np.rint(image * (1.0 if bits == 8 else 65535.0)) == array).all()


@pytest.mark.parametrize(
    ("ending", "channels", "bits", "wanted", "told"),
    [
        ("png", 3, 8, (1, 8), "image of 3 channels of 8 bits; 'pixels' say 1 channel of 8 bits"),
        ("jpg", 3, 8, (3, 16), "image of 3 channels of 8 bits; 'pixels' say 3 channels of 16 bits"),
        ("png", 4, 8, (3, 16), "image of 4 channels of 8 bits; 'pixels' say 3 channels of 16 bits"),
        ("png", 4, 16, (3, 16), "image of 4 channels of 16 bits; 'pixels' say 3 channels of 16 bits"),
        ("png", 3, 16, (3, 8), "image of mode RGB;16B; 8-bit RGB or gray is needed"),
        ("png", 4, 8, (3, 8), "image of mode RGBA; 8-bit RGB or gray is needed"),
        ("png", 4, 16, (4, 8), "image of mode RGBA;16B; 'pixels' say 4 channels of 8 bits"),
        ("tif", 1, 8, (4, 8), "image of 1 channel of 8 bits; 'pixels' say 4 channels of 8 bits"),
        ("tif", 5, 16, (4, 16), "image of 5 channels of 16 bits; 'pixels' say 4 channels of 16 bits"),
        ("tif", 5, 8, (3, 8), "image of 5 channels of 8 bits; 8-bit RGB or gray is needed"),
        ("npy", 2, 16, (3, 8), "image of 2 channels of 16 bits; 8-bit RGB or gray is needed"),
        ("npy", 1, 16, (1, 8), "image of 1 channel of 16 bits; 'pixels' say 1 channel of 8 bits"),
    ],
)
def test_other_channels_and_bits_are_refused(tmp_path, ending, channels, bits, wanted, told):
    path, array = tmp_path / f"a.{ending}", values(channels, bits)
    if ending == "jpg":
        Image.fromarray(array).save(path)
    else:
        write(path, array)
    with pytest.raises(UserError) as error:
        read_image(path, pixels=PixelSettings(channels=wanted[0], bits=wanted[1]))
    assert str(error.value) == f"{path}: {told}"


def test_what_holds_no_such_values_is_refused(tmp_path):
    four = PixelSettings(channels=4, bits=16)
    color = Image.fromarray(values(3, 8))
    color.convert("CMYK").save(tmp_path / "cmyk.jpg")
    color.convert("P").save(tmp_path / "palette.tif")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((4, 5), np.float32))
    tifffile.imwrite(tmp_path / "signed.tif", np.zeros((4, 5, 4), np.int16), photometric="rgb")
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((2, 4, 5, 4), np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "white.tif", np.zeros((4, 5), np.uint16), photometric="miniswhite")
    np.save(tmp_path / "float.npy", np.zeros((4, 5, 4)))
    np.save(tmp_path / "vector.npy", np.zeros(7, np.uint16))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    whole = write(tmp_path / "cut.npy", values(4, 16)).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-9])
    told = {
        "cmyk.jpg": "mode CMYK",
        "palette.tif": "photometric PALETTE",
        "float.tif": "type float32",
        "signed.tif": "type int16",
        "stack.tif": "axes .YXS",
        "white.tif": "photometric MINISWHITE",
        "float.npy": "type float64",
        "vector.npy": "not readable as an image .an array of shape .7",
        "objects.npy": "not readable as an image",
        "cut.npy": "not readable as an image",
    }
    for name, reason in told.items():
        for pixels in (four, PixelSettings(channels=1, bits=16)):
            with pytest.raises(UserError, match=rf"{name}: .*{reason}"):
                read_image(tmp_path / name, pixels=pixels)


def test_a_fourth_channel_that_pillow_drops_is_seen(tmp_path):
    array = values(4, 8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "b.tif", array, photometric="rgb", extrasamples=["assocalpha"])
    for path in (tmp_path / "a.tif", tmp_path / "b.tif"):
        assert (read_image(path, pixels=PixelSettings(channels=4)) == array).all()
        with pytest.raises(UserError, match="8-bit RGB or gray is needed"):
            read_image(path)


def test_images_turned_by_exif_are_refused(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(values(4, 8)).save(tmp_path / "a.png", exif=turned)
    tifffile.imwrite(tmp_path / "b.tif", values(5, 16), photometric="minisblack", extratags=[(274, 3, 1, 6, True)])
    for name, pixels in (("a.png", PixelSettings(channels=4)), ("b.tif", PixelSettings(channels=5, bits=16))):
        with pytest.raises(UserError, match="save it upright"):
            read_image(tmp_path / name, pixels=pixels)


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    kind=st.sampled_from(["a.png", "a.tif", "a.npy"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_read_or_refused_but_never_a_traceback(tmp_path, kind, changes):
    path = write(tmp_path / kind, values(4, 16, (4, 4)))
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content)
    for read in (image_size, lambda path: read_image(path, pixels=PixelSettings(channels=4, bits=16))):
        try:
            read(path)
        except UserError as error:
            assert str(path) in str(error)


@pytest.mark.filterwarnings("ignore")
def test_a_broken_deep_png_does_not_reach_the_decoder_that_breaks_on_it(tmp_path, monkeypatch):
    import torchvision.io

    monkeypatch.setattr(torchvision.io, "decode_png", lambda *_: pytest.fail("decoded"))
    content = write(tmp_path / "a.png", values(4, 16, (4, 4))).read_bytes()
    start = content.index(b"IDAT") + 4
    for position in range(start, content.index(b"IEND") - 4):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "a.png").write_bytes(damaged)
        for read in (lambda path: read_image(path, pixels=PixelSettings(channels=4, bits=16)), deep_png):
            with pytest.raises(UserError, match=r"a\.png: not readable"):
                read(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(5, 7), (20, 30), (9, 40)])
def test_resizing_is_that_of_8_bit_color(tmp_path, size):
    color = values(3, 8)
    expected = np.asarray(Image.fromarray(color).resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    for channels in (1, 2, 5):
        array = color[..., [0, 1, 2, 1, 0][:channels]]
        reference = expected[..., [0, 1, 2, 1, 0][:channels]]
        small = read_image(write(tmp_path / "a.npy", array), size, PixelSettings(channels=channels))
        assert small.dtype == np.uint8 and (small == reference).all()
        deep = array.astype(np.uint16) * 257
        small = read_image(write(tmp_path / "b.npy", deep), size, PixelSettings(channels=channels, bits=16))
        assert small.dtype == np.float32 and small.shape == (*size, channels)
        assert small.min() >= 0 and small.max() <= 1 and np.abs(255 * small - reference).max() <= 1


def test_a_photo_of_any_kind_is_for_the_eye(tmp_path):
    for ending, channels, bits in KINDS:
        array = values(channels, bits)
        photo = read_photo(write(tmp_path / f"a.{ending}", array))
        shown = array[..., :3] if channels > 2 else array[..., [0, 0, 0]]
        assert photo.dtype == np.uint8 and photo.shape == (9, 13, 3)
        assert np.abs(photo - shown / (2 ** (bits - 8) + (bits == 16))).max() <= 0.51
    assert read_photo(tmp_path / "a.npy", (4, 6)).shape == (4, 6, 3)
    assert as_photo(np.ones((2, 4, 5, 1), np.float32)).tolist() == np.full((2, 4, 5, 3), 255).tolist()


def test_checking_and_listing_tiffs_need_no_torch(tmp_path):
    write(tmp_path / "a.tif", values(5, 16))
    write(tmp_path / "b.png", values(1, 16))
    code = (
        "import sys; from selftrain.data import check, tables; from selftrain.data.reading import read_image;"
        "from selftrain.settings.data import PixelSettings as P;"
        f"read_image({str(tmp_path / 'a.tif')!r}, None, P(channels=5, bits=16));"
        f"read_image({str(tmp_path / 'b.png')!r}, None, P(bits=16)); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
