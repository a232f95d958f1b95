"""Settings of the online algorithm `curriculum`: the strategic curriculum of proxy labels."""

from typing import Literal

from selftrain.settings.base import OnOrOff, Probability, Settings, Share


class RampSettings(Settings):
    """A number that moves linearly from `start` to `end` over the first part of a training, and stays there."""

    start: Probability
    end: Probability
    until: Share = 0.5
    """That part, as a share of the training's steps."""


class SourceRatioSettings(RampSettings):
    """The ratio gamma."""

    start: Probability = 0.9
    """At the first step."""
    end: Probability = 0.1
    """From the end of that part on."""


class SourceHardMiningSettings(RampSettings):
    """The share of easy pixels that is dropped."""

    start: Probability = 0.0
    """At the first step."""
    end: Probability = 1.0
    """From the end of that part on."""


class TargetEasyMiningSettings(Settings):
    """Which pixels are easy enough to be learned."""

    agreement: Share = 1.0
    """Least share of the branches that must name the same class, f_m / E (1 - the variation ratio of eq. 3)."""


class CurriculumSettings(Settings):
    """Online: whole batches of labeled or of unlabeled images, these with the network's own labels of the step."""

    name: Literal["curriculum"] = "curriculum"
    source_ratio: SourceRatioSettings = SourceRatioSettings()
    """Gamma, the chance that a step's batch is of labeled images."""
    target_easy_mining: OnOrOff[TargetEasyMiningSettings] = TargetEasyMiningSettings()
    """Learn of unlabeled images only the pixels on which branches agree; off: all."""
    source_hard_mining: OnOrOff[SourceHardMiningSettings] = SourceHardMiningSettings()
    """Of labeled images drop a growing share of the pixels on which all branches agree; off: none."""
