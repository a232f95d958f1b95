"""How fast this machine is: a few steps and a few images of each network, timed by the stages themselves."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from selftrain import artifacts, randomness
from selftrain.data import streets
from selftrain.data.tables import read_images, write_images
from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.predict.stage import predict_shard
from selftrain.settings.data import IGNORE, ListSettings, PixelSettings, ReadSettings, Size
from selftrain.settings.prediction import PredictionSettings, PredictStageSettings
from selftrain.settings.training import SupervisedSettings, TrainStageSettings
from selftrain.train.inputs import TrainFiles
from selftrain.train.stage import LOGGED_EVERY, train
from selftrain.written import read_table

DRAWN = 4
"""Images that are drawn to be learned and predicted."""
FEW, MORE = 4, 12
"""Images predicted; what the second call takes longer than the first, further images take."""


@dataclass(frozen=True)
class Rates:
    """What one network takes here, in seconds."""

    learned: float
    """A pixel that passes forward and backward, reading and augmenting it included."""
    seen: float
    """A pixel that is predicted, reading and writing it included."""
    start: float
    """A job with a network, before it does anything."""
    light_start: float
    """One without."""


def remembered(graph: Graph, model: Model) -> Rates | None:
    """What was timed on this machine, in this results folder, for the network of a model; None if nothing was."""
    file = _file(graph, model)
    return Rates(**json.loads(file.read_text())) if file.is_file() else None


def timed(graph: Graph, model: Model, crop: Size) -> Rates:
    """Time the network of a pretraining on drawn images of the size `crop`, and remember it.

    Steps are those of the train stage, of labeled images; the last of them count, so that what only the first ones take
    does not.
    """
    told = _few_steps(graph, model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = _drawn(folder, crop, told.labeled.pixels)
        paths = TrainFiles(images, *(folder / one for one in ("model.safetensors", "train.csv", "manifest", "resume")))
        train(told, paths, graph.config.machine, count=graph.config.machine.processes)
        learned = 1 / (read_table(paths.table).images_per_second.iloc[-1] * crop[0] * crop[1])
        spent = [_predicting(graph, told.labeled, paths.model, images, count) for count in (FEW, MORE)]
    seen = max(spent[1] - spent[0], 0) / ((MORE - FEW) * crop[0] * crop[1])
    rates = Rates(learned, seen, _importing("selftrain.train.stage"), _importing("selftrain.label.stage"))
    artifacts.write_json(_file(graph, model), asdict(rates))
    return rates


def _few_steps(graph: Graph, model: Model) -> TrainStageSettings:
    """A pretraining, but for its length and what other files would be needed for."""
    settings = graph.train(model)
    few = {"steps": 2 * LOGGED_EVERY, "epochs": None, "length_factor": 1.0, "class_weights": None, "teacher": None}
    return TrainStageSettings(
        model=settings.model,
        train=settings.train.model_copy(update=few),
        algorithm=SupervisedSettings(),
        seed=0,
        round=0,
        labeled=ReadSettings(classes=streets.CLASSES, ignore_index=IGNORE, pixels=settings.labeled.pixels),
    )


def _drawn(folder: Path, size: Size, pixels: PixelSettings) -> Path:
    """Drawn images; for a task whose images are not 8-bit RGB, noise of its kind in their place."""
    streets.write(folder / "drawn", domain="real", count=DRAWN, seed=0, size=size)
    kind = "png" if pixels.plain else "npy"
    for image in [] if pixels.plain else (folder / "drawn/images").iterdir():
        noise = randomness.generator(image.stem).integers(2**pixels.bits, size=(*size, pixels.channels))
        np.save(image.with_suffix(".npy"), noise.astype(np.uint16 if pixels.bits == 16 else np.uint8))
    root = str(folder / "drawn")
    listed = ListSettings(
        root=root, data_root=root, images=(f"images/*.{kind}",), labels=("labels/*.png",), list=None, labeled=True
    )
    write_images(listed, folder / "images.csv")
    return folder / "images.csv"


def _predicting(graph: Graph, read: ReadSettings, model: Path, images: Path, count: int) -> float:
    """Seconds that the predict stage takes for so many images."""
    table = read_images(images)
    again = table.iloc[[number % len(table) for number in range(count)]].assign(image=[f"{n}" for n in range(count)])
    listed = images.with_name(f"{count}.csv")
    again.to_csv(listed, index=False)
    told = PredictStageSettings(
        prediction=PredictionSettings(), seed=0, batch_size=graph.config.batch_size, shard=0, shards=1, read=read
    )
    start = time.monotonic()
    predict_shard(told, model, listed, images.with_name("predictions.h5"), threads=graph.config.machine.threads)
    return time.monotonic() - start


def _importing(module: str) -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.monotonic() - start


def _file(graph: Graph, model: Model) -> Path:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    told = [one.model_dump(mode="json") for one in (_few_steps(graph, model), graph.config.machine)]
    return Path(graph.config.results, ".settings", f"timing-{artifacts.digest([*told, device, platform.node()])}.json")
