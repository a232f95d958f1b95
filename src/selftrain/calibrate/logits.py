"""What a network says of labeled images, an image at a time, at the label's size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain.data.images import batched
from selftrain.data.reading import read_label
from selftrain.data.tables import read_images, working_sizes
from selftrain.errors import UserError
from selftrain.progress import followed
from selftrain.settings.prediction import EvaluatedSplit


class Seen(NamedTuple):
    """An image as the network sees it, and what it truly shows."""

    name: str
    logits: Tensor
    """float32 (C, H, W)."""
    label: np.ndarray
    """uint8 (H, W), 255 is ignore."""


@torch.inference_mode()
def labeled_logits(
    network: nn.Module, device: torch.device, images: Path, split: EvaluatedSplit, batch_size: int
) -> Iterator[Seen]:
    """Each image of a split, from one pass over the whole image at the split's working size.

    Args:
        network: images (B, channels, H, W) to logits (B, C, h, w), on the device.
        device: where it is.
        images: images.csv of the split.
        split: how its files become arrays.
        batch_size: images a forward.

    Raises:
        UserError: logits of an image, which it names, are not finite.
    """
    table, read = read_images(images), split.read
    sizes = working_sizes(table, split.score_size)
    batches = batched(table, read.size, batch_size, range(len(table)), read.pixels)
    for batch in followed(batches, "calibrate", len(table), size=len):
        for position, logits in zip(batch.positions, network(batch.on(device)).float(), strict=True):
            name, size = table.image[position], sizes[position]
            if not logits.isfinite().all():
                raise UserError(f"NaN or infinite logits for {name}; has the training diverged?")
            at_size = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
            yield Seen(name, at_size, read_label(table.label_file[position], read, size))
