"""The preview stage: choose images, and predict them with the models before and after self-training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch

from selftrain import hdf5, memory
from selftrain.confidence import coarse, log_odds_of
from selftrain.data.images import batched
from selftrain.data.tables import read_images, working_sizes
from selftrain.devices import leased_device
from selftrain.label.layout import create_planes, write_images
from selftrain.predict.forward import Predictor, load_predictor
from selftrain.preview.choice import Worth, evenly_spaced
from selftrain.preview.file import FORMAT
from selftrain.progress import followed
from selftrain.settings.data import Size
from selftrain.settings.prediction import PreviewSettings


@memory.telling(memory.IN_PREDICTION)
def preview(
    settings: PreviewSettings,
    images: Path,
    models: dict[str, Path],
    labels: Sequence[Path],
    output: Path,
    *,
    threads: int = 1,
) -> None:
    """Write preview.h5.

    Args:
        settings: how many images, and how they are predicted.
        images: images.csv of the unlabeled split.
        models: model files, by the folders that they are in.
        labels: pseudo_labels.h5 of the experiments that have them. Chosen are the images that these are least sure of,
            and those that show the rarest classes in them. Without any, images are evenly spaced.
        output: preview.h5.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    table = read_images(images)
    worth = Worth.of_labels(labels, table.image.to_list()) if labels else None
    positions = worth.first(settings.images) if worth else evenly_spaced(len(table), settings.images)
    chosen = table.iloc[positions].reset_index(drop=True)
    sizes = working_sizes(chosen, settings.read.size)
    with leased_device() as device, FORMAT.create(output) as file:
        file.attrs["classes"] = json.dumps(list(settings.read.classes))
        write_images(file, chosen.image.to_list(), np.array(sizes, np.int32))
        file.create_group("models").attrs["folders"] = list(models)
        seen = []
        for folder, path in models.items():
            predictor = load_predictor(
                path, settings.evaluation, device, classes=settings.read.classes, seed=settings.seed
            )
            group = file.create_group(f"models/{folder}")
            seen.append(_predict(predictor, device, settings, chosen, sizes, group, threads))
        of_chosen = worth.at(positions) if worth else seen[0]
        file["mean_confidence"], file["rarity"] = of_chosen.confidence, of_chosen.rarity


def _predict(
    predictor: Predictor,
    device: torch.device,
    settings: PreviewSettings,
    table: pd.DataFrame,
    sizes: Sequence[Size],
    group: h5py.Group,
    threads: int,
) -> Worth:
    """Write what one model predicts of all images, and tell what they are worth by it."""
    canvas = (max(height for height, _ in sizes), max(width for _, width in sizes))
    labels, confidence = create_planes(group, len(table), canvas, branches=1)
    means, shown = np.zeros(len(table)), np.zeros((len(table), predictor.classes), bool)
    read = settings.read
    batches = batched(table, read.size, settings.batch_size, range(len(table)), read.pixels, threads)
    for batch in followed(batches, f"preview {group.name.removeprefix('/models/')}", len(table), size=len):
        names = [table.image[position] for position in batch.positions]
        planes = predictor(batch.on(device), names, sizes[batch.positions[0]]).on_host(names)
        for position, classes, bins in zip(batch.positions, planes.classes, planes.bins, strict=True):
            hdf5.write_plane(labels, position, classes)
            hdf5.write_plane(confidence, position, coarse(bins))
            means[position] = log_odds_of(bins.mean())
            shown[position, np.unique(classes)] = True
    return Worth.of(means, shown)
