"""The built-in data set: the same call draws the same scene, and the two domains differ as they should."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selftrain.data import streets
from selftrain.errors import UserError
from selftrain.settings.classes import TABLES

SIZE = (96, 192)


def shares(domain: str, count: int = 40) -> dict[str, float]:
    labels = np.stack([streets.draw(domain, i, seed=0, size=SIZE)[1] for i in range(count)])
    known = labels[labels < 255]
    return dict(zip(streets.CLASSES, np.bincount(known, minlength=11) / known.size, strict=True))


@pytest.fixture(scope="module")
def mixes() -> dict[str, dict[str, float]]:
    return {domain: shares(domain) for domain in streets.DOMAINS}


def same(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_classes_and_colors_are_camvids():
    assert len(streets.CLASSES) == len(streets.COLORS) == len(set(streets.COLORS)) == 11
    assert (streets.CLASSES[0], streets.CLASSES[10]) == ("Sky", "Bicyclist")
    assert streets.DOMAINS == ("synthetic", "real")
    assert dict(zip(streets.CLASSES, streets.COLORS, strict=True)) == TABLES["camvid"]


@pytest.mark.parametrize("domain", streets.DOMAINS)
def test_a_scene_is_a_function_of_its_arguments(domain):
    scene = streets.draw(domain, 3, seed=7, size=SIZE)
    assert same(scene, streets.draw(domain, 3, seed=7, size=SIZE))
    for index, seed in ((4, 7), (3, 8), (3, -7)):
        assert not same(scene, streets.draw(domain, index, seed=seed, size=SIZE))


@pytest.mark.parametrize("domain", streets.DOMAINS)
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (96, 192), (200, 90), (360, 480)])
def test_any_size(domain, size):
    image, label = streets.draw(domain, 0, seed=0, size=size)
    assert image.shape == (*size, 3) and label.shape == size
    assert image.dtype == label.dtype == np.uint8
    assert set(np.unique(label)) <= {*range(11), 255}


@pytest.mark.parametrize("domain", streets.DOMAINS)
def test_a_scene_is_the_same_street_at_any_size(domain):
    small = streets.draw(domain, 5, seed=1, size=(90, 120))[1]
    large = streets.draw(domain, 5, seed=1, size=(360, 480))[1]
    assert (small == large[2::4, 2::4]).mean() > 0.95


@pytest.mark.parametrize("domain", streets.DOMAINS)
def test_classes_are_long_tailed(mixes, domain):
    mix = mixes[domain]
    assert min(mix.values()) > 0
    assert mix["Road"] > 0.15 and mix["Building"] > 0.15 and mix["Sky"] > 0.1
    assert all(mix[name] < 0.03 for name in ("Pole", "SignSymbol", "Fence", "Pedestrian", "Bicyclist"))


def test_domains_mix_classes_differently(mixes):
    synthetic, real = mixes["synthetic"], mixes["real"]
    assert real["Tree"] > 1.2 * synthetic["Tree"]
    assert sum(abs(real[name] - synthetic[name]) for name in streets.CLASSES) > 0.08


def test_domains_look_different():
    def saturation(domain: str) -> float:
        images = [streets.draw(domain, i, seed=0, size=SIZE)[0].astype(float) for i in range(10)]
        return float(np.mean([np.ptp(image, axis=-1).mean() for image in images]))

    assert saturation("synthetic") > 1.3 * saturation("real")


def test_only_real_has_ignored_pixels():
    ignored = {d: (streets.draw(d, 0, seed=0, size=SIZE)[1] == 255).mean() for d in streets.DOMAINS}
    assert ignored["synthetic"] == 0 < ignored["real"] < 0.15


def test_written_files_are_the_drawn_scenes(tmp_path: Path):
    directory = tmp_path / "deep" / "streets"
    streets.write(directory, domain="real", count=3, seed=2, size=(48, 64))
    names = [f"real_{index:05d}.png" for index in range(3)]
    for kind in ("images", "labels"):
        assert sorted(file.name for file in (directory / kind).iterdir()) == names
    for index, name in enumerate(names):
        image, label = streets.draw("real", index, seed=2, size=(48, 64))
        with Image.open(directory / "images" / name) as file:
            assert file.mode == "RGB" and np.array_equal(np.asarray(file), image)
        with Image.open(directory / "labels" / name) as file:
            assert file.mode == "P" and np.array_equal(np.asarray(file), label)
            assert tuple(file.getpalette()[3 * 3 : 4 * 3]) == streets.COLORS[3]
    assert [path.name for path in directory.parent.iterdir()] == ["streets"]


def test_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch):
    def fails_late(domain, index, **settings):
        if index == 1:
            raise RuntimeError("disk full")
        return np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)

    monkeypatch.setattr(streets, "draw", fails_late)
    with pytest.raises(RuntimeError, match="disk full"):
        streets.write(tmp_path / "streets", domain="real", count=3, seed=0, size=(4, 4))
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_are_not_overwritten(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        streets.write(tmp_path, domain="real", count=1, seed=0, size=(4, 4))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_domain_is_told(tmp_path: Path):
    with pytest.raises(UserError, match=r"'cartoon'.*synthetic, real"):
        streets.draw("cartoon", 0, seed=0, size=SIZE)
    with pytest.raises(UserError, match="synthetic, real"):
        streets.write(tmp_path / "x", domain="cartoon", count=1, seed=0, size=SIZE)
    assert not (tmp_path / "x").exists()
