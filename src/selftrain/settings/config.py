"""The config file: everything a person can set, parsed once, before anything runs."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from selftrain.errors import UserError
from selftrain.settings.base import NotNegative, Problem, Settings, by_name, deep_merge, nearest, refuse
from selftrain.settings.data import Name, TaskSettings
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import InferenceSettings, PredictionSettings
from selftrain.settings.selection import Policy, Portion
from selftrain.settings.training import Algorithm, SelfTrainingSettings, TrainSettings

DEFAULTS = ("model", "train", "prediction")
"""Top-level sections whose values every pretraining, experiment and round starts from."""
Keys = tuple[int | str, ...]
DEFAULT_TRAIN = TrainSettings(steps=1000)


class MachineSettings(Settings):
    """What suits the machine; a change reruns nothing."""

    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of one training or prediction; results are bit-equal at equal threads."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and augment images for one training."""
    environment: Literal["cpu", "gpu"] = "cpu"
    """Which of envs/ the rules use under `--software-deployment-method conda`."""
    checkpoint_seconds: NotNegative = 60.0
    """How much work a killed training loses at most."""


class PretrainSettings(Settings):
    """Round 0: a model trained on the labeled split."""

    model: ModelSettings = ModelSettings()
    train: TrainSettings = DEFAULT_TRAIN
    start: str | None = None
    """An earlier model file (safetensors or a state dict) to start from; a head of other classes is replaced."""


Pretrain = Annotated[
    PretrainSettings,
    # `name:` with nothing below it is a pretraining that only inherits.
    BeforeValidator(lambda value: {} if value is None else value, json_schema_input_type=PretrainSettings | None),
]


class RoundSettings(Settings):
    """One offline round."""

    portion: Portion | None = None
    """How much gets a pseudo-label; what it is a portion of, the policy says."""
    beta_min: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Lowers the scale range's start to (1 − beta_min) · start (DARS section 3.3)."""
    beta_max: NotNegative = 0.0
    """Raises the scale range's end to (1 + beta_max) · end."""
    prediction: PredictionSettings = PredictionSettings()
    """How the unlabeled images are predicted for this round."""
    train: TrainSettings = DEFAULT_TRAIN


class ExperimentSettings(Settings):
    """A way to use the unlabeled split: offline in rounds, or online in one training beside them."""

    pretrain: str = ""
    """The model that round 1 starts from; online, the network to train, and what the gain is counted from. May be left
    out where there is only one."""
    tasks: tuple[str, ...] | None = None
    """Where it runs; none: on all tasks."""
    algorithm: Algorithm = SelfTrainingSettings()
    policy: Policy | None = None
    """Offline: what gets a pseudo-label."""
    prediction: PredictionSettings = PredictionSettings()
    """Offline: how the unlabeled images are predicted."""
    train: TrainSettings = DEFAULT_TRAIN
    rounds: Annotated[tuple[RoundSettings, ...], Field(min_length=1)] | None = None
    """None: online, a single training that `train` tells of."""
    start: Literal["encoder", "pretrained"] | None = None
    """Online: start as the pretraining did, from its encoder's weights (the default), or from the pretrained model."""
    oracle: bool = False
    """Whether it may learn class shares from hidden truth; the report says so."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._online_problems() if self.rounds is None else self._offline_problems(self.rounds))
        return self

    def _online_problems(self) -> Iterator[Problem]:
        name = self.algorithm.name
        if name in ("self_training", "weak_labels"):
            yield ("rounds",), f"is missing; '{name}' learns from pseudo-labels, which rounds make"
            return
        for key in ("policy", "prediction"):
            if key in self.model_fields_set:
                yield (key,), "belongs to rounds, and there are none"
        if isinstance(self.algorithm, MeanTeacherMixingSettings):
            yield from self._mixing_problems(self.algorithm)

    def _mixing_problems(self, told: MeanTeacherMixingSettings) -> Iterator[Problem]:
        if self.train.teacher is None:
            yield ("train", "teacher"), f"'{told.name}' learns from a teacher; leave this out for the default one"
        if told.across == "target_to_target" and told.mixing.name != "none" and self.train.batch_size < 4:
            reason = (
                "is too small: half of it are unlabeled images, one of which is pasted onto another; give 4 or more"
            )
            yield ("train", "batch_size"), f"{self.train.batch_size} {reason}"
        if told.alignment is not None and told.alignment.target == "truth" and not self.oracle:
            yield (
                ("algorithm", "alignment", "target"),
                "'truth' may be known to an experiment with `oracle: true` alone",
            )

    def _offline_problems(self, rounds: tuple[RoundSettings, ...]) -> Iterator[Problem]:
        if isinstance(self.algorithm, MeanTeacherMixingSettings):
            yield ("rounds",), f"'{self.algorithm.name}' is one training beside the rounds; leave them out"
            return
        if self.start is not None:
            yield ("start",), "a round starts from the model before it; leave this out"
        if self.policy is None:
            yield ("policy",), "is missing"
            return
        fixed = getattr(self.policy, "threshold", None) is not None
        reason = (
            "has no place beside the policy's fixed 'threshold'" if fixed else "is missing; give a number from 0 to 1"
        )
        for number, one in enumerate(rounds):
            if (one.portion is not None) == fixed:
                yield ("rounds", number, "portion"), reason


class Config(Settings):
    """The whole config file."""

    data_root: str = "."
    """The folder that the tasks' paths start from, seen from where the command is run."""
    results: str = "results"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    shards: Annotated[int, Field(ge=1)] = 1
    """Into how many jobs predict and label are split; the results are the same."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images a forward pass in predict and evaluate."""
    keep_predictions: bool = True
    code_is_input: bool = True
    """Whether a change in a stage's code reruns the stage; turn it off to upgrade in the middle of a study."""
    machine: MachineSettings = MachineSettings()
    tasks: dict[Name, TaskSettings] = Field(min_length=1)
    model: ModelSettings = ModelSettings()
    train: TrainSettings = DEFAULT_TRAIN
    prediction: PredictionSettings = PredictionSettings()
    evaluation: InferenceSettings = InferenceSettings()
    """How every model is evaluated."""
    pretrain: dict[Name, Pretrain] = Field(min_length=1)
    experiments: dict[Name, ExperimentSettings] = Field(default_factory=dict)
    only: tuple[str, ...] | None = None
    """Which experiments run; none: all. A second config file can so add experiments to a first one's, and run those."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, value: Any) -> Any:
        return _with_defaults(value) if isinstance(value, dict) else value

    @field_validator("seeds")
    @classmethod
    def _no_seed_twice(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"{list(seeds)} has a seed twice")
        return seeds

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        refuse(problem for name in self.experiments for problem in self._name_problems(name))
        known = list(self.experiments)
        missing = [(number, name) for number, name in enumerate(self.only or ()) if name not in known]
        refuse((("only", number), nearest(name, known, "experiment")) for number, name in missing)
        return self

    def _name_problems(self, name: str) -> Iterator[Problem]:
        experiment, where = self.experiments[name], ("experiments", name)
        if name in ("pretrained", "data", "logs"):
            yield where, "this name is a folder of its own in results; choose another"
        if not experiment.pretrain:
            yield (*where, "pretrain"), f"is missing; valid: {', '.join(self.pretrain)}"
        elif experiment.pretrain not in self.pretrain:
            yield (*where, "pretrain"), nearest(experiment.pretrain, list(self.pretrain), "pretraining")
        elif experiment.algorithm.name == "weak_labels" and self.pretrain[experiment.pretrain].model.module:
            reason = "'weak_labels' needs an encoder's features; the pretraining's model is a module of your own"
            yield (*where, "algorithm"), reason
        for number, task in enumerate(experiment.tasks or ()):
            if task not in self.tasks:
                yield (*where, "tasks", number), nearest(task, list(self.tasks), "task")
        yield from self._alignment_problems(experiment, (*where, "algorithm", "alignment", "target"))

    def _alignment_problems(self, experiment: ExperimentSettings, where: Keys) -> Iterator[Problem]:
        algorithm = experiment.algorithm
        if not isinstance(algorithm, MeanTeacherMixingSettings) or algorithm.alignment is None:
            return
        target = algorithm.alignment.target
        for name in experiment.tasks or self.tasks:
            task = self.tasks.get(name)
            if task is not None and target == "truth" and not task.truth:
                yield where, f"the task '{name}' has no hidden truth (`truth: true`)"
            elif task is not None and not isinstance(target, str) and len(target) != len(task.classes):
                yield where, f"{len(target)} shares for the {len(task.classes)} classes of the task '{name}'"


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Write the top-level sections into every place that inherits them, before validation."""
    empty = [key for key in (*DEFAULTS, "evaluation", "experiments", "machine") if key in raw and raw[key] is None]
    filled = {"train": {}} | {key: raw[key] for key in raw if key not in empty}
    if isinstance(filled["train"], dict):
        filled["train"] = deep_merge({"steps": DEFAULT_TRAIN.steps}, filled["train"])
    for section, inherits in (("pretrain", _pretrain_inherits), ("experiments", _experiment_inherits)):
        if isinstance(filled.get(section), dict):
            base = {key: filled[key] for key in DEFAULTS if isinstance(filled.get(key), dict)}
            filled[section] = {name: _inherit(inherits(base, entry), entry) for name, entry in filled[section].items()}
    if isinstance(filled.get("experiments"), dict):
        experiments = filled["experiments"].items()
        filled["experiments"] = {name: _fill_in_rounds(entry, raw.get("pretrain")) for name, entry in experiments}
    return filled


def _pretrain_inherits(base: dict[str, Any], entry: Any) -> dict[str, Any]:
    return {key: base[key] for key in ("model", "train") if key in base}


def _experiment_inherits(base: dict[str, Any], entry: Any) -> dict[str, Any]:
    """What an experiment of this kind starts from: predictions are for rounds, a teacher for who learns from one."""
    entry = entry if isinstance(entry, dict) else {}
    keys = ("train",) if entry.get("rounds") is None else ("train", "prediction")
    inherited = {key: base[key] for key in keys if key in base}
    algorithm = by_name(entry.get("algorithm"))
    if isinstance(algorithm, dict) and algorithm.get("name") == "mean_teacher_mixing":
        inherited["train"] = deep_merge({"teacher": {}}, base.get("train", {}))
    return inherited


def _inherit(base: dict[str, Any], entry: Any) -> Any:
    return deep_merge(base, entry) if isinstance(entry, dict) else base if entry is None else entry


def _fill_in_rounds(entry: Any, pretrain: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    entry = dict(entry)
    if "pretrain" not in entry and isinstance(pretrain, dict) and len(pretrain) == 1:
        entry["pretrain"] = next(iter(pretrain))
    if isinstance(entry.get("rounds"), list):
        base = {key: entry[key] for key in ("train", "prediction") if isinstance(entry.get(key), dict)}
        entry["rounds"] = [_inherit(base, one) for one in entry["rounds"]]
    return entry


def parse(raw: Any, source: str = "config") -> Config:
    """Turn the raw mapping of a config file into settings, or raise one UserError that lists every problem."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{source}: " + _told(error, raw)) from None


def load(path: Path | str) -> Config:
    """Read a config file (YAML)."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such config file")
    try:
        raw = yaml.load(path.read_text("utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    return parse(raw, str(path))


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently drop the first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise yaml.composer.ComposerError(None, None, f"the key '{twice[0]}' is there twice", node.start_mark)
        return node


def _told(error: ValidationError, raw: Any) -> str:
    """One line per problem, each named by its key; what is inherited is told once, where it comes from."""
    filled = _with_defaults(raw) if isinstance(raw, dict) else raw
    problems = [(_path(problem["loc"], filled), _reason(problem)) for problem in error.errors()]
    lines = []
    for path, reason in problems:
        inherited = not _is_in(raw, path) and any((source, reason) in problems for source in _sources(path))
        # Pydantic calls a list too short whose entries are all wrong.
        hollow = reason == _REASONS["too_short"] and any(other[: len(path)] == path != other for other, _ in problems)
        if not inherited and not hollow:
            lines.append(f"{_key(path, filled)}: {reason}" if path else reason)
    lines = list(dict.fromkeys(lines))
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems", *lines])


def _path(location: Keys, filled: Any) -> Keys:
    """The keys that lead to a value in the file, without the steps that pydantic adds: union tags, `[key]`."""
    path: list[int | str] = []
    node = filled
    for part in location:
        tag = node.get("name") if isinstance(node, dict) else node
        if part not in ("[key]", tag):
            path.append(part)
            node = _below(node, part)
    return tuple(path)


def _below(node: Any, part: int | str) -> Any:
    try:
        return node[part]
    except (KeyError, IndexError, TypeError):
        return None


def _is_in(raw: Any, path: Keys) -> bool:
    for part in path:
        raw = _below(raw, part)
    return raw is not None


def _sources(path: Keys) -> list[Keys]:
    """Where the value at `path` may be inherited from."""
    if path[:1] == ("experiments",) and path[2:3] == ("rounds",):
        return [path[:2] + path[4:], path[4:]]
    return [path[2:]] if path[:1] in (("pretrain",), ("experiments",)) else []


def _key(path: Keys, filled: Any) -> str:
    """`('experiments', 'dars', 'rounds', 1, 'portion')` as `experiments.dars.rounds[1].portion`."""
    key = ""
    for part in path:
        key += f"[{part}]" if isinstance(filled, list) else f".{part}" if key else str(part)
        filled = _below(filled, part)
    return key


_REASONS = {
    "missing": "is missing",
    "union_tag_not_found": "'name' is missing",
    "string_pattern_mismatch": "a name is made of letters, digits, '-' and '_'",
    "model_type": "should be a mapping of keys",
    "model_attributes_type": "should be a mapping of keys",
    "dict_type": "should be a mapping of keys",
    "tuple_type": "should be a list",
    "too_short": "has too few entries",
}


def _reason(problem: Any) -> str:
    """What is wrong, in words that need no knowledge of pydantic or Python."""
    kind, given = problem["type"], problem["input"]
    if kind == "union_tag_invalid":
        return nearest(problem["ctx"]["tag"], problem["ctx"]["expected_tags"].replace("'", "").split(", "), "name")
    reason = _REASONS.get(kind, problem["msg"].removeprefix("Value error, ").replace("Input should be", "should be"))
    if kind in ("missing", "value_error", "refused", "union_tag_not_found", "too_short"):
        return reason
    return (
        f"{reason}, not {given!r}"
        if isinstance(given, str | int | float)
        else f"{reason}{', not empty' * (given is None)}"
    )
