"""The config file: everything a person can set, parsed once, before anything runs."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from selftrain.settings.alarms import AlarmSettings
from selftrain.settings.base import GraphFolder, NotNegative, Settings, refuse
from selftrain.settings.data import Name, TaskSettings
from selftrain.settings.experiments import DEFAULT_TRAIN, ExperimentSettings, Pretrain
from selftrain.settings.inheritance import with_defaults
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import InferenceSettings, PredictionSettings
from selftrain.settings.references import problems_between
from selftrain.settings.report import PageSettings
from selftrain.settings.training import TrainSettings


class MachineSettings(Settings):
    """What suits the machine; a change reruns nothing, but for another `environment` where Snakemake makes it."""

    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of one training or prediction; they also read a prediction's images. Results are bit-equal at equal
    threads."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and augment images for one training, or for each of its processes."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Into how many processes one training is split, each with a GPU of its own where there are any, and `threads`. A
    step's batch is shared by them: the result differs by the rounding of floats (and dropout's draws)."""
    environment: Literal["cpu", "gpu"] = "cpu"
    """Which of envs/ the rules use under `--software-deployment-method conda`."""
    checkpoint_seconds: NotNegative = 60.0
    """How much work a killed training loses at most, and ten steps."""


class Config(Settings):
    """The whole config file."""

    # A file that includes others, or is included, need not have everything.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required", None) and None)

    include: tuple[str, ...] = ()
    """Config files that this one starts from, their paths seen from its folder: its values go over theirs."""
    data_root: str = "."
    """The folder that the tasks' paths start from, seen from where the command is run."""
    outside_data_root: bool = False
    """Whether list files may name files outside of `data_root`; of a list that somebody else wrote, look first."""
    results: GraphFolder = "results"
    """The folder of all that is made, seen from where the command is run."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Everything is trained once with each; the report tells their mean and deviation."""
    shards: Annotated[int, Field(ge=1)] = 1
    """Into how many jobs predict and label are split; the results are the same."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images a forward pass, wherever models predict; a change makes predictions and scores anew."""
    keep_predictions: bool = True
    """Whether files of predictions stay when nothing needs them any more."""
    code_is_input: bool = True
    """Whether a change in a stage's code reruns the stage; turn it off to upgrade in the middle of a study."""
    machine: MachineSettings = MachineSettings()
    tasks: dict[Name, TaskSettings] = Field(min_length=1)
    model: ModelSettings = ModelSettings()
    train: TrainSettings = DEFAULT_TRAIN
    prediction: PredictionSettings = PredictionSettings()
    evaluation: InferenceSettings = InferenceSettings()
    """How every model is evaluated."""
    alarms: AlarmSettings = AlarmSettings()
    report: PageSettings = PageSettings()
    pretrain: dict[Name, Pretrain] = Field(min_length=1)
    experiments: dict[Name, ExperimentSettings] = Field(default_factory=dict)
    only: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Which experiments run; none: all. A second config file can so add experiments to a first one's, and run those."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, value: Any) -> Any:
        return with_defaults(value) if isinstance(value, dict) else value

    @field_validator("include")
    @classmethod
    def _no_file_is_left(cls, include: tuple[str, ...]) -> tuple[str, ...]:
        if include:
            raise ValueError("is for files; here there is none that its paths could start from")
        return include

    @field_validator("seeds")
    @classmethod
    def _no_seed_twice(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"{list(seeds)} has a seed twice")
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(problems_between(self))
        return self
