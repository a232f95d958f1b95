"""Settings of select and label: the policy that turns histograms of confidence into a cut."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from selftrain.settings.base import Part, Settings, by_name

Portion = Annotated[float, Field(ge=0, le=1)]


class PolicySettings(Settings):
    """What every policy can be told."""

    resolution: Literal["float16", "float32"] | None = None
    """Merge the bins that a probability stored at this resolution could not tell apart (the papers' confidence
    overlap); none: every bin counts."""


class StSettings(PolicySettings):
    """ST: one threshold for all classes, from a portion of all pixels or fixed."""

    name: Literal["st"] = "st"
    threshold: Part | None = None
    """A fixed probability; rounds then have no portion."""


class CbstSettings(PolicySettings):
    """CBST: per class, a portion of the pixels predicted as the class."""

    name: Literal["cbst"] = "cbst"
    choice: Literal["top", "normalized"] = "top"
    """Of a pixel's class: the most probable one, or, as published, the one with the highest p_c / t_c, kept where that
    is 1 or more. The second needs another forward pass, since t_c is known only then."""


class DaSettings(PolicySettings):
    """DA: per class, as many pixels as the prior asks for (DARS eq. 4); the boundary group is kept whole."""

    name: Literal["da"] = "da"


class DarsSettings(PolicySettings):
    """DARS: DA, then a random fraction of each class's selected pixels is ignored (DARS Algorithm 1)."""

    name: Literal["dars"] = "dars"


PolicyName = Literal["st", "cbst", "da", "dars"]
AnyPolicy = Annotated[StSettings | CbstSettings | DaSettings | DarsSettings, Field(discriminator="name")]
Policy = Annotated[AnyPolicy, BeforeValidator(by_name, json_schema_input_type=AnyPolicy | PolicyName)]


class SelectSettings(Settings):
    """All that the select stage depends on."""

    classes: tuple[str, ...]
    policy: Policy
    portion: Portion | None = None


class LabelSettings(Settings):
    """All that the label stage depends on."""

    seed: int
    round: Annotated[int, Field(ge=1)]
    select: SelectSettings
    """Written into the pseudo-labels for provenance."""
    eta: Annotated[float, Field(ge=0)] | None = None
    """An image has a weak label of each class that takes more than eta times the class's mean size in the labeled set
    (MLSL section 3.3.1); none: no weak labels."""
