"""Settings of `hybrid`: offline rounds whose step is online."""

from typing import Annotated, Literal

from pydantic import Field

from selftrain.settings.base import NotNegative, OnOrOff, Settings, Share
from selftrain.settings.mixing import MixtureSettings


class RareClassSettings(Settings):
    """The rarer a class, the more often it is among those that are pasted: P(c) ∝ exp((1 − f_c) / T)."""

    temperature: Annotated[float, Field(ge=1e-3)] = 0.1
    """T. At 0.1 a class of which there is next to nothing comes before one of a third of all pixels 28 times as often;
    DAFormer, which draws images so, has 0.01."""


class AlikeSettings(Settings):
    """An image is pasted onto one that shows much the same classes to much the same extent."""

    among: Share = 0.1
    """Share of the images at hand, the most alike, of which one is drawn."""


class ReliableFirstSettings(Settings):
    """Images that the models of two rounds label alike come first, the others little by little."""

    start: Share = 0.5
    """Share of the images, the most reliable, that the round begins with."""
    until: Share = 0.5
    """Part of the round after which it has all."""


class HybridSettings(MixtureSettings):
    """Offline: mixed images whose labels come from the round's file, the anchors (thesis section 5.3.2)."""

    name: Literal["hybrid"] = "hybrid"
    forwards: Literal["separate", "joint"] = "joint"
    """Whether batch-norm sees labeled and mixed images together, as where rounds mix nothing, or each alone."""
    weight: NotNegative = 1.0
    """Of the loss of mixed images, without what is pasted from labeled ones."""
    pasted_weight: NotNegative = 0.5
    """Of the loss of what is pasted from labeled images, whose labels count in a term of their own already; of `across:
    source_to_target` alone."""
    rare_classes: OnOrOff[RareClassSettings] = None
    """Paste rare classes more often; of `mixing: classmix` alone."""
    alike: OnOrOff[AlikeSettings] = None
    """Paste between images whose class layouts are alike."""
    reliable_first: OnOrOff[ReliableFirstSettings] = None
    """Order the images of a round from reliable to hard; from round 2 on, which has two models to compare."""

    @property
    def pairs(self) -> bool:
        """Whether unlabeled images come in pairs that are alike."""
        return self.alike is not None and self.across == "target_to_target" and self.mixing.name != "none"

    def too_few(self, batch_size: int) -> str | None:
        """What is wrong with a batch whose unlabeled half is pasted onto itself, or in pairs."""
        if self.pairs and batch_size // 2 % 2 and batch_size > 4:
            return f"{batch_size} leaves an odd number of unlabeled images, which `alike` pairs; give 4, 8, 12, ..."
        return super().too_few(batch_size)
