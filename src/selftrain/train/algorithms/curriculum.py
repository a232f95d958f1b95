"""The strategic curriculum of proxy labels: batches of one domain, easy pixels of the target, hard ones of the source.

Where the paper says source, this says labeled; where it says target, unlabeled.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selftrain import randomness
from selftrain.agreement import least
from selftrain.data.batches import Batch, Turns
from selftrain.errors import UserError
from selftrain.models.agreement import agreement
from selftrain.models.segmenter import Outputs
from selftrain.models.top import top_classes
from selftrain.settings.curriculum import CurriculumSettings, RampSettings
from selftrain.settings.data import IGNORE
from selftrain.train import processes
from selftrain.train.algorithms import Algorithm, Given, Loss, Step
from selftrain.train.losses import at_size, of_outputs


class Curriculum(Algorithm):
    """Each step learns a batch of labeled images, or one of unlabeled images with the network's own labels of the step.

    Of unlabeled images it learns what is easy, pixels on which the branches agree; of labeled ones more and more what
    is hard. The loss is the mean over the pixels that are retained.
    """

    def __init__(self, settings: CurriculumSettings, given: Given) -> None:
        super().__init__(given)
        self.settings, self.one_size = settings, False
        self.streams = {"labeled": 1.0, "unlabeled": 1.0}

    def turns(self, steps: int) -> Turns:
        """Labeled images with chance gamma at each step (section 3.1), unlabeled ones else."""
        drawn = randomness.generator(*self.given.place, "labeled or unlabeled").random(steps)
        labeled = drawn < ramp(self.settings.source_ratio, np.arange(steps), steps)
        return {"labeled": labeled, "unlabeled": ~labeled}

    def loss(self, step: Step) -> Loss:
        """One term, of the batch that the step has."""
        ((stream, batch),) = step.batches.items()
        outputs: Outputs = step.student(batch.images, apart=True)
        outputs = outputs._replace(branches=tuple(at_size(logits, batch.labels) for logits in outputs.branches))
        branches = outputs.branches
        mining = "source_hard_mining" if stream == "labeled" else "target_easy_mining"
        if len(branches) == 1 and getattr(self.settings, mining) is not None:
            raise UserError(f"algorithm.{mining}: the model has one branch, which always agrees; switch this off")
        with torch.no_grad():
            agreeing = agreement([top_classes(logits) for logits in branches])
        if stream == "labeled":
            return self.of_labeled(outputs, agreeing, batch, step)
        return self.of_unlabeled(outputs, agreeing, batch)

    def of_labeled(self, outputs: Outputs, agreeing: Tensor, batch: Batch, step: Step) -> Loss:
        """Source hard mining: a growing share of the pixels on which all branches agree is dropped at random."""
        valid, easy = batch.labels != IGNORE, agreeing == len(outputs.branches)
        told, retained = self.settings.source_hard_mining, torch.ones_like(valid)
        if told is not None:
            drop = float(ramp(told, step.number, step.steps))
            retained = ~(easy & (self._drawn(step.number, easy) < drop))
        facts = {"labeled_agreement": _share(easy, valid), "labeled_retained": _share(retained, valid)}
        return Loss({"labeled": self._loss(outputs, batch.labels, retained)}, facts)

    def of_unlabeled(self, outputs: Outputs, agreeing: Tensor, batch: Batch) -> Loss:
        """Target easy mining: only pixels on which enough branches agree are learned, as the network labels them."""
        valid, told = batch.labels != IGNORE, self.settings.target_easy_mining
        branches = outputs.branches
        with torch.no_grad():
            predicted = top_classes(outputs.logits)
        easy = agreeing == len(branches)
        learned = valid if told is None else valid & (agreeing >= least(told.agreement, len(branches)))
        facts = {"unlabeled_agreement": _share(easy, valid), "unlabeled_retained": _share(learned, valid)}
        example = {
            "image": batch.images[0],
            "predicted": torch.where(valid, predicted, IGNORE).to(torch.uint8)[0],
            "agreement": torch.where(valid, 255 * agreeing.float() / len(branches), 255).round().to(torch.uint8)[0],
            "label": torch.where(learned, predicted, IGNORE).to(torch.uint8)[0],
        }
        return Loss({"unlabeled": self._loss(outputs, predicted, learned)}, facts, example)

    def _loss(self, outputs: Outputs, labels: Tensor, retained: Tensor) -> Tensor:
        """Cross-entropy, the mean over retained pixels, added over branches (eq. 4) and auxiliary classifiers."""
        left = torch.where(retained, labels, IGNORE).to(torch.uint8)
        return of_outputs(partial(self.given.cross_entropy, labels=left), outputs)

    def _drawn(self, number: int, like: Tensor) -> Tensor:
        """A number from 0 to 1 for each pixel of a step, drawn on its device."""
        draw = torch.Generator(like.device).manual_seed(randomness.key(*self.given.place, "hard mining", number))
        whole = (len(like) * processes.count(), *like.shape[1:])
        return processes.own(torch.rand(whole, generator=draw, device=like.device))


def ramp(settings: RampSettings, number: npt.ArrayLike, steps: int) -> npt.NDArray[np.float64]:
    """The number at step `number` (or several) of `steps`: linear over the training's first part, then constant.

    >>> ramp(RampSettings(start=0.9, end=0.1), [0, 25, 50, 99], 100).round(2).tolist()
    [0.9, 0.5, 0.1, 0.1]
    """
    done = np.minimum(1.0, np.asarray(number) / (settings.until * steps))
    return settings.start + (settings.end - settings.start) * done


def _share(marked: Tensor, valid: Tensor) -> Tensor:
    return processes.ratio((marked & valid).sum(), valid.sum())
