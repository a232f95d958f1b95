"""What predicting costs beside the bare network: `python benchmarks/prediction.py [--quick]`.

The predict stage, from image files to an HDF5 file, against the network's forward alone over the same batches, which
lie in memory: images a second, both in turns. One thread of torch on a CPU. The bare forward is what plain PyTorch
does, so it has a process of its own: what the stage asks of the C library's memory is no gift to it.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from drawn import READ, split
from measures import NOT_MEASURED, Line, medians, show

from selftrain.data import streets
from selftrain.data.images import batched
from selftrain.data.tables import read_images
from selftrain.models import files
from selftrain.models.segmenter import Segmenter
from selftrain.predict.stage import predict_shard
from selftrain.settings.data import Size
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import PredictionSettings, PredictStageSettings


@dataclass(frozen=True)
class Case:
    """A network, and the images it is to predict."""

    encoder: str
    size: Size
    batch: int
    images: int
    threads: int = 1
    """Readers of images too."""


ON_CPU = (
    Case("mobilenetv3_small_050", (96, 192), 8, 1024),
    Case("resnet18", (512, 1024), 2, 16),
    Case("resnet50", (512, 1024), 1, 10),
)
ON_GPU = (Case("resnet18", (512, 1024), 8, 1024, 16), Case("resnet101", (512, 1024), 8, 1024, 16))
DRAWN = 16
"""Images that differ; the others are links to them, since drawing takes longer than predicting on a GPU."""
QUICK = (Case("mobilenetv3_small_050", (32, 64), 2, 4),)


def measure(arguments: Sequence[str]) -> list[Line]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    logging.disable()
    gpu = torch.cuda.is_available()
    lines = [] if gpu else [_line(case, "CPU", "≥ .90", 1 if quick else 3) for case in (QUICK if quick else ON_CPU)]
    for case in ON_GPU:
        if gpu:
            lines.append(_line(case, torch.cuda.get_device_name(), "≥ .85", 2))
        else:
            lines.append(Line(_told(case, "GPU"), NOT_MEASURED, "≥ .85"))
    return lines


def _told(case: Case, device: str) -> str:
    return "prediction on {}: {}, {}×{}, batch {}".format(device, case.encoder, *case.size, case.batch)


def _line(case: Case, device: str, to_reach: str, repeats: int) -> Line:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = _linked(split(folder, "real", min(DRAWN, case.images), case.size), case.images)
        settings = PredictStageSettings(
            read=READ, prediction=PredictionSettings(), seed=0, batch_size=case.batch, shard=0, shards=1
        )
        model = folder / "model.safetensors"
        _save(model, case)
        with multiprocessing.get_context("spawn").Pool(1, _prepare, (model, images, case)) as plain:
            ways = {
                "bare": lambda: plain.apply(_forward),
                "stage": lambda: predict_shard(settings, model, images, folder / "p.h5", threads=case.threads),
            }
            rates = {way: case.images / seconds for way, seconds in medians(ways, repeats, time.perf_counter).items()}
            against = f"bare forward: {rates['bare']:.1f} images/s"
            if not torch.cuda.is_available():
                spent = medians({"stage": ways["stage"]}, 1)["stage"] / plain.apply(_forward)
                against += f"; CPU-seconds {spent:.2f} of its"
    measured = f"{rates['stage']:.1f} images/s"
    return Line(_told(case, device), measured, to_reach, against, f"{rates['stage'] / rates['bare']:.2f}")


def _linked(table: Path, count: int) -> Path:
    """The images of a table again and again, until there are `count`."""
    images = read_images(table)
    again = images.iloc[[number % len(images) for number in range(count)]].reset_index(drop=True)
    again["image"] = [f"{number:05d}" for number in range(count)]
    again.to_csv(table, index=False)
    return table


def _save(path: Path, case: Case) -> None:
    torch.manual_seed(0)
    settings = ModelSettings(encoder=case.encoder)
    files.save(path, Segmenter(settings, len(streets.CLASSES)), settings, streets.CLASSES, 0, None)


def _prepare(model: Path, images: Path, case: Case) -> None:
    """In the process of the bare forward: the network, and batches in memory."""
    global NETWORK, BATCHES
    torch.set_num_threads(1)
    # As the stage has it: channels_last is an eighth faster here, and no merit of the stage.
    network = files.load(model)[0].to(memory_format=torch.channels_last)
    NETWORK = network.to("cuda" if torch.cuda.is_available() else "cpu")
    table = read_images(images)
    BATCHES = [one.pixels for one in batched(table, None, case.batch, range(case.images), readers=case.threads)]


@torch.inference_mode()
def _forward() -> float:
    """Every batch once; CPU-seconds."""
    start = time.process_time()
    for batch in BATCHES:
        NETWORK(batch.to(next(NETWORK.parameters()).device))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() - start


if __name__ == "__main__":
    show(measure(sys.argv[1:]))
