"""From images to the class and the confidence of every pixel: one pass, or the mean of several views or patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftrain import randomness
from selftrain.calibrate.calibrator import NONE, Calibrator
from selftrain.data.augmentation import fill_color
from selftrain.errors import UserError
from selftrain.memory import keep_freed_memory
from selftrain.models import files
from selftrain.models.agreement import agreement
from selftrain.models.folding import folded
from selftrain.models.top import resized, top_classes
from selftrain.predict.confidence import UNDEFINED, decide, decide_probabilities
from selftrain.predict.patches import bands_over_patches
from selftrain.predict.spatial_prior import at_size
from selftrain.settings.data import Size
from selftrain.settings.prediction import InferenceSettings

EXAMPLE = (224, 224)
"""Height and width of an image that every encoder takes."""


class Planes(NamedTuple):
    """What is predicted of a batch, on the host."""

    classes: npt.NDArray[np.uint8]
    """(B, H, W)."""
    bins: npt.NDArray[np.uint16]
    """Of confidence, (B, H, W)."""
    agreement: npt.NDArray[np.uint8] | None
    """How many branches name the most frequent class, (B, H, W), where that is counted."""


class Decided(NamedTuple):
    """What is predicted of a batch, on the device, which may still be at work on it."""

    classes: Tensor
    """uint8 (B, H, W)."""
    bins: Tensor
    """Of confidence, int32 (B, H, W); `UNDEFINED` where logits are not finite."""
    agreement: Tensor | None = None
    """How many branches name the most frequent class, uint8 (B, H, W), where that is counted."""


@dataclass(frozen=True, eq=False)
class Pending:
    """A batch that the network has seen. What is left to do is done where it is awaited, in whatever thread.

    Attributes:
        decided: does it, once; of a GPU, which has been asked for all of it, it gives what will be there.
        ready: of a GPU: when it is done.
    """

    decided: Callable[[], Decided]
    ready: torch.cuda.Event | None = None

    @contextmanager
    def awaited(self, names: Sequence[str]) -> Iterator[Decided]:
        """What is decided, when the device is done with it, and sound.

        What a GPU is asked for in the block, it does beside what it has been given to do since.

        Args:
            names: of the B images.

        Raises:
            UserError: logits of images, which it names, are not finite.
        """
        decided = self.decided()
        with ExitStack() as stack:
            if self.ready is not None:
                beside = torch.cuda.Stream(decided.bins.device)
                beside.wait_event(self.ready)
                stack.enter_context(torch.cuda.stream(beside))
            lowest = decided.bins.flatten(1).amin(1).tolist()
            if bad := [name for name, bin in zip(names, lowest, strict=True) if bin == UNDEFINED]:
                raise UserError(f"NaN or infinite logits for {', '.join(bad)}; has the training diverged?")
            yield decided

    def on_host(self, names: Sequence[str]) -> Planes:
        """What is `awaited`, copied."""
        with self.awaited(names) as (classes, bins, agreement):
            agreeing = None if agreement is None else agreement.cpu().numpy()
            return Planes(classes.cpu().numpy(), bins.cpu().numpy().astype(np.uint16), agreeing)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network, and how its outputs become decisions.

    Attributes:
        model: images to logits (B, classes, h, w) of any size; to `Outputs` where agreement is counted.
        classes: how many.
        settings: what is averaged.
        seed: of the places of random patches, with the images' names.
        fill: color, of the images' own type, around an image that is smaller than a patch.
        prior: spatial factors of the probabilities, (classes, h, w) of any size.
        thresholds: probability t_c that a class must reach, (classes,); given, a pixel's class is the one with the
            highest p_c / t_c (CBST's class-normalized choice), not the one with the highest p_c.
        branches: of how many agreement is counted; 1: it is not. Each branch's class is that of its own probabilities,
            averaged over views or patches and multiplied by the prior as the network's are; thresholds do not matter.
            Of averages, it may be that all branches name another class than the network does.
        calibrator: of each view's logits or probabilities, the network's and its branches' alike.
    """

    model: nn.Module
    classes: int
    settings: InferenceSettings
    seed: int = 0
    fill: tuple[float, ...] = (128, 128, 128)
    prior: Tensor | None = None
    thresholds: Tensor | None = None
    branches: int = 1
    calibrator: Calibrator = NONE

    @torch.inference_mode()
    def __call__(self, images: Tensor, names: Sequence[str], size: Size) -> Pending:
        """What is predicted of a batch.

        Args:
            images: (B, channels, h, w), uint8, or float from 0 to 1.
            names: of the B images.
            size: height and width of the result.
        """
        if self.settings.patches is not None:
            each = zip(images, names, strict=True)
            decided = _joined([self._decide_patched(image, name, size) for image, name in each])
        elif self._views != [(1.0, False)] or self.calibrator.of_probabilities:
            decided = self._decide(self._probabilities(images, size), size)
        else:
            said = self._logits(images)
            if self.prior is not None:
                prior = at_size(self.prior, size).log()
                said = [resized(logits, size) + prior for logits in said]
            elif not images.is_cuda:
                return Pending(lambda: self._decide_logits(said, size))
            decided = self._decide_logits(said, size)
        return Pending(lambda: decided, torch.cuda.current_stream().record_event() if images.is_cuda else None)

    @torch.inference_mode()
    def _decide_logits(self, said: Sequence[Tensor], size: Size) -> Decided:
        """What logits (B, C, h, w), the network's and those of each branch, say at a size."""
        whole, *branches = said
        return self._counted(decide(whole, self.thresholds, size), [top_classes(logits, size) for logits in branches])

    @property
    def _views(self) -> list[tuple[float, bool]]:
        return list(product(self.settings.scales, (False, True) if self.settings.flip else (False,)))

    def _logits(self, images: Tensor) -> list[Tensor]:
        """Of the network; where agreement is counted, of each branch too."""
        if self.branches == 1:
            return [self.calibrator.logits(self.model(images))]
        outputs = self.model(images, apart=True)
        return [self.calibrator.logits(logits) for logits in (outputs.logits, *outputs.branches)]

    def _probabilities(self, images: Tensor, size: Size) -> Tensor:
        """Mean softmax over the views, float32 (B, S·C, H, W), each turned back to the image's own geometry.

        S is 1; where agreement is counted, the C channels of the network are followed by those of each branch.
        """
        total: Tensor | None = None
        for scale, flip in self._views:
            view = images
            if scale != 1:
                scaled = [max(1, round(length * scale)) for length in images.shape[-2:]]
                floats = images.float() / 255 if images.dtype == torch.uint8 else images
                view = F.interpolate(floats, size=scaled, mode="bilinear", align_corners=False, antialias=True)
            said = self._logits(view.flip(-1) if flip else view)
            if total is None:
                total = torch.zeros((len(images), len(said) * self.classes, *size), device=images.device)
            for logits, of_set in zip(said, total.split(self.classes, 1), strict=True):
                said_of_pixels = resized(logits.flip(-1) if flip else logits, size).softmax(1)
                of_set += self.calibrator.probabilities(said_of_pixels)
        assert total is not None
        return total.div_(len(self._views))

    def _decide_patched(self, image: Tensor, name: str, size: Size) -> Decided:
        """What is predicted of an image (channels, h, w) whose patches are predicted each on its own; B is 1."""
        assert self.settings.patches is not None
        bands = bands_over_patches(
            lambda patches: self._probabilities(patches, (patches.shape[-2], patches.shape[-1])),
            image,
            self.settings.patches,
            randomness.generator(self.seed, "patches", name),
            classes=self.classes,
            sets=1 if self.branches == 1 else 1 + self.branches,
            fill=self.fill,
            enlarged=max(self.settings.scales) ** 2,
        )
        if self.prior is not None or tuple(image.shape[1:]) != size:  # neither is made in parts
            return self._decide(torch.cat(list(bands), 1)[None], size)
        return _joined([self._decide(band[None], (band.shape[1], size[1])) for band in bands], 1)

    def _decide(self, means: Tensor, size: Size) -> Decided:
        """What mean probabilities (B, S·C, h, w) say, on whatever device they are."""
        sets = list(resized(means, size).split(self.classes, 1))
        if self.prior is not None:
            prior = at_size(self.prior, size).to(means.device)
            sets = [one * prior for one in sets]
        thresholds = None if self.thresholds is None else self.thresholds.to(means.device)
        return self._counted(decide_probabilities(sets[0], thresholds), [top_classes(one) for one in sets[1:]])

    @staticmethod
    def _counted(decided: tuple[Tensor, Tensor], votes: list[Tensor]) -> Decided:
        return Decided(*decided, agreement(votes) if votes else None)


def load_predictor(
    model: Path,
    settings: InferenceSettings,
    device: torch.device,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    prior: Tensor | None = None,
    thresholds: Tensor | None = None,
    count_agreement: bool = False,
    calibrator: Calibrator = NONE,
    own_code: str | bool = True,
) -> Predictor:
    """The predictor of a model file, on a device; it counts agreement where that is asked for and there are branches.

    Raises:
        UserError: the file is no model, made for others than `classes`, or of a network that may not be imported
            (`own_code`, see `files.load`).
    """
    keep_freed_memory()
    network, about = files.load(model, own_code=own_code)
    if classes is not None and tuple(about["classes"]) != tuple(classes):
        raise UserError(f"{model}: made for the classes {about['classes']}, not {list(classes)}")
    if about["model"]["module"] is None:  # a user's own network may count on its layers, and how their maps lie
        network = folded(network, torch.zeros(1, len(about["model"]["mean"]), *EXAMPLE))
        network = network.to(memory_format=torch.channels_last)  # a tenth to a fifth faster on a CPU
    return Predictor(
        network.to(device),
        len(about["classes"]),
        settings,
        seed,
        fill_color(about["model"]["mean"], files.pixels_of(about).bits),
        None if prior is None else prior.to(device),
        None if thresholds is None else thresholds.to(device),
        len(network.branches) if count_agreement else 1,
        calibrator,
    )


def _joined(parts: Sequence[Decided], dimension: int = 0) -> Decided:
    """What is decided of images, or of bands of one."""
    classes, bins, agreeing = zip(*parts, strict=True)
    agreement = None if agreeing[0] is None else torch.cat(agreeing, dimension)
    return Decided(torch.cat(classes, dimension), torch.cat(bins, dimension), agreement)
