"""Settings of `hybrid`: offline rounds whose step is online."""

from typing import Annotated, Literal

from pydantic import Field

from selftrain.settings.base import NotNegative, OnOrOff, Settings
from selftrain.settings.mixing import MixtureSettings


class RareClassSettings(Settings):
    """The rarer a class, the more often it is among those that are pasted: P(c) ∝ exp((1 − f_c) / T)."""

    temperature: Annotated[float, Field(ge=1e-3)] = 0.1
    """T. At 0.1 a class of which there is next to nothing comes before one of a third of all pixels 28 times as often;
    DAFormer, which draws images so, has 0.01."""


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
