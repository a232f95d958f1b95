"""The predict stage: class and confidence of every unlabeled pixel, one shard of images a job."""

from __future__ import annotations

from pathlib import Path

import torch

from selftrain import artifacts
from selftrain.data.tables import read_images
from selftrain.devices import leased_device
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.predict.confidence import naming
from selftrain.predict.forward import predict
from selftrain.predict.images import batched, shard_of, working_sizes
from selftrain.predict.store import PredictionWriter
from selftrain.settings.prediction import PredictStageSettings


def predict_shard(settings: PredictStageSettings, model: Path, images: Path, output: Path, *, threads: int = 1) -> None:
    """Write the predictions of one shard.

    Args:
        settings: what is averaged, the batch size, which shard of how many.
        model: a model file.
        images: images.csv of the unlabeled split.
        output: the shard's HDF5 file.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    table = read_images(images)
    sizes = working_sizes(table, settings.read.size)
    canvas = (max(height for height, _ in sizes), max(width for _, width in sizes))
    positions = shard_of(len(table), settings.batch_size, settings.shard, settings.shards)
    with leased_device():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, about = files.load(model)
        if tuple(about["classes"]) != settings.read.classes:
            raise UserError(f"{model}: made for the classes {about['classes']}, not {list(settings.read.classes)}")
        network.to(device)
        with PredictionWriter(
            output,
            names=[table.image[at] for at in positions],
            shapes=[sizes[at] for at in positions],
            canvas=canvas,
            classes=settings.read.classes,
            attributes={"model": artifacts.digest_file(model), "mode": settings.prediction.mode},
        ) as writer:
            for batch in batched(table, settings.read.size, settings.batch_size, positions):
                size = sizes[batch.positions[0]]
                with naming([table.image[position] for position in batch.positions]):
                    classes, bins = predict(network, batch.pixels.to(device), settings.prediction, size)
                for position, one, confidence in zip(batch.positions, classes.cpu(), bins.cpu(), strict=True):
                    writer.write(position - positions.start, one.numpy(), confidence.numpy())
