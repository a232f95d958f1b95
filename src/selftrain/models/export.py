"""A model for other programs: ONNX, from images as they are in files to logits and classes at the images' size."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain import artifacts
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.models.folding import folded
from selftrain.settings.data import PixelSettings, Size

log = logging.getLogger(__name__)

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3
"""Of the largest logit: what may differ between the two programs."""
TRIED = ((96, 160), (224, 224), (130, 100))
"""Heights and widths of the random images that an export is checked on."""


def export_onnx(model: Path, output: Path, *, size: Size | None = None, own_code: str | bool = True) -> float:
    """Write an ONNX file, and check it on random images against the model.

    Its input `images` is (batch, channels, height, width), uint8 or, of models of 16-bit images, float32 from 0 to 1;
    normalization is inside. Its outputs are `logits`, float32 (batch, classes, height, width), and `classes`, uint8
    (batch, height, width). Its metadata `selftrain` is that of the model file, as JSON: class names, colors, ...

    Args:
        model: a model file.
        output: the ONNX file.
        size: the one height and width that it takes; none: any.
        own_code: see `files.load`.

    Returns:
        The largest difference between its logits and the model's, as a share of the largest logit.

    Raises:
        UserError: a package is missing, the network cannot be exported, or the export says something else.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"export needs {', '.join(missing)}: pip install 'selftrain[onnx]'")
    network, about = files.load(model, own_code=own_code)
    pixels = files.pixels_of(about)
    tried = TRIED if size is None else (size,)
    whole = Whole(network if about["model"]["module"] else folded(network, random_images(pixels, (224, 224)))).eval()
    with artifacts.writing(output) as temporary:
        _write(whole, random_images(pixels, tried[0]), temporary, any_size=size is None)
        _add_metadata(temporary, about)
        difference = max(_difference(network, temporary, random_images(pixels, one)) for one in tried)
        if not difference <= TOLERANCE:
            raise UserError(f"{model}: as ONNX its logits differ by {difference:.1e} of the largest; it is not written")
    log.info(
        "%s: checked on %d random images, logits differ by %.1e of the largest", output, 2 * len(tried), difference
    )
    return difference


class Whole(nn.Module):
    """A network whose logits have the images' size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the class of the highest: of the lowest id among equals, as everywhere here."""
        logits = self.network(images)
        logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return logits, logits.argmax(1).to(torch.uint8)


def random_images(pixels: PixelSettings, size: Size) -> Tensor:
    """Two images of noise."""
    draw = torch.Generator().manual_seed(size[0] * size[1])
    shape = (2, pixels.channels, *size)
    if pixels.bits == 16:
        return torch.rand(shape, generator=draw)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)


def _write(whole: Whole, images: Tensor, path: Path, *, any_size: bool) -> None:
    free = torch.export.Dim.AUTO
    shapes = {"images": {0: free} | ({2: free, 3: free} if any_size else {})}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                whole,
                (images,),
                path,
                input_names=["images"],
                output_names=["logits", "classes"],
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever stops torch in some network's code
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        remedy = "try --size HEIGHT WIDTH" if any_size else "torch.onnx does not know this network's operations"
        raise UserError(f"the network cannot be exported ({reason}); {remedy}") from error


def _add_metadata(path: Path, about: dict[str, object]) -> None:
    import onnx

    exported = onnx.load(path)
    exported.metadata_props.add(key="selftrain", value=json.dumps(about, sort_keys=True))
    onnx.save(exported, path)


@torch.no_grad()
def _difference(network: nn.Module, exported: Path, images: Tensor) -> float:
    """Of the logits of two programs, as a share of the largest logit; infinite where classes differ otherwise."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    logits, classes = session.run(None, {"images": images.numpy()})
    said = F.interpolate(network(images), size=images.shape[-2:], mode="bilinear", align_corners=False).numpy()
    if classes.shape != said[:, 0].shape or not np.array_equal(classes, logits.argmax(1)):
        return float("inf")
    return float(np.abs(logits - said).max() / np.abs(said).max())
