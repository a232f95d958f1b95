"""Pseudo-labels as masks, for an annotation tool or another trainer."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from selftrain import artifacts
from selftrain.data.palette import palette
from selftrain.errors import UserError
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.progress import followed
from selftrain.settings.base import nearest

log = logging.getLogger(__name__)


def export_labels(file: Path, output: Path, *, images: Sequence[str] = ()) -> None:
    """Write OUTPUT/NAME.png for each image: its pseudo-label as a palette PNG of class ids, 255 where it is ignored.

    So `labeled: {labels: OUTPUT/**/*.png}` reads them.

    Args:
        file: pseudo_labels.h5.
        output: the folder; made if it is not there.
        images: names of those wanted; all unless given.

    Raises:
        UserError: the file is no pseudo-labels, or has no image of a name.
    """
    labels = PseudoLabels(file)
    if unknown := [name for name in images if name not in set(labels.names)]:
        raise UserError(
            f"{file}: {nearest(unknown[0], labels.names, 'image')} (`selftrain inspect --images` lists all)"
        )
    colors = palette(len(labels.class_names), json.loads(labels.attributes.get("colors", "null")))
    wanted = images or labels.names
    for name in followed(wanted, "export", len(wanted)):
        picture = Image.fromarray(labels.label(name))
        picture.putpalette(colors)
        with artifacts.writing(output / f"{name}.png") as temporary:
            picture.save(temporary)
    log.info("%d masks in %s", len(wanted), output)
