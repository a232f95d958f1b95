"""From images to the class and the confidence of every pixel: one pass, or the mean of several views or patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain import randomness
from selftrain.data.augmentation import fill_color
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.predict.confidence import decide, decide_probabilities, naming
from selftrain.predict.patches import mean_over_patches
from selftrain.predict.spatial_prior import at_size
from selftrain.settings.data import Size
from selftrain.settings.prediction import InferenceSettings


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network, and how its outputs become decisions.

    Attributes:
        model: images to logits (B, classes, h, w) of any size.
        classes: how many.
        settings: what is averaged.
        seed: of the places of random patches, with the images' names.
        fill: color around an image that is smaller than a patch.
        prior: spatial factors of the probabilities, (classes, h, w) of any size.
        thresholds: probability t_c that a class must reach, (classes,); given, a pixel's class is the one with the
            highest p_c / t_c (CBST's class-normalized choice), not the one with the highest p_c.
    """

    model: nn.Module
    classes: int
    settings: InferenceSettings
    seed: int = 0
    fill: tuple[int, ...] = (128, 128, 128)
    prior: Tensor | None = None
    thresholds: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, images: Tensor, names: Sequence[str], size: Size) -> tuple[Tensor, Tensor]:
        """Class uint8 (B, H, W) and confidence bin int16 (B, H, W) of a batch.

        Args:
            images: uint8 (B, 3, h, w).
            names: of the B images.
            size: height and width of the result.

        Raises:
            UserError: logits of an image, which it names, are not finite.
        """
        if self.settings.patches is not None:
            each = [self._decide_patched(image, name, size) for image, name in zip(images, names, strict=True)]
            classes, bins = zip(*each, strict=True)
            return torch.cat(classes), torch.cat(bins)
        with naming(names):
            if self._views != [(1.0, False)]:
                return self._decide(self._probabilities(images, size), size)
            logits = _at(self.model(images), size)
            logits = logits if self.prior is None else logits + at_size(self.prior, size).log()
            return decide(logits, self.thresholds)

    @property
    def _views(self) -> list[tuple[float, bool]]:
        return list(product(self.settings.scales, (False, True) if self.settings.flip else (False,)))

    def _probabilities(self, images: Tensor, size: Size) -> Tensor:
        """Mean softmax over the views, float32 (B, C, H, W), each turned back to the image's own geometry."""
        total: Tensor | None = None
        for scale, flip in self._views:
            view = images
            if scale != 1:
                scaled = [max(1, round(length * scale)) for length in images.shape[-2:]]
                floats = images.float() / 255
                view = F.interpolate(floats, size=scaled, mode="bilinear", align_corners=False, antialias=True)
            logits = self.model(view.flip(-1)).flip(-1) if flip else self.model(view)
            softmax = _at(logits, size).softmax(1)
            total = softmax if total is None else total.add_(softmax)
        assert total is not None
        return total.div_(len(self._views))

    def _decide_patched(self, image: Tensor, name: str, size: Size) -> tuple[Tensor, Tensor]:
        """Class and bin, (1, H, W), of an image (3, h, w) whose patches are predicted each on its own."""
        assert self.settings.patches is not None
        with naming([name]):
            means = mean_over_patches(
                lambda patches: self._probabilities(patches, (patches.shape[-2], patches.shape[-1])),
                image,
                self.settings.patches,
                randomness.generator(self.seed, "patches", name),
                classes=self.classes,
                fill=self.fill,
                enlarged=max(self.settings.scales) ** 2,
            )
            return self._decide(means[None], size)

    def _decide(self, means: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """Class and bin of mean probabilities (B, C, h, w), on whatever device they are."""
        means = means if means.shape[-2:] == size else _at(means, size)
        if self.prior is not None:
            means = means * at_size(self.prior, size).to(means.device)
        return decide_probabilities(means, None if self.thresholds is None else self.thresholds.to(means.device))


def load_predictor(
    model: Path,
    settings: InferenceSettings,
    device: torch.device,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    prior: Tensor | None = None,
    thresholds: Tensor | None = None,
) -> Predictor:
    """The predictor of a model file, on a device.

    Raises:
        UserError: the file is no model, or made for others than `classes`.
    """
    network, about = files.load(model)
    if classes is not None and tuple(about["classes"]) != tuple(classes):
        raise UserError(f"{model}: made for the classes {about['classes']}, not {list(classes)}")
    return Predictor(
        network.to(device),
        len(about["classes"]),
        settings,
        seed,
        fill_color(about["model"]["mean"]),
        None if prior is None else prior.to(device),
        None if thresholds is None else thresholds.to(device),
    )


def _at(scores: Tensor, size: Size) -> Tensor:
    """Float32 scores at the wanted size."""
    return F.interpolate(scores.float(), size=size, mode="bilinear", align_corners=False)
