"""Settings of what is trained: pretrainings, and experiments with their rounds."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from selftrain.settings.base import GraphPath, NotNegative, Problem, Settings, refuse
from selftrain.settings.hybrid import HybridSettings
from selftrain.settings.inheritance import DEFAULT_STEPS
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import PredictionSettings
from selftrain.settings.selection import Policy, Portion
from selftrain.settings.training import (
    Algorithm,
    LearnsFromPseudoLabels,
    LearnsFromUnlabeled,
    SelfTrainingSettings,
    TrainSettings,
)

DEFAULT_TRAIN = TrainSettings(steps=DEFAULT_STEPS)


class PretrainSettings(Settings):
    """Round 0: a model trained on labels."""

    model: ModelSettings = ModelSettings()
    train: TrainSettings = DEFAULT_TRAIN
    start: GraphPath | None = None
    """An earlier model file (safetensors or a state dict) to start from; a head of other classes is replaced."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Where it runs; none: on all tasks."""
    labels: Literal["labeled", "truth"] = "labeled"
    """Learn the labeled split, or the hidden truth of the unlabeled one: an oracle, what target labels would give."""


Pretrain = Annotated[
    PretrainSettings,
    # `name:` with nothing below it is a pretraining that only inherits.
    BeforeValidator(lambda value: {} if value is None else value, json_schema_input_type=PretrainSettings | None),
]


class RoundSettings(Settings):
    """One offline round."""

    portion: Portion | None = None
    """How much gets a pseudo-label; what it is a portion of, the policy says."""
    beta_min: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Lowers the scale range's start to (1 − beta_min) · start (DARS section 3.3)."""
    beta_max: NotNegative = 0.0
    """Raises the scale range's end to (1 + beta_max) · end."""
    prediction: PredictionSettings = PredictionSettings()
    """How the unlabeled images are predicted for this round."""
    train: TrainSettings = DEFAULT_TRAIN


class ExperimentSettings(Settings):
    """A way to use the unlabeled split: offline in rounds, or online in one training beside them."""

    pretrain: str = ""
    """The model that round 1 starts from; online, the network to train, and what the gain is counted from. Left out:
    the first one."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Where it runs; none: on all tasks."""
    algorithm: Algorithm = SelfTrainingSettings()
    policy: Policy | None = None
    """Offline: what gets a pseudo-label."""
    prediction: PredictionSettings = PredictionSettings()
    """Offline: how the unlabeled images are predicted."""
    train: TrainSettings = DEFAULT_TRAIN
    rounds: Annotated[tuple[RoundSettings, ...], Field(min_length=1)] | None = None
    """None: online, a single training that `train` tells of."""
    start: Literal["encoder", "pretrained"] | None = None
    """Online: start as the pretraining did, from its encoder's weights (the default), or from the pretrained model."""
    oracle: bool = False
    """Whether it may learn from hidden truth, class shares or a pretraining's labels; the report says so."""
    upper_bound: str | None = None
    """A pretraining on the hidden truth (`labels: truth`): the report plots the gain of each class beside its."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._online_problems() if self.rounds is None else self._offline_problems(self.rounds))
        return self

    def _online_problems(self) -> Iterator[Problem]:
        if isinstance(self.algorithm, LearnsFromPseudoLabels):
            yield ("rounds",), f"is missing; '{self.algorithm.name}' learns from pseudo-labels, which rounds make"
            return
        for key in ("policy", "prediction"):
            if key in self.model_fields_set:
                yield (key,), "belongs to rounds, and there are none"
        if isinstance(self.algorithm, MeanTeacherMixingSettings):
            yield from self._mixing_problems(self.algorithm)

    def _mixing_problems(self, told: MeanTeacherMixingSettings) -> Iterator[Problem]:
        if self.train.teacher is None:
            yield ("train", "teacher"), f"'{told.name}' learns from a teacher; leave this out for the default one"
        reason = told.too_few(self.train.batch_size)
        if reason is not None:
            yield ("train", "batch_size"), reason
        if told.alignment is not None and told.alignment.target == "truth" and not self.oracle:
            yield (
                ("algorithm", "alignment", "target"),
                "'truth' may be known to an experiment with `oracle: true` alone",
            )

    def _offline_problems(self, rounds: tuple[RoundSettings, ...]) -> Iterator[Problem]:
        if isinstance(self.algorithm, LearnsFromUnlabeled):
            yield ("rounds",), f"'{self.algorithm.name}' is one training beside the rounds; leave them out"
            return
        if self.start is not None:
            yield ("start",), "a round starts from the model before it; leave this out"
        if self.policy is None:
            yield ("policy",), "is missing"
            return
        fixed = getattr(self.policy, "threshold", None) is not None
        reason = (
            "has no place beside the policy's fixed 'threshold'" if fixed else "is missing; give a number from 0 to 1"
        )
        for number, one in enumerate(rounds):
            if (one.portion is not None) == fixed:
                yield ("rounds", number, "portion"), reason
        if isinstance(self.algorithm, HybridSettings):
            yield from self._hybrid_problems(self.algorithm, rounds)

    def _hybrid_problems(self, told: HybridSettings, rounds: tuple[RoundSettings, ...]) -> Iterator[Problem]:
        mixing = told.mixing.name
        if told.rare_classes is not None and mixing != "classmix":
            yield ("algorithm", "rare_classes"), f"'{mixing}' pastes no classes; leave this out, or mix by classmix"
        for number, one in enumerate(rounds):
            reason = told.too_few(one.train.batch_size)
            if reason is not None:  # told of the round where it says so, else of the experiment
                yield ("rounds", number, "train", "batch_size"), reason
                if self.train.batch_size == one.train.batch_size:
                    yield ("train", "batch_size"), reason
