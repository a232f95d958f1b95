"""Some of the labeled pixels of a split, drawn at random: what temperature and matrix are fitted on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selftrain.calibrate.logits import Seen
from selftrain.draws import ALWAYS, draw, image_key
from selftrain.errors import UserError
from selftrain.settings.data import IGNORE

PIXELS = 2**17
"""Pixels of a sample: 350 for each parameter of a matrix for 19 classes, and a temperature to half a percent, at 20 MB
in double precision however many images there are."""


class Sample(NamedTuple):
    """Pixels of a split, in the order of their draws."""

    logits: Tensor
    """float64 (N, C), on the CPU."""
    labels: Tensor
    """int64 (N,)."""


def drawn(images: Iterable[Seen], classes: int, seed: int, pixels: int = PIXELS) -> Sample:
    """The labeled pixels with the lowest draws, at most so many: all pixels alike, in whatever order images come.

    A draw is a hash of the seed, the image's name and the pixel, so nothing else matters.

    Raises:
        UserError: no pixel is labeled.
    """
    draws, labels = np.empty(0, np.uint64), np.empty(0, np.uint8)
    logits = np.empty((0, classes), np.float32)
    bound = ALWAYS
    for image in images:
        flat = image.label.ravel()
        valid = np.flatnonzero(flat != IGNORE)
        of_image = draw(image_key(seed, 0, image.name), valid)  # round 0: no pseudo-label is ever drawn by it
        low = np.flatnonzero(of_image < bound)
        low = low[np.argsort(of_image[low], kind="stable")[:pixels]]
        chosen = torch.from_numpy(valid[low]).to(image.logits.device)
        values = image.logits.flatten(1).index_select(1, chosen).T.cpu().numpy()
        draws, labels = np.concatenate([draws, of_image[low]]), np.concatenate([labels, flat[valid[low]]])
        logits = np.concatenate([logits, values])
        order = np.argsort(draws, kind="stable")[:pixels]
        draws, labels, logits = draws[order], labels[order], logits[order]
        bound = draws[-1] if len(draws) == pixels else ALWAYS
    if not len(draws):
        raise UserError("the calibration split has no labeled pixel; a calibrator cannot be fitted on it")
    return Sample(torch.from_numpy(logits).double(), torch.from_numpy(labels).long())
