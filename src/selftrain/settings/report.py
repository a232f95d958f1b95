"""Settings of the report: which results it tells of, and where they are."""

from typing import Annotated

from pydantic import Field

from selftrain.settings.base import Settings
from selftrain.settings.data import Color, GroupSettings, ReadSettings


class PageSettings(Settings):
    """What the report's page has of images; a change reruns no more than the report and its preview."""

    images: Annotated[int, Field(ge=0)] = 12
    """Unlabeled images of each task to look at: those with the lowest confidence and those with the rarest classes."""
    embedded: Annotated[int, Field(ge=0)] = 16
    """MiB of images that may stand inside the page; if all are more, they are files in a folder beside it."""


class CalibratorReport(Settings):
    """A calibrator, and what was measured of it."""

    model: str
    """The model's folder below the task's."""
    mode: str
    file: str
    """calibration.csv."""
    reliability: str
    """reliability.csv."""


class TaskReport(Settings):
    """A task and its evaluation splits."""

    name: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...] | None
    unlabeled: str
    """images.csv of the unlabeled split."""
    truth: str | None
    """images.csv of the hidden truth."""
    read_truth: ReadSettings | None
    evaluation: tuple[str, ...]
    """The evaluation splits."""
    subsets: tuple[str, ...] = ()
    """Names of the classes' subsets that have a mean IoU of their own."""
    calibrations: tuple[CalibratorReport, ...] = ()
    labeled: str | None = None
    """classes.csv of the labeled split."""
    statistics: str | None = None
    """statistics.h5 of the labeled split."""
    truth_classes: str | None = None
    """classes.csv of the hidden truth."""
    preview: str | None = None
    """preview.h5, where images are shown."""
    groups: GroupSettings = GroupSettings()
    """How classes are grouped by it."""


class RoundReport(Settings):
    """A model and what it was trained on; round 0 is the pretraining that experiments share."""

    task: str
    experiment: str
    seed: int
    round: int
    folder: str
    """Where model.safetensors, metrics.csv, confusion.csv, sizes.csv, train.csv and manifest.json are; of offline
    rounds also cut.csv, alarms.csv, pseudo_labels.csv and pseudo_labels.h5, and pseudo_label_scores.csv where there is
    hidden truth; of trainings that mix images or label them step by step examples.h5."""
    offline: bool
    """Whether it was trained on pseudo-labels from a file."""
    scored: bool = False
    """Whether these are compared with hidden truth."""
    showing: bool = False
    """Whether its training keeps examples."""
    oracle: bool
    """Whether it may have learned from hidden truth."""
    upper_bound: str | None = None
    """The folder of a model of the target's labels, whose gain is shown beside its."""

    def has(self, name: str) -> bool:
        """Whether a file in its folder is one of its results, and not what an earlier config has left there."""
        if name == "examples.h5":
            return self.showing
        if name == "pseudo_label_scores.csv":
            return self.scored
        return self.offline or name not in ("cut.csv", "alarms.csv", "pseudo_labels.csv", "pseudo_labels.h5")


class SummarySettings(Settings):
    """Which models a summary tells of, in the order of the config."""

    rounds: tuple[RoundReport, ...]


class ReportSettings(SummarySettings):
    """Everything a report tells of, in the order of the config."""

    page: PageSettings = PageSettings()
    tasks: tuple[TaskReport, ...]
