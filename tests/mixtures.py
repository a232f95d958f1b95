"""Steps of `mean_teacher_mixing` by themselves: random images, and networks whose answers are given."""

import torch

from selftrain.data.batches import Batch
from selftrain.models.segmenter import Outputs
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.train.algorithms import Given, Step
from selftrain.train.algorithms.mean_teacher_mixing import MeanTeacherMixing

torch.set_num_threads(1)

CLASSES, SIZE, TAU = 4, (6, 8), 0.7
PLACE = (5, 1)
STILL = {"blur_probability": 0, "jitter_probability": 0}
TARGET, SOURCE = "target_to_target", "source_to_target"


def make(given=None, **told):
    """The algorithm, without strong augmentation unless told otherwise."""
    told = {"strong": STILL, "threshold": TAU} | told
    return MeanTeacherMixing(MeanTeacherMixingSettings(**told), Given(CLASSES, **{"place": PLACE} | (given or {})))


def generator(seed):
    return torch.Generator().manual_seed(seed)


def batch(count, seed, classes=CLASSES, ignored=0.2):
    """Random images; of their labels a fifth is ignored. With one class: as of unlabeled images."""
    draw = generator(seed)
    images = torch.randint(0, 256, (count, 3, *SIZE), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, classes, (count, *SIZE), generator=draw, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=draw) < ignored] = 255
    return Batch(images, labels, ("x",) * count)


class Fixed:
    """A network that gives these answers one after the other, and keeps what it was shown."""

    def __init__(self, *answers):
        self.answers, self.shown = answers, []

    def __call__(self, images, apart=False):
        self.shown.append(images)
        answer = self.answers[len(self.shown) - 1]
        return Outputs((answer,), {}) if apart else answer


def logits(count, seed, size=SIZE, spread=2.0):
    return torch.randn(count, CLASSES, *size, generator=generator(seed)) * spread


def scene(labeled=3, unlabeled=3, number=7, steps=20, teacher=None, mixed=None):
    """A step of so many images, or of these batches; what networks answer is drawn, unless given."""
    labeled = batch(labeled, 1) if isinstance(labeled, int) else labeled
    unlabeled = batch(unlabeled, 2, classes=1) if isinstance(unlabeled, int) else unlabeled
    count, size = len(unlabeled.images), unlabeled.images.shape[-2:]
    teacher = logits(count, 3, size) if teacher is None else teacher
    mixed = logits(count, 5, size) if mixed is None else mixed
    student = Fixed(logits(len(labeled.images), 4).requires_grad_(), mixed.detach().requires_grad_())
    return Step(number, steps, {"labeled": labeled, "unlabeled": unlabeled}, student, Fixed(teacher))
