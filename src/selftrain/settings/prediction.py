"""Settings of predict and evaluate: how a model's outputs become a class and its confidence."""

from typing import Annotated, Literal

from pydantic import Field

from selftrain.settings.base import OnOrOff, Settings, Share, shortest
from selftrain.settings.calibration import Calibration
from selftrain.settings.data import GroupSettings, ReadSettings, Size, SubsetSettings


class PatchSettings(Settings):
    """SISC: the mean over random overlapping patches, each predicted on its own (MLSL section 3.2)."""

    size: Size
    """Height and width of a patch; MLSL takes about the size of the training crop."""
    count: Annotated[int, Field(ge=1)] = 50
    """Patches an image, K. The first ones cover the image; what K cannot cover comes from the whole image."""
    cover: bool = False
    """As many patches as cover the image where K cannot, so that no image has to pass whole, however large."""
    whole_image: bool = False
    """Count the whole image as one more patch."""
    combine: Literal["probabilities", "decisions"] = "probabilities"
    """What is averaged: softmax probabilities, or each patch's decision (relative frequency, MLSL section 4.3)."""
    memory: Annotated[int, Field(ge=1)] = 512
    """MiB for class scores held at a time; decides how many patches pass a GPU together, and whether an image's sums
    stay there. Of an image whose sums take more, only some rows are held, as many as a patch is high. The network's own
    working memory comes on top."""

    @property
    def mode(self) -> str:
        """Part of the name of a folder of predictions."""
        height, width = self.size
        said = [f"sisc-{self.count}x{height}x{width}", "cover" if self.cover else ""]
        said += ["whole" if self.whole_image else ""]
        said += ["decisions" if self.combine == "decisions" else ""]
        said += [f"memory-{self.memory}" if self.memory != PatchSettings.model_fields["memory"].default else ""]
        return "-".join(filter(None, said))


class SpatialPriorSettings(Settings):
    """CBST-SP: probabilities are multiplied by how often the labeled set shows a class in that place."""

    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Sigma of the Gaussian that smooths the maps, as a share of their height and width."""
    weight: Share = 1.0
    """Of the map, against a map that says nothing."""

    @property
    def mode(self) -> str:
        """Part of the name of a folder of predictions."""
        return f"prior-{shortest(self.smoothing)}" + (f"-{shortest(self.weight)}" if self.weight < 1 else "")


class InferenceSettings(Settings):
    """One pass, or the average of several."""

    flip: bool = False
    """Average with the mirrored view's prediction."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=1e9)], ...], Field(min_length=1)] = (1.0,)
    """Average over the view at these scales."""
    patches: PatchSettings | None = None
    """Average over random patches (SISC) in place of one view of the whole image."""

    @property
    def mode(self) -> str:
        """The name of the folder that holds such predictions, for example `scales-0.75-1-flip`; one for one setting."""
        return "-".join(filter(None, self._parts())) or "single"

    def _parts(self) -> list[str]:
        scales = "-".join(map(shortest, self.scales))
        patches = self.patches.mode if self.patches else ""
        return [patches, "" if self.scales == (1.0,) else f"scales-{scales}", "flip" if self.flip else ""]


class PredictionSettings(InferenceSettings):
    """How the unlabeled images are predicted, for pseudo-labels."""

    spatial_prior: OnOrOff[SpatialPriorSettings] = None
    """Of the labeled set, multiplied into the probabilities; none: probabilities as they are."""
    calibration: Calibration | None = None
    """Correct the probabilities by what the task's calibration split tells; none: as they are."""
    agreement: Share | None = None
    """Of a network with branches: least share of them, f_m / E, that must name the same class; a pixel with less enters
    no histogram and gets no pseudo-label. 1: all must agree. None: no filter."""

    def _parts(self) -> list[str]:
        of_each = [one.mode for one in (self.spatial_prior, self.calibration) if one is not None]
        return [*super()._parts(), *of_each, f"agreeing-{shortest(self.agreement)}" if self.agreement else ""]


class PredictStageSettings(Settings):
    """All that one shard of predictions depends on, beside its input files."""

    prediction: PredictionSettings
    seed: int
    """Of the places of random patches."""
    batch_size: int
    shard: int
    shards: int
    read: ReadSettings


class EvaluatedSplit(Settings):
    """How one split is scored."""

    read: ReadSettings
    score_size: Size | None = None
    """Height and width that labels and predictions are compared at; none: the label's own."""


class EvaluateStageSettings(Settings):
    """All that the scores of one model depend on, beside its input files."""

    evaluation: InferenceSettings
    seed: int
    """Of the places of random patches."""
    batch_size: int
    splits: dict[str, EvaluatedSplit]
    subsets: dict[str, SubsetSettings] = Field(default_factory=dict)
    """Classes over which a mean IoU is taken beside that over all."""
    groups: GroupSettings = GroupSettings()
    """By which frequency and size classes are grouped, for a mean IoU over each group."""


class PreviewSettings(Settings):
    """All that predicting a few unlabeled images to be looked at depends on, beside its input files."""

    images: int
    """How many."""
    evaluation: InferenceSettings
    seed: int
    """Of the places of random patches."""
    batch_size: int
    read: ReadSettings


class ScoreSettings(Settings):
    """All that scoring pseudo-labels against hidden truth depends on."""

    truth: ReadSettings


class ReliabilitySettings(Settings):
    """All that a calibrator's reliability depends on, beside its input files."""

    calibration: Calibration
    batch_size: int
    splits: dict[str, EvaluatedSplit]
    """The calibration split, and the evaluation splits."""
