"""What the parts of a config say of each other: names that must exist, and settings that must fit together."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from selftrain.settings.base import Problem, nearest
from selftrain.settings.curriculum import CurriculumSettings
from selftrain.settings.data import TaskSettings
from selftrain.settings.experiments import ExperimentSettings, PretrainSettings
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import PredictionSettings
from selftrain.settings.training import TrainSettings

Keys = tuple[int | str, ...]


class Parts(Protocol):
    """What a config has of them."""

    model: ModelSettings
    train: TrainSettings
    prediction: PredictionSettings
    tasks: dict[str, TaskSettings]
    pretrain: dict[str, PretrainSettings]
    experiments: dict[str, ExperimentSettings]
    only: tuple[str, ...] | None


def problems_between(config: Parts) -> Iterator[Problem]:
    """All of them, each at the path of a key."""
    for name, pretrain in config.pretrain.items():
        yield from _pretrain_problems(config, pretrain, ("pretrain", name))
    for name, experiment in config.experiments.items():
        yield from _experiment_problems(config, name, experiment)
    known = list(config.experiments)
    for number, name in enumerate(config.only or ()):
        if name not in known:
            yield ("only", number), nearest(name, known, "experiment")


def _pretrain_problems(config: Parts, pretrain: PretrainSettings, where: Keys) -> Iterator[Problem]:
    yield from _task_problems(config, pretrain.tasks, where)
    tasks = pretrain.tasks or tuple(config.tasks)
    yield from _weight_problems(config, pretrain.train, tasks, where)
    yield from _channel_problems(config, pretrain.model, tasks, where)
    for task in tasks if pretrain.labels == "truth" else ():
        if task in config.tasks and not config.tasks[task].truth:
            yield (*where, "labels"), f"the task '{task}' has no hidden truth (`truth: true`)"


def _experiment_problems(config: Parts, name: str, experiment: ExperimentSettings) -> Iterator[Problem]:
    where = ("experiments", name)
    if name in ("pretrained", "data", "logs"):
        yield where, "this name is a folder of its own in results; choose another"
    if name in config.pretrain:
        yield where, "is the name of a pretraining, too; choose another"
    yield from _task_problems(config, experiment.tasks, where)
    tasks = experiment.tasks or tuple(config.tasks)
    pretrain = config.pretrain.get(experiment.pretrain)
    if pretrain is None:
        yield (*where, "pretrain"), nearest(experiment.pretrain, list(config.pretrain), "pretraining")
    else:
        if pretrain.labels == "truth" and not experiment.oracle:
            yield (*where, "pretrain"), f"'{experiment.pretrain}' has learned hidden truth; only an `oracle: true` may"
        yield from _runs_on(pretrain, tasks, (*where, "pretrain"), experiment.pretrain)
        yield from _network_problems(config, pretrain, experiment, where)
    yield from _upper_bound_problems(config, experiment, tasks, (*where, "upper_bound"))
    yield from _alignment_problems(config, experiment, tasks, (*where, "algorithm", "alignment", "target"))
    yield from _calibration_problems(config, experiment, tasks, where)
    if experiment.rounds is None:
        yield from _weight_problems(config, experiment.train, tasks, where)
    for number, one in enumerate(experiment.rounds or ()):
        above: dict[Keys, object] = {where: experiment.train.class_weights}
        yield from _weight_problems(config, one.train, tasks, (*where, "rounds", number), above)


def _task_problems(config: Parts, tasks: tuple[str, ...] | None, where: Keys) -> Iterator[Problem]:
    for number, task in enumerate(tasks or ()):
        if task not in config.tasks:
            yield (*where, "tasks", number), nearest(task, list(config.tasks), "task")


def _runs_on(pretrain: PretrainSettings, tasks: tuple[str, ...], where: Keys, name: str) -> Iterator[Problem]:
    """A pretraining that does not run on every task it is needed on."""
    for task in tasks:
        if pretrain.tasks is not None and task not in pretrain.tasks:
            yield where, f"'{name}' does not run on the task '{task}'; name it in its 'tasks'"


def _network_problems(
    config: Parts, pretrain: PretrainSettings, experiment: ExperimentSettings, where: Keys
) -> Iterator[Problem]:
    """What a method asks of a network that the pretraining's is not."""
    model = pretrain.model
    if experiment.algorithm.name == "weak_labels" and model.module:
        reason = "'weak_labels' needs an encoder's features; the pretraining's model is a module of your own"
        yield (*where, "algorithm"), reason
    if model.branches > 1 or model.module:
        return
    alone = f"the model of '{experiment.pretrain}' has one branch, which always agrees; set its 'branches' to 2 or more"
    if isinstance(experiment.algorithm, CurriculumSettings):
        for key in ("target_easy_mining", "source_hard_mining"):
            if getattr(experiment.algorithm, key) is not None:
                yield (*where, "algorithm", key), f"{alone}, or write `{key}: false`"
    above: dict[Keys, object] = {(): config.prediction.agreement, where: experiment.prediction.agreement}
    for number, one in enumerate(experiment.rounds or ()):
        if one.prediction.agreement is not None:
            for place in _places((*where, "rounds", number), one.prediction.agreement, above):
                yield (*place, "prediction", "agreement"), alone


def _upper_bound_problems(
    config: Parts, experiment: ExperimentSettings, tasks: tuple[str, ...], where: Keys
) -> Iterator[Problem]:
    name = experiment.upper_bound
    if name is None:
        return
    bound = config.pretrain.get(name)
    if bound is None:
        yield where, nearest(name, list(config.pretrain), "pretraining")
    elif bound.labels != "truth":
        yield where, f"'{name}' does not learn the target's labels; give it `labels: truth`"
    else:
        yield from _runs_on(bound, tasks, where, name)


def _alignment_problems(
    config: Parts, experiment: ExperimentSettings, tasks: tuple[str, ...], where: Keys
) -> Iterator[Problem]:
    algorithm = experiment.algorithm
    if not isinstance(algorithm, MeanTeacherMixingSettings) or algorithm.alignment is None:
        return
    target = algorithm.alignment.target
    for name in tasks:
        task = config.tasks.get(name)
        if task is not None and target == "truth" and not task.truth:
            yield where, f"the task '{name}' has no hidden truth (`truth: true`)"
        elif task is not None and not isinstance(target, str) and len(target) != len(task.classes):
            yield where, f"{len(target)} shares for the {len(task.classes)} classes of the task '{name}'"


def _calibration_problems(
    config: Parts, experiment: ExperimentSettings, tasks: tuple[str, ...], where: Keys
) -> Iterator[Problem]:
    """Calibration on a task that has no labels for it."""
    above: dict[Keys, object] = {(): config.prediction.calibration, where: experiment.prediction.calibration}
    for number, one in enumerate(experiment.rounds or ()):
        for name in tasks if one.prediction.calibration is not None else ():
            if name in config.tasks and config.tasks[name].calibration is None:
                reason = f"the task '{name}' has no labels held out for it; name some under 'tasks.{name}.calibration'"
                for place in _places((*where, "rounds", number), one.prediction.calibration, above):
                    yield (*place, "prediction", "calibration"), reason


def _weight_problems(
    config: Parts, train: TrainSettings, tasks: tuple[str, ...], where: Keys, above: Mapping[Keys, object] | None = None
) -> Iterator[Problem]:
    """Class weights that do not fit a task."""
    weights = train.class_weights
    inherited: dict[Keys, object] = {(): config.train.class_weights, **(above or {})}
    places = [(*place, "train", "class_weights") for place in _places(where, weights, inherited)]
    for name in tasks:
        classes = list(config.tasks[name].classes) if name in config.tasks else []
        if classes and isinstance(weights, tuple) and len(weights) != len(classes):
            reason = f"{len(weights)} for the {len(classes)} classes of the task '{name}'"
            yield from ((place, reason) for place in places)
        for one in weights if classes and isinstance(weights, dict) else ():
            if one not in classes:
                reason = nearest(one, classes, "class") + f" (of the task '{name}')"
                yield from (((*place, one), reason) for place in places)


def _channel_problems(config: Parts, model: ModelSettings, tasks: tuple[str, ...], where: Keys) -> Iterator[Problem]:
    """A network of other channels than a task's images have."""
    for name in tasks:
        channels = config.tasks[name].pixels.channels if name in config.tasks else len(model.mean)
        if len(model.mean) != channels:
            of = f"images of {channels} channel{'s' if channels > 1 else ''} (task '{name}')"
            reason = f"{len(model.mean)} value{'s' if len(model.mean) > 1 else ''} for {of}; give one per channel"
            for place in _places(where, model.mean, {(): config.model.mean}):
                yield (*place, "model", "mean"), reason


def _places(where: Keys, value: object, above: Mapping[Keys, object]) -> list[Keys]:
    """Where a value stands: at its own place, and at those above that say the same, from which it may be inherited.

    A problem that is told at all of them is told once, where the file says it.
    """
    return [where, *(place for place, there in above.items() if there == value)]
