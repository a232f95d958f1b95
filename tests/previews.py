"""A preview as the preview stage writes it, of images and models made up here."""

import json
from pathlib import Path

import numpy as np

from selftrain.label.layout import create_planes, write_images
from selftrain.preview.file import FORMAT


def write_preview(path: Path, classes, images: dict[str, tuple[int, int]], models) -> dict[str, np.ndarray]:
    """Write random predictions of images, whose sizes are given by name; the later, the surer and the more common.

    Returns them by model, (n, H, W).
    """
    shapes = np.array(list(images.values()), np.int32)
    canvas = tuple(int(side) for side in shapes.max(0))
    random = np.random.default_rng(0)
    predicted = {}
    with FORMAT.create(path) as file:
        file.attrs["classes"] = json.dumps(list(classes))
        write_images(file, list(images), shapes)
        file.create_group("models").attrs["folders"] = list(models)
        for folder in models:
            planes = create_planes(file.create_group(f"models/{folder}"), len(images), canvas, branches=1)
            predicted[folder] = random.integers(0, len(classes), (len(images), *canvas), np.uint8)
            planes[0][:], planes[1][:] = predicted[folder], 64
        file["mean_confidence"] = np.arange(len(images), dtype=np.float32)
        file["rarity"] = np.arange(len(images), 0, -1).astype(np.float32)
    return predicted
