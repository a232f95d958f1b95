"""A task and a network small enough to train in a test: blocks whose class is their color, and two convolutions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from selftrain import hdf5
from selftrain.confidence import BINS
from selftrain.data.reading import read_image
from selftrain.data.tables import read_images, write_images
from selftrain.label.pseudo_labels import CLASS_COLUMNS, FORMAT
from selftrain.models import files
from selftrain.models.segmenter import Segmenter
from selftrain.settings.config import MachineSettings
from selftrain.settings.data import ListSettings, ReadSettings
from selftrain.settings.model import ModelSettings
from selftrain.settings.training import TrainStageSettings
from selftrain.train.inputs import TrainFiles

torch.set_num_threads(1)

CLASSES = ("sky", "road", "car")
COLORS = np.array([[60, 120, 220], [130, 130, 120], [200, 40, 40]])
READ = ReadSettings(classes=CLASSES, ignore_index=255)
SIZE = (32, 48)
MODEL = ModelSettings(module="tiny:network", arguments={"width": 6})
NOW = MachineSettings(checkpoint_seconds=0)


class Killed(BaseException):
    """As good as a kill for what the process has written until then."""


def network(classes, width=6, channels=3, dropout=0.1):
    """With what makes resuming hard: batch-norm statistics and dropout."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout2d(dropout),
        nn.Conv2d(width, classes, 1),
    )


def blocks(size, seed=0, cell=8):
    """Random ids in blocks, a tenth of them ignored."""
    draw = np.random.default_rng(seed)
    coarse = draw.choice(
        np.array([0, 1, 2, 255], np.uint8), [-(-side // cell) for side in size], p=[0.3, 0.3, 0.3, 0.1]
    )
    return np.kron(coarse, np.ones((cell, cell), np.uint8))[: size[0], : size[1]]


def split(folder, sizes=(SIZE,) * 5, seed=0, label_files=True):
    """Write images and labels, and return their images.csv."""
    for number, size in enumerate(sizes):
        ids = blocks(size, seed * 1000 + number)
        color = np.vstack([COLORS, np.zeros((253, 3))])[ids]
        noise = np.random.default_rng(seed * 1000 + number).normal(0, 12, color.shape)
        for kind, pixels in (("images", (color + noise).clip(0, 255).astype(np.uint8)), ("labels", ids)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{folder.name}-{number}.png")
    listed = ListSettings(
        root=str(folder),
        data_root=str(folder),
        images=("images/*",),
        labels=("labels/*",) if label_files else None,
        list=None,
        labeled=label_files,
    )
    write_images(listed, folder / "images.csv")
    return folder / "images.csv"


def write_pseudo_labels(path, names, labels, classes=CLASSES, mean_size=0.2):
    """The file that label makes, as far as training and scoring look at it; a mean size for all classes or each."""
    mean_sizes = np.full(len(classes), mean_size, np.float64)
    shapes = np.array([label.shape for label in labels], np.int32)
    canvas = tuple(int(side) for side in shapes.max(0))
    with FORMAT.create(path) as file:
        file.attrs["classes"] = json.dumps(classes)
        hdf5.write_names(file, "images", names)
        planes = hdf5.create_planes(file, "label", np.uint8, (len(names), *canvas), 255)
        for position, label in enumerate(labels):
            planes[position, : label.shape[0], : label.shape[1]] = label
        hdf5.create_planes(file, "confidence", np.uint8, (len(names), *canvas), 0)
        file["shapes"] = shapes
        counts = np.array([[(label == index).sum() for index in range(len(classes))] for label in labels])
        file["counts"] = counts
        file["mean_confidence"] = np.zeros(len(names), np.float32)
        file["histogram"] = np.zeros((len(classes), BINS), np.int64)
        shares = counts.sum(0) / max(1, counts.sum())
        hdf5.write_table(
            file,
            "classes",
            pd.DataFrame({name: 0 for name in CLASS_COLUMNS}, range(len(classes))).assign(
                **{"class": list(classes), "share": shares, "prior": shares[::-1]}
            ),
        )
        cut = {"class": list(classes), "prior": shares[::-1], "mean_size": mean_sizes}
        hdf5.write_table(file, "cut", pd.DataFrame(cut | {"threshold_bin": BINS, "kept_fraction": 0.0}))
        file.attrs.update(method="dars", round=1, portion=0.5, settings="{}", branches=1)
    return path


def stage(algorithm="supervised", model=MODEL, seed=0, optimizer=None, augmentation=None, **train):
    """Settings of a few steps."""
    train = {"steps": 25, "batch_size": 4} | train
    train["optimizer"] = {"lr": 0.02} | (optimizer or {})
    train["augmentation"] = {"crop": (24, 24), "scale": (0.8, 1.5), "jitter_probability": 0.5} | (augmentation or {})
    return TrainStageSettings(
        model=model, train=train, algorithm=algorithm, seed=seed, round=0, labeled=READ, unlabeled=READ
    )


def outputs(folder, labeled, **inputs):
    """Where a training reads and writes; all trainings of a test share the folder of resume states."""
    return TrainFiles(
        labeled=labeled,
        model=folder / "model.safetensors",
        table=folder / "train.csv",
        manifest=folder / "manifest.json",
        resume=folder.parent / "resume",
        **inputs,
    )


def save_model(path: Path, model=MODEL, classes=CLASSES, seed=0) -> Segmenter:
    """Write a network with random weights, and return it."""
    torch.manual_seed(seed)
    segmenter = Segmenter(model, len(classes)).eval()
    files.save(path, segmenter, model, classes, step=0)
    return segmenter


def pixels_of(images: Path, name: str) -> torch.Tensor:
    """An image of a split as a batch, uint8 (1, 3, h, w)."""
    table = read_images(images).set_index("image")
    return torch.from_numpy(read_image(table.image_file[name])).permute(2, 0, 1)[None]


def histogram_of(classes, bins, count):
    """Pixels by class and bin, (count, BINS); those of class 255 are nowhere."""
    counts = np.zeros((count, BINS), np.int64)
    for one in range(count):
        counts[one] = np.bincount(bins[classes == one], minlength=BINS)
    return counts
