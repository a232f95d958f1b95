"""The built-in data set `streets`: drawn driving scenes with CamVid's classes, in two domains.

`synthetic` looks like a flat game; `real` has texture, light, blur and noise, other colors and another class mix.
A model trained on the first loses much on the second, and self-training wins part of it back.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from selftrain import locks
from selftrain.data.streets.domains import BY_NAME, CLASSES, COLORS
from selftrain.data.streets.photo import photograph
from selftrain.data.streets.scene import paint
from selftrain.errors import UserError
from selftrain.progress import followed

__all__ = ["CLASSES", "COLORS", "DOMAINS", "draw", "write"]

DOMAINS: tuple[str, ...] = tuple(BY_NAME)


def draw(domain: str, index: int, *, seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw scene `index`: an image, uint8 (H, W, 3), and its label, uint8 (H, W), 255 where it is no class.

    A pure function of its arguments. The same scene at another size is the same street.
    """
    _check(domain)
    rng = np.random.default_rng([seed % 2**64, DOMAINS.index(domain), index])
    image, label = paint(BY_NAME[domain], size, rng)
    if BY_NAME[domain].photographed:
        image = photograph(image, label, rng)
    return image.round().clip(0, 255).astype(np.uint8), label


def write(directory: Path, *, domain: str, count: int, seed: int, size: tuple[int, int]) -> None:
    """Write `count` scenes to `directory`/images and `directory`/labels, all of them or nothing.

    Images are RGB, labels 8-bit palette PNGs in `COLORS`; both are named `{domain}_{index:05d}.png`.
    """
    _check(domain)
    directory = Path(directory)
    with locks.alone(directory.with_name(f".{directory.name}.lock"), f"drawing {directory}"):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UserError(f"{directory} exists already; remove it to draw it anew")
        whole = directory.with_name(f".{directory.name}.unfinished")
        shutil.rmtree(whole, ignore_errors=True)  # of a killed process
        try:
            for kind in ("images", "labels"):
                (whole / kind).mkdir(parents=True)
            for index in followed(range(count), f"draw {domain}", count):
                image, label = draw(domain, index, seed=seed, size=size)
                name = f"{domain}_{index:05d}.png"
                Image.fromarray(image).save(whole / "images" / name)
                _with_palette(label).save(whole / "labels" / name)
            whole.rename(directory)
        finally:
            shutil.rmtree(whole, ignore_errors=True)


def _with_palette(label: np.ndarray) -> Image.Image:
    picture = Image.fromarray(label)
    colors = [channel for color in COLORS for channel in color]
    picture.putpalette(colors + [0] * (768 - len(colors)))  # a short palette would be saved in 4 bits, and lose 255
    return picture


def _check(domain: str) -> None:
    if domain not in DOMAINS:
        raise UserError(f"streets: unknown domain {domain!r}; choose one of {', '.join(DOMAINS)}")
