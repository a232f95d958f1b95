"""The predict stage: class and confidence of every unlabeled pixel, one shard of images a job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from selftrain import artifacts, memory
from selftrain.behind import Behind
from selftrain.calibrate.calibrator import NONE, Calibrator, read_calibrator
from selftrain.data.images import MORE_READERS, batched, shard_of
from selftrain.data.tables import read_images, working_sizes
from selftrain.devices import leased_device
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.predict.forward import Pending, load_predictor
from selftrain.predict.spatial_prior import read_spatial_prior
from selftrain.predict.writer import Packed, PredictionWriter
from selftrain.progress import followed
from selftrain.settings.prediction import PredictStageSettings


@memory.telling(memory.IN_PREDICTION)
def predict_shard(
    settings: PredictStageSettings,
    model: Path,
    images: Path,
    output: Path,
    *,
    statistics: Path | None = None,
    calibrator: Path | None = None,
    thresholds: Sequence[float] | None = None,
    threads: int = 1,
) -> None:
    """Write the predictions of one shard.

    Args:
        settings: what is averaged, the batch size, which shard of how many.
        model: a model file.
        images: images.csv of the unlabeled split.
        output: the shard's HDF5 file.
        statistics: statistics.h5 of the labeled split, where there is a spatial prior.
        calibrator: calibrator.json of the model, where predictions are calibrated.
        thresholds: per class the probability to be reached; given, a pixel's class is chosen relative to them.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    table, read = read_images(images), settings.read
    sizes = working_sizes(table, read.size)
    canvas = (max(height for height, _ in sizes), max(width for _, width in sizes))
    positions = shard_of(len(table), settings.batch_size, settings.shard, settings.shards)
    with leased_device() as device:
        predictor = load_predictor(
            model,
            settings.prediction,
            device,
            classes=read.classes,
            seed=settings.seed,
            prior=_prior(settings, statistics),
            thresholds=None if thresholds is None else torch.tensor(thresholds),
            count_agreement=True,
            calibrator=_calibrator(settings, calibrator, model),
        )
        least_agreement = settings.prediction.agreement
        if least_agreement is not None and predictor.branches == 1:
            raise UserError(f"{model}: has one branch, so prediction.agreement has nothing to go by; train several")
        writer = PredictionWriter(
            output,
            names=[table.image[at] for at in positions],
            shapes=[sizes[at] for at in positions],
            canvas=canvas,
            classes=read.classes,
            branches=predictor.branches,
            least_agreement=least_agreement,
            attributes={
                "model": artifacts.digest_file(model),
                "mode": settings.prediction.mode,
                "colors": json.dumps(files.read_about(model)["colors"]),
            }
            | ({} if calibrator is None else {"calibrator": artifacts.digest_file(calibrator)}),
        )
        # Images are read, and what the network says of them is decided and written, while it works on others.
        with writer, Behind() as writing, Behind(threads) as packing:
            batches = batched(table, read.size, settings.batch_size, positions, read.pixels, threads)
            for batch in followed(batches, "predict", len(positions), size=len, remedy=MORE_READERS):
                names = [table.image[position] for position in batch.positions]
                pending = predictor(batch.on(device), names, sizes[batch.positions[0]])
                places = [position - positions.start for position in batch.positions]
                packing(_packed, writer, places, names, pending, then=partial(writing, _write, writer))


def _packed(writer: PredictionWriter, places: Sequence[int], names: Sequence[str], pending: Pending) -> list[Packed]:
    """What is predicted of a batch, decided and ready to be written."""
    with pending.awaited(names) as (classes, bins, agreement):
        return [
            writer.pack(place, classes[at], bins[at], None if agreement is None else agreement[at])
            for at, place in enumerate(places)
        ]


def _write(writer: PredictionWriter, images: list[Packed]) -> None:
    for image in images:
        writer.write_packed(image)


def _prior(settings: PredictStageSettings, statistics: Path | None) -> Tensor | None:
    spatial_prior = settings.prediction.spatial_prior
    if spatial_prior is None:
        return None
    if statistics is None:
        raise UserError("a spatial prior needs the statistics of the labeled split; give them with --statistics")
    return read_spatial_prior(statistics, spatial_prior, settings.read.classes)


def _calibrator(settings: PredictStageSettings, file: Path | None, model: Path) -> Calibrator:
    calibration = settings.prediction.calibration
    if calibration is None:
        return NONE
    if file is None:
        raise UserError("calibrated predictions need the model's calibrator; give it with --calibrator")
    return read_calibrator(file, calibration, artifacts.digest_file(model), settings.read.classes)
