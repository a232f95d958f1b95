"""Settings of trainings on mixed images: `mean_teacher_mixing` (ClassMix, DACS, what their thesis varies), and what the
hybrid has of it."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from selftrain.settings.base import (
    NotNegative,
    OnOrOff,
    Part,
    Positive,
    Probability,
    Settings,
    Share,
    by_name,
    range_problems,
    refuse,
)

Sigma = Annotated[float, Field(gt=0, le=0.5)]


class ClassMixSettings(Settings):
    """Some of the classes that an image shows are pasted onto another image (thesis Algorithm 1)."""

    name: Literal["classmix"] = "classmix"
    proportion: Share = 0.5
    """Of the classes present, rounded up, that are pasted."""


class CutMixSettings(Settings):
    """A random rectangle is pasted."""

    name: Literal["cutmix"] = "cutmix"
    proportion: Part = 0.5
    """Of the image's area that the rectangle takes; the thesis does not say, half is ClassMix's."""


class CowMixSettings(Settings):
    """Random blobs are pasted: smoothed noise above a threshold."""

    name: Literal["cowmix"] = "cowmix"
    proportion: Part = 0.5
    """Of the image's area that is pasted; the thesis does not say, half is ClassMix's."""
    sigma: tuple[Sigma, Sigma] = (0.02, 0.08)
    """Range of the smoothing, as a share of the shorter side, drawn evenly on a log scale; the thesis does not say,
    these are blobs from a pole's to a car's size."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        refuse(range_problems({"sigma": self.sigma}))
        return self


class NoMixSettings(Settings):
    """Nothing is pasted: the student sees the unlabeled images under strong augmentation alone."""

    name: Literal["none"] = "none"


MixingName = Literal["classmix", "cutmix", "cowmix", "none"]
AnyMixing = Annotated[ClassMixSettings | CutMixSettings | CowMixSettings | NoMixSettings, Field(discriminator="name")]
Mixing = Annotated[AnyMixing, BeforeValidator(by_name, json_schema_input_type=AnyMixing | MixingName)]


class WeightSettings(Settings):
    """What every weight of the unlabeled loss can be told."""

    scale: NotNegative = 1.0
    """lambda_u0, which multiplies it."""


class ThresholdProportionalSettings(WeightSettings):
    """The share of the step's unlabeled pixels that the teacher is sure of (thesis eq. 2.15)."""

    name: Literal["threshold_proportional"] = "threshold_proportional"
    pasted: Literal["alike", "full"] = "alike"
    """Of pixels pasted from labeled images: weighted like the others, or, as in DACS's code, with `scale`."""


class PixelwiseSettings(WeightSettings):
    """Each pixel that the teacher is sure of counts, and no other (thesis eq. 2.14)."""

    name: Literal["pixelwise"] = "pixelwise"


class SigmoidRampupSettings(WeightSettings):
    """exp(−c (1 − k/k_max)²) at step k up to k_max, then 1 (thesis Figure 2.9; eq. 2.13 as printed is a step)."""

    name: Literal["sigmoid_rampup"] = "sigmoid_rampup"
    c: NotNegative = 5.0
    """The higher, the later the weight rises."""
    until: Share = 0.25
    """k_max as a share of the training's steps (the thesis: 10,000 of 40,000)."""


class ConstantSettings(WeightSettings):
    """Always the same."""

    name: Literal["constant"] = "constant"


WeightName = Literal["threshold_proportional", "pixelwise", "sigmoid_rampup", "constant"]
AnyWeight = Annotated[
    ThresholdProportionalSettings | PixelwiseSettings | SigmoidRampupSettings | ConstantSettings,
    Field(discriminator="name"),
]
Weight = Annotated[AnyWeight, BeforeValidator(by_name, json_schema_input_type=AnyWeight | WeightName)]


class StrongAugmentationSettings(Settings):
    """Drawn once a step, for all mixed images of the step alike (thesis section 3.4)."""

    blur: tuple[Positive, Positive] = (0.15, 1.15)
    """Range of the Gaussian's sigma, in pixels."""
    blur_probability: Probability = 0.5
    """How likely the images of a step are blurred."""
    jitter: NotNegative = 0.25
    """Strength of brightness, contrast, saturation and (a quarter of it) hue."""
    jitter_probability: Probability = 0.5
    """How likely their colors are changed."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        refuse(range_problems({"blur": self.blur}))
        return self


class AlignmentSettings(Settings):
    """Distribution alignment: the teacher's probabilities times target / running average (thesis section 2.5.6)."""

    target: Literal["labeled", "truth"] | Annotated[tuple[NotNegative, ...], Field(min_length=2)] = "labeled"
    """Class shares: the labeled split's, one number per class, or those of the hidden truth (for `oracle: true`)."""
    average: Literal["pseudo_labels", "probabilities"] = "pseudo_labels"
    """Of what the average runs: the aligned pseudo-labels (thesis section 5.2.2), or the teacher's own probabilities
    before they are aligned (ReMixMatch)."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of the running average, which begins at the target."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not isinstance(self.target, str) and sum(self.target) <= 0:
            refuse([(("target",), "at least one class needs a share above 0")])
        return self


class MixtureSettings(Settings):
    """What every training on mixed images can be told."""

    mixing: Mixing = ClassMixSettings()
    across: Literal["target_to_target", "source_to_target"] = "target_to_target"
    """What is pasted onto unlabeled images: other unlabeled images with their pseudo-labels (ClassMix, IntraMix), or
    labeled ones with their truth (DACS, InterMix)."""
    strong: StrongAugmentationSettings = StrongAugmentationSettings()
    """Of mixed images; `train.augmentation` is the weak one, that the teacher sees."""
    forwards: Literal["separate", "joint"] = "separate"
    """Whether labeled and mixed images pass the student on their own (batch-norm sees each alone) or together."""

    @property
    def pastes_labeled(self) -> bool:
        """Whether what is pasted are labeled images."""
        return self.across == "source_to_target" and self.mixing.name != "none"

    def too_few(self, batch_size: int) -> str | None:
        """What is wrong with a batch half of which are unlabeled images, one of them pasted onto another."""
        if self.pastes_labeled or self.mixing.name == "none" or batch_size >= 4:
            return None
        reason = "is too small: half of it are unlabeled images, one of which is pasted onto another; give 4 or more"
        return f"{batch_size} {reason}"


class MeanTeacherMixingSettings(MixtureSettings):
    """Online: a mean teacher labels unlabeled images, the student learns from mixtures (ClassMix, DACS)."""

    name: Literal["mean_teacher_mixing"] = "mean_teacher_mixing"
    pseudo_labels: Literal["hard", "soft"] = "hard"
    """The teacher's most probable class (thesis eq. 2.11), or its probabilities as they are."""
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    """Of the mixed images; the squared error is summed over classes (thesis eq. 2.1)."""
    threshold: Part = 0.968
    """Probability tau above which the teacher is sure of a pixel."""
    weight: Weight = ThresholdProportionalSettings()
    """Of the mixed images' loss, lambda_u."""
    alignment: OnOrOff[AlignmentSettings] = None
