"""Settings of train: length, optimizer, augmentation, and the algorithm that turns batches into a loss."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from selftrain.settings.base import (
    NotNegative,
    OnOrOff,
    Part,
    Positive,
    Probability,
    Problem,
    Settings,
    by_name,
    range_problems,
    refuse,
)
from selftrain.settings.curriculum import CurriculumSettings
from selftrain.settings.data import Color, ReadSettings, Size
from selftrain.settings.hybrid import HybridSettings
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.settings.model import ModelSettings


class AugmentationSettings(Settings):
    """Drawn anew for every image, on image and label together."""

    crop: Size | None = None
    """Height and width of what is trained on; none: the whole image (then all must have one size)."""
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Range of the random scale; what a scaled image lacks is filled with the mean color and ignored."""
    flip: Probability = 0.5
    """How likely an image is mirrored."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle, in degrees, either way."""
    rotation_probability: Probability = 0.5
    """How likely an image is rotated."""
    blur: tuple[Positive, Positive] = (0.15, 1.15)
    """Range of the Gaussian's sigma, in pixels."""
    blur_probability: Probability = 0.0
    """How likely an image is blurred."""
    jitter: NotNegative = 0.25
    """Strength of brightness, contrast, saturation and (a quarter of it) hue."""
    jitter_probability: Probability = 0.0
    """How likely its colors are changed."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        refuse(range_problems({"scale": self.scale, "blur": self.blur}))
        return self


class OptimizerSettings(Settings):
    """SGD or AdamW with a polynomial schedule, lr · (1 − step/steps)^power (thesis eq. 2.6)."""

    name: Literal["sgd", "adamw"] = "adamw"
    lr: Positive = 1e-3
    """Learning rate of the first step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: NotNegative = 1e-4
    """Of all weights, decoupled with AdamW."""
    decoder_lr_factor: Positive = 1.0
    """The decoder's learning rate over the encoder's."""
    power: NotNegative = 0.9
    """Of the schedule; 0: the rate stays."""


class SupervisedSettings(Settings):
    """Cross-entropy on labeled images (DARS eq. 1)."""

    name: Literal["supervised"] = "supervised"


class PseudoLabeledSettings(Settings):
    """What every training on labeled and pseudo-labeled images, half a batch each, can be told."""

    forwards: Literal["separate", "joint"] = "joint"
    """Whether the halves pass the network on their own (batch-norm sees each alone) or together."""
    weight: NotNegative = 1.0
    """Of the pseudo-labeled terms."""


class SelfTrainingSettings(PseudoLabeledSettings):
    """Two added cross-entropy terms (DARS eq. 2)."""

    name: Literal["self_training"] = "self_training"


class WeakLabelSettings(PseudoLabeledSettings):
    """Self-training, and an image classifier on the encoder's last features that learns weak labels (MLSL eqs. 5-7)."""

    name: Literal["weak_labels"] = "weak_labels"
    eta: NotNegative = 0.05
    """A class is in view where its pseudo-labels take more than eta times its mean size in the labeled set."""
    classification_weight: NotNegative = 0.025
    """Of the classifier's loss, lambda."""
    channels: Annotated[int, Field(ge=1)] = 2048
    """Of the classifier's two convolutions."""
    hidden: Annotated[int, Field(ge=1)] = 512
    """Width of its first fully connected layer."""


AlgorithmName = Literal["supervised", "self_training", "weak_labels", "hybrid", "mean_teacher_mixing", "curriculum"]
LearnsFromPseudoLabels = SelfTrainingSettings | WeakLabelSettings | HybridSettings
"""The offline algorithms: they need the pseudo-labels that rounds make."""
LearnsFromUnlabeled = MeanTeacherMixingSettings | CurriculumSettings
"""The online algorithms that look at unlabeled images."""
Showing = HybridSettings | LearnsFromUnlabeled
"""Those that show some of what they make of unlabeled images."""
AnyAlgorithm = Annotated[SupervisedSettings | LearnsFromPseudoLabels | LearnsFromUnlabeled, Field(discriminator="name")]
Algorithm = Annotated[AnyAlgorithm, BeforeValidator(by_name, json_schema_input_type=AnyAlgorithm | AlgorithmName)]


class TeacherSettings(Settings):
    """A second network whose weights are the running average of the student's (thesis eq. 2.16)."""

    decay: Part = 0.99
    """Alpha, ramped as min(1 − 1/(step + 1), decay); .99 is what the thesis's code uses."""
    batch_norm: Literal["own", "student"] = "own"
    """Statistics that the teacher labels with: those of the batch it labels (and running averages of its own, which its
    model file gets), or the student's running averages. The first is what the thesis's code does and matters where
    domains differ: the student's averages are half the labeled domain's."""


class ClassWeightRuleSettings(Settings):
    """Classes that are small but often there, by the statistics of the labeled split, weigh more than the others.

    What the curriculum's authors chose by hand: classes with many instances that self-training loses all the same.
    """

    name: Literal["small_and_frequent"] = "small_and_frequent"
    share: Probability = 0.02
    """Largest share of the labeled pixels that is small."""
    images: Probability = 0.3
    """Least share of the labeled images showing it that is often."""
    factor: Positive = 2.0
    """Their weight; that of the others is 1."""


def _kind_of_weights(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[each]"
    named = value.get("name") if isinstance(value, dict) else getattr(value, "name", value)
    return "[rule]" if isinstance(named, str) else "[by class]"


ClassWeights = Annotated[
    Annotated[tuple[NotNegative, ...], Tag("[each]")]
    | Annotated[dict[str, NotNegative], Tag("[by class]")]
    | Annotated[
        ClassWeightRuleSettings,
        BeforeValidator(by_name, json_schema_input_type=ClassWeightRuleSettings | Literal["small_and_frequent"]),
        Tag("[rule]"),
    ],
    Discriminator(_kind_of_weights),
]


class TrainSettings(Settings):
    """One training, whatever its algorithm."""

    steps: Annotated[int, Field(ge=0)] | None = None
    """Of the optimizer; without steps and epochs 1,000."""
    epochs: Positive | None = None
    """Instead of steps: how often the stream named by `epochs_of` is seen."""
    epochs_of: Literal["labeled", "unlabeled"] = "labeled"
    length_factor: Positive = 1.0
    """Multiplies steps or epochs, so that one experiment can be longer than what it inherits."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images a step, all streams together."""
    optimizer: OptimizerSettings = OptimizerSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    class_weights: ClassWeights | None = None
    """Of the cross-entropy (and no other loss): a list of one per class, a mapping of those that are not 1, or the rule
    `small_and_frequent`."""
    focal: NotNegative = 0.0
    """Gamma of the focal loss: the cross-entropy of hard labels, each pixel's times (1 − p)^gamma for the probability p
    of its label. 0: plain cross-entropy; 2 is what its authors advise, and DARS compares with."""
    branch_similarity: NotNegative = 0.01
    """Beta, the weight of the mean cosine between the filters of the model's branches, which keeps them apart; a model
    with one branch has none."""
    clip_gradient: Positive | None = None
    """Largest norm of the gradient."""
    teacher: OnOrOff[TeacherSettings] = None
    """None, unless the algorithm is one that learns from a teacher: then the default one."""
    evaluate: Literal["student", "teacher"] = "student"
    """Which of the two is saved, evaluated, and starts the next round."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = False
    """Channels beside each other in memory: what half precision on a GPU wants; on CPU some networks gain from it."""
    compile: bool = False
    """Student and teacher through torch.compile: faster steps after a minute or more of compiling, so for long
    trainings. It needs a C++ compiler, on a GPU Triton as well. Results differ by the rounding of floats."""
    batch_norm: Literal["synchronized", "local"] = "synchronized"
    """Where one training has several processes: normalize by the batch of all, so that their number changes nothing, or
    by each one's own part, which is faster. Running averages are those of all."""
    deterministic: bool = False
    """Bit-equal runs on CUDA too, slower; on CPU they always are, at equal threads."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if (self.steps is None) == (self.epochs is None):
            yield ("steps",), "give exactly one of 'steps' and 'epochs'"
        if self.evaluate == "teacher" and self.teacher is None:
            yield ("evaluate",), "there is no teacher; write `teacher: {}` beside it for the default one"


class TrainStageSettings(Settings):
    """All that one training depends on, beside its input files."""

    model: ModelSettings
    train: TrainSettings
    algorithm: Algorithm
    seed: int
    round: Annotated[int, Field(ge=0)]
    labeled: ReadSettings
    unlabeled: ReadSettings | None = None
    """Where unlabeled images are read."""
    colors: tuple[Color, ...] | None = None
    """Kept in the model file, for masks."""
