"""Settings of the alarms: from where on a sign that self-training goes wrong is told of."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticUseDefault

from selftrain.settings.base import Part, Settings


def _limit(value: Any) -> Any:
    """Let `false` stand for no alarm of this kind, and `true` for the default limit."""
    if value is True:
        raise PydanticUseDefault
    return None if value is False else value


def _switch(value: Any) -> Any:
    return False if value is None else value


_AnyFactor = Annotated[float, Field(gt=1)]
FactorLimit = Annotated[_AnyFactor | None, BeforeValidator(_limit, json_schema_input_type=_AnyFactor | bool | None)]
PartLimit = Annotated[Part | None, BeforeValidator(_limit, json_schema_input_type=Part | bool | None)]
Switch = Annotated[bool, BeforeValidator(_switch, json_schema_input_type=bool | None)]


class AlarmSettings(Settings):
    """Which signs raise an alarm, and from where on. `false` switches a kind off; a change reruns alarms and report."""

    vanished: Switch = True
    """A class was predicted in the round before, and is not now."""
    never_predicted: Switch = True
    """A class is not predicted, nor was it in the round before."""
    beyond: Switch = True
    """The portion asks for more pixels of a class than are predicted as it; all of them are taken."""
    exploded: FactorLimit = 3.0
    """A class's share of the predicted pixels is more than so many times that of the round before, and larger than
    the labeled set's."""
    dwindled: FactorLimit = 3.0
    """A class's share of the predicted pixels was more than so many times as large in the round before, and is
    smaller than the labeled set's."""
    saturated: PartLimit = 0.5
    """More than this share of the pixels are so confident that a probability in float32 would be 1."""
    disagreement: PartLimit = 0.2
    """More than this share of the pixels have another class than in the round before."""
