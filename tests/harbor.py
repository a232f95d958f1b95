"""A user's folders of images and labels, drawn here: a harbor, in a simulator and as it is."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("water", "quay", "ship", "crane")
SIMULATED = ((40, 90, 160), (150, 150, 150), (200, 60, 50), (240, 200, 40))
TRUE = ((70, 100, 120), (120, 110, 100), (160, 80, 80), (190, 170, 90))


def scene(
    seed: int, size: tuple[int, int], colors: tuple[tuple[int, int, int], ...]
) -> tuple[Image.Image, Image.Image]:
    """A picture, and its label of class ids; `size` is width and height."""
    (width, height), draw = size, np.random.default_rng(seed)
    label = Image.new("L", size, 0)
    pen = ImageDraw.Draw(label)
    shore = int(height * draw.uniform(0.6, 0.8))
    pen.rectangle((0, shore, width, height), fill=1)
    x, y = draw.uniform(0, 0.6) * width, draw.uniform(0.2, 0.5) * height
    pen.ellipse((x, y, x + 0.35 * width, y + 0.2 * height), fill=2)
    x, top, arm = draw.uniform(0.1, 0.8) * width, 0.1 * height, 0.2 * width
    pen.line([(x, shore), (x, top), (x + arm, top)], fill=3, width=max(2, width // 24))
    pixels = np.array(colors, float)[np.asarray(label)] + draw.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), label


def write(root: Path) -> None:
    """All folders that the documentation's configs name."""
    for folder, count, ending, colors in (
        ("simulator", 10, "png", SIMULATED),
        ("checked", 3, "jpg", TRUE),
        ("held-out", 3, "jpg", TRUE),
        ("survey", 4, "png", TRUE),
    ):
        for number in range(count):
            image, label = scene(hash_of(folder, number), (96, 48), colors)
            if folder == "survey":  # ids of another tool, 0 for what was not labeled
                label = Image.fromarray(np.array([7, 11, 26, 33], np.uint8)[np.asarray(label)])
                label.paste(0, (0, 0, 10, 10))
            save(image, root / folder / "images" / f"{folder}_{number:04}.{ending}")
            save(label, root / folder / "labels" / f"{folder}_{number:04}.png")
    for number in range(8):
        size = ((96, 48), (120, 60))[number % 2]
        save(
            scene(hash_of("harbor", number), size, TRUE)[0],
            root / f"harbor/2026/pier-{number % 2}/harbor_{number:04}.jpg",
        )
    for number in range(2):
        save(scene(hash_of("photos", number), (96, 48), TRUE)[0], root / f"photos/photo_{number}.jpg")


def hash_of(folder: str, number: int) -> int:
    return sum(folder.encode()) * 100 + number


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
