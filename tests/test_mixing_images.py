"""Which images the teacher and the student see in a step, and how these were changed."""

from itertools import product

import pytest
import torch
from mixtures import CLASSES, PLACE, SIZE, SOURCE, STILL, TARGET, batch, generator, make, scene
from torch import nn

from selftrain.data.batches import Batch
from selftrain.errors import UserError
from selftrain.models.segmenter import Outputs
from selftrain.train.algorithms import Step

across_both = pytest.mark.parametrize("across", [TARGET, SOURCE])


# Who sees what


class Pixelwise(nn.Conv2d):
    """A network that looks at one pixel at a time, so that no image's logits depend on its neighbors."""

    def forward(self, images, apart=False):
        logits = super().forward(images.float() / 255)
        return Outputs((logits,), {}) if apart else logits


@across_both
def test_joint_and_separate_forwards_differ_in_what_is_seen_together(across):
    torch.manual_seed(0)
    student, found = Pixelwise(3, CLASSES, 1), {}
    for forwards in ("separate", "joint"):
        step, seen = scene(labeled=2), []
        handle = student.register_forward_hook(lambda _, images, __, seen=seen: seen.append(len(images[0])))
        step = Step(step.number, step.steps, step.batches, student, step.teacher)
        found[forwards] = make(across=across, forwards=forwards).loss(step).terms
        handle.remove()
        assert seen == {"separate": [2, 3], "joint": [5]}[forwards]
    for name, term in found["separate"].items():
        assert found["joint"][name].item() == pytest.approx(term.item(), rel=1e-6)


@across_both
@pytest.mark.parametrize("strong", [False, True])
def test_the_teacher_sees_plain_images_and_the_student_augmented_mixtures(across, strong):
    told = {} if strong else {"strong": STILL}
    algorithm = make(across=across, **{"strong": {"blur_probability": 1, "jitter_probability": 1}} | told)
    step = scene()
    found = algorithm.loss(step)
    assert [one.equal(step.batches["unlabeled"].images) for one in step.teacher.shown] == [True]
    labeled, mixed = step.student.shown
    assert labeled.equal(step.batches["labeled"].images)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in found.example.items()} == {
        name: (torch.uint8, (*([] if name in ("mask", "label") else [3]), *SIZE))
        for name in ("pasted", "below", "mask", "mixed", "label")
    }
    one = found.example
    pasted = torch.where(one["mask"].bool(), one["pasted"], one["below"])
    assert mixed.dtype == torch.uint8 and one["mixed"].equal(mixed[0])
    assert one["mixed"].equal(pasted) == (not strong)
    assert one["below"].equal(step.batches["unlabeled"].images[0 if across == SOURCE else 1])
    assert one["pasted"].equal(step.batches["labeled" if across == SOURCE else "unlabeled"].images[0])


def test_logits_are_brought_to_the_size_of_the_images():
    coarse = [torch.randn(2, CLASSES, 3, 4, generator=generator(seed)) * 3 for seed in (1, 2)]
    fine = [nn.functional.interpolate(one, SIZE, mode="bilinear", align_corners=False) for one in coarse]
    for pseudo_labels, loss in product(("hard", "soft"), ("cross_entropy", "squared_error")):
        small, large = (
            make(pseudo_labels=pseudo_labels, loss=loss, weight="pixelwise").loss(
                scene(unlabeled=2, teacher=teacher, mixed=mixed)
            )
            for teacher, mixed in (coarse, fine)
        )
        assert small.terms["mixed"].item() == pytest.approx(large.terms["mixed"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("across", "labeled", "unlabeled", "sources"),
    [
        (SOURCE, 1, 1, [0]),
        (SOURCE, 2, 1, [0]),
        (SOURCE, 2, 3, [0, 1, 0]),
        (SOURCE, 4, 4, [0, 1, 2, 3]),
        (TARGET, 3, 2, [0, 1]),
        (TARGET, 1, 3, [0, 1, 2]),
        (TARGET, 8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_which_image_is_pasted_onto_which(across, labeled, unlabeled, sources):
    """Gray images tell where each pixel is from: labeled ones are 1, 2, ... and unlabeled ones 101, 102, ..."""
    parts = {"labeled": batch(labeled, 1), "unlabeled": batch(unlabeled, 2, 1)}
    for (name, part), first in zip(parts.items(), (1, 101), strict=True):
        gray = torch.arange(first, first + len(part.names), dtype=torch.uint8)
        parts[name] = Batch(gray.view(-1, 1, 1, 1).expand_as(part.images).contiguous(), part.labels, part.names)
    step = scene(**parts)
    make(across=across, mixing="cutmix").loss(step)
    for item, source in enumerate(sources):
        pasted = 1 + source if across == SOURCE else 101 + source
        below = 101 + (item if across == SOURCE else (item + 1) % unlabeled)
        assert set(step.student.shown[1][item].unique().tolist()) == {pasted, below}


@pytest.mark.parametrize("mixing", ["classmix", "cutmix", "cowmix"])
def test_one_unlabeled_image_has_nothing_to_be_pasted_onto(mixing):
    with pytest.raises(UserError, match=r"train\.batch_size: one unlabeled image .* cannot be pasted onto another"):
        make(mixing=mixing).loss(scene(unlabeled=1))
    for told in ({"mixing": "none"}, {"mixing": mixing, "across": SOURCE}):
        assert make(**told).loss(scene(unlabeled=1)).terms["mixed"].isfinite()


# Strong augmentation


def test_strong_augmentation_is_the_same_for_a_whole_step_and_another_in_the_next():
    algorithm = make(strong={"blur_probability": 1, "blur": (0.5, 1.5), "jitter_probability": 1})
    images = batch(1, 3).images.expand(4, -1, -1, -1)
    steps = [algorithm.augment(images, number) for number in range(5)]
    for seen in steps:
        assert all(torch.equal(one, seen[0]) for one in seen) and not torch.equal(seen, images)
        assert seen.dtype == torch.uint8 and seen.shape == images.shape
    assert len({seen.numpy().tobytes() for seen in steps}) == 5
    several = batch(4, 8).images
    alone = torch.cat([algorithm.augment(image[None], 3) for image in several])
    assert torch.equal(algorithm.augment(several, 3), alone)


@pytest.mark.parametrize(
    ("strong", "often"),
    [
        (STILL, 0),
        ({"blur_probability": 1, "jitter_probability": 0}, 1),
        ({"jitter_probability": 0}, 0.5),
        ({"blur_probability": 0}, 0.5),
        ({}, 0.75),
        ({"blur_probability": 0, "jitter_probability": 1, "jitter": 0}, 0),
    ],
)
def test_how_often_a_step_is_augmented_strongly(strong, often):
    algorithm = make(strong={"blur": (1, 1.15)} | strong)
    images = batch(2, 3).images
    steps = 300 if 0 < often < 1 else 40
    changed = [not algorithm.augment(images, number).equal(images) for number in range(steps)]
    assert sum(changed) / steps == pytest.approx(often, abs=0.08 if steps == 300 else 0)


@across_both
def test_strong_augmentation_changes_images_alone(across):
    still, strong = (
        make(across=across, strong=told).loss(scene())
        for told in (STILL, {"blur_probability": 1, "jitter_probability": 1})
    )
    same = {
        name: one.equal((strong.terms | strong.facts | strong.example)[name])
        for name, one in (still.terms | still.facts | still.example).items()
    }
    assert [name for name, alike in same.items() if not alike] == ["mixed"]


@across_both
def test_another_step_seed_or_round_mixes_anew(across):
    masks = []
    seed, round_ = PLACE
    for place, number in ((PLACE, 7), (PLACE, 8), ((seed + 1, round_), 7), ((seed, round_ + 1), 7)):
        algorithm = make({"place": place}, across=across, mixing="cutmix")
        masks.append(algorithm.loss(scene(number=number)).example["mask"])
    assert len({mask.numpy().tobytes() for mask in masks}) == 4
