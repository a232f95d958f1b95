"""Settings of predict and evaluate: how a model's outputs become a class and its confidence."""

from typing import Annotated

from pydantic import Field

from selftrain.settings.base import Settings
from selftrain.settings.data import ReadSettings
from selftrain.settings.training import Positive


class PredictionSettings(Settings):
    """One pass, or the average of several."""

    flip: bool = False
    """Average with the mirrored image's prediction."""
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """Average over the image at these scales."""

    @property
    def mode(self) -> str:
        """The name of the folder that holds such predictions, for example `scales-0.75-1-flip`."""
        scales = "-".join(f"{scale:g}" for scale in self.scales)
        parts = ["single" if self.scales == (1.0,) else f"scales-{scales}", "flip" if self.flip else ""]
        return "flip" if parts == ["single", "flip"] else "-".join(part for part in parts if part)


class PredictStageSettings(Settings):
    """All that one shard of predictions depends on, beside its input files."""

    prediction: PredictionSettings
    batch_size: int
    shard: int
    shards: int
    read: ReadSettings


class EvaluateStageSettings(Settings):
    """All that the scores of one model depend on, beside its input files."""

    prediction: PredictionSettings
    batch_size: int
    splits: dict[str, ReadSettings]


class ScoreSettings(Settings):
    """All that scoring pseudo-labels against hidden truth depends on."""

    truth: ReadSettings
