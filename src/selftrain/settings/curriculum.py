"""Settings of the online algorithm `curriculum`: the strategic curriculum of proxy labels."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from selftrain.settings.base import Probability, Settings, Share, on_or_off


class RampSettings(Settings):
    """A number that moves linearly from `start` to `end` over the first part of a training, and stays there."""

    start: Probability
    end: Probability
    until: Share = 0.5
    """That part, as a share of the training's steps."""


class SourceRatioSettings(RampSettings):
    """The ratio gamma."""

    start: Probability = 0.9
    end: Probability = 0.1


class SourceHardMiningSettings(RampSettings):
    """The share of easy pixels that is dropped."""

    start: Probability = 0.0
    end: Probability = 1.0


class TargetEasyMiningSettings(Settings):
    """Which pixels are easy enough to be learned."""

    agreement: Share = 1.0
    """Least share of the branches that must name the same class, f_m / E (1 - the variation ratio of eq. 3)."""


TargetEasyMining = Annotated[
    TargetEasyMiningSettings | None,
    BeforeValidator(on_or_off, json_schema_input_type=TargetEasyMiningSettings | bool | None),
]
SourceHardMining = Annotated[
    SourceHardMiningSettings | None,
    BeforeValidator(on_or_off, json_schema_input_type=SourceHardMiningSettings | bool | None),
]


class CurriculumSettings(Settings):
    """Online: whole batches of labeled or of unlabeled images, these with the network's own labels of the step."""

    name: Literal["curriculum"] = "curriculum"
    source_ratio: SourceRatioSettings = SourceRatioSettings()
    """Gamma, the chance that a step's batch is of labeled images."""
    target_easy_mining: TargetEasyMining = TargetEasyMiningSettings()
    """Learn of unlabeled images only the pixels on which branches agree; off: all."""
    source_hard_mining: SourceHardMining = SourceHardMiningSettings()
    """Of labeled images drop a growing share of the pixels on which all branches agree; off: none."""
