"""The flow as data: which models, rounds and shards a config asks for, and where their files are.

An online experiment is one training beside the rounds; its model stands where a first round's would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selftrain.errors import UserError
from selftrain.settings.base import nearest
from selftrain.settings.calibration import Calibration
from selftrain.settings.experiments import ExperimentSettings, PretrainSettings, RoundSettings
from selftrain.settings.prediction import PredictionSettings
from selftrain.settings.selection import CbstSettings
from selftrain.settings.training import ClassWeightRuleSettings, LearnsFromUnlabeled, Showing, TrainSettings
from selftrain.splits import Splits


@dataclass(frozen=True)
class Model:
    """A place in the flow where a model is trained: a pretraining, or one round of an experiment."""

    task: str
    name: str
    seed: int
    round: int

    @property
    def folder(self) -> str:
        """Where its files are, below the task's folder."""
        if self.round == 0:
            return f"pretrained/{self.name}/seed-{self.seed}"
        return f"{self.name}/seed-{self.seed}/round-{self.round}"


def model_at(task: str, folder: str) -> Model:
    """The model whose folder (below the task's) this is."""
    parts = folder.split("/")
    if parts[0] == "pretrained":
        return Model(task, parts[1], int(parts[2].removeprefix("seed-")), 0)
    return Model(task, parts[0], int(parts[1].removeprefix("seed-")), int(parts[2].removeprefix("round-")))


class Flow(Splits):
    """The models, rounds and shards that a config asks for, and their files."""

    # What there is.

    @cached_property
    def pretrained(self) -> list[Model]:
        """All pretrainings; where `only` names what runs, those that it needs."""
        config = self.config
        found = [
            Model(task, name, seed, 0)
            for task in config.tasks
            for name, pretrain in config.pretrain.items()
            if pretrain.tasks is None or task in pretrain.tasks
            for seed in config.seeds
        ]
        return found if config.only is None else [model for model in found if model in self._needed]

    @cached_property
    def _needed(self) -> set[Model]:
        """The pretrainings that experiments start from or are compared with."""
        named = [(model, self.experiment(model)) for model in self.rounds]
        return {
            Model(model.task, name, model.seed, 0)
            for model, experiment in named
            for name in (experiment.pretrain, experiment.upper_bound)
            if name is not None
        }

    @cached_property
    def rounds(self) -> list[Model]:
        """All rounds of all experiments that run; an online one counts as round 1."""
        only = self.config.only
        return [
            Model(task, name, seed, number)
            for name, experiment in self.config.experiments.items()
            if only is None or name in only
            for task in experiment.tasks or self.config.tasks
            for seed in self.config.seeds
            for number in range(1, len(experiment.rounds or [None]) + 1)
        ]

    def known(self, model: Model) -> Model:
        """A model as it is, if the config has it.

        Raises:
            UserError: it has none of this task, name, seed or round.
        """
        self.task(model.task)
        try:
            problem = self._unknown(model)
        except UserError as error:
            problem = str(error)
        if problem:
            raise UserError(f"{self.model_path(model)}: {problem}")
        return model

    def _unknown(self, model: Model) -> str | None:
        """What of a model is not in the config, and what is."""
        tasks = self.pretraining(model).tasks if model.round == 0 else self.experiment(model).tasks
        if tasks is not None and model.task not in tasks:
            return f"'{model.name}' does not run on the task '{model.task}'; it runs on {', '.join(tasks)}"
        if model.seed not in self.config.seeds:
            return f"no seed {model.seed}; the config has seeds {', '.join(map(str, self.config.seeds))}"
        if model.round > 1 and self.experiment(model).rounds is None:
            return f"no round {model.round}; '{model.name}' is online, and its one model stands at round 1"
        if model.round > (count := len(self.experiment(model).rounds or [None]) if model.round else 0):
            return f"no round {model.round}; '{model.name}' has rounds 1 to {count}"
        return None

    def check_shard(self, shard: int, shards: int) -> None:
        """Refuse a part of predictions or pseudo-labels that the config does not have."""
        count = self.config.shards
        if shards != count or shard >= count:
            last = f"{count - 1}-of-{count}"
            raise UserError(f"no shard {shard}-of-{shards}; with `shards: {count}` there are 0-of-{count} to {last}")

    def experiment(self, model: Model) -> ExperimentSettings:
        """The experiment that a round belongs to."""
        if model.name not in self.config.experiments:
            raise UserError(nearest(model.name, list(self.config.experiments), "experiment"))
        return self.config.experiments[model.name]

    def pretraining(self, model: Model) -> PretrainSettings:
        """The pretraining that a model is, or whose network it has."""
        name = self.experiment(model).pretrain if model.round else model.name
        if name not in self.config.pretrain:
            raise UserError(nearest(name, list(self.config.pretrain), "pretraining"))
        return self.config.pretrain[name]

    def round(self, model: Model) -> RoundSettings:
        """The settings of an offline round."""
        rounds = self.experiment(model).rounds
        if rounds is None:
            raise UserError(f"experiment '{model.name}' is online: it has no rounds, and so no pseudo-labels in a file")
        return rounds[model.round - 1]

    def is_offline(self, model: Model) -> bool:
        """Whether a model is trained on pseudo-labels of the model before it."""
        return model.round > 0 and self.experiment(model).rounds is not None

    @cached_property
    def showing(self) -> list[str]:
        """The experiments that keep some of what they make of unlabeled images, to show it."""
        experiments = self.config.experiments.items()
        return [name for name, one in experiments if isinstance(one.algorithm, Showing)]

    def prediction(self, mode: str) -> PredictionSettings:
        """The settings that a folder of predictions is named by."""
        if mode not in self._predictions:
            raise UserError(nearest(mode, list(self._predictions), "prediction mode"))
        return self._predictions[mode]

    @cached_property
    def _predictions(self) -> dict[str, PredictionSettings]:
        offline = [self.round(model).prediction for model in self.rounds if self.is_offline(model)]
        return {one.mode: one for one in (self.config.prediction, *offline)}

    def before(self, model: Model) -> Model:
        """The model that a round starts from; of an online experiment, the one that its gain is counted from."""
        if model.round > 1:
            return Model(model.task, model.name, model.seed, model.round - 1)
        return Model(model.task, self.experiment(model).pretrain, model.seed, 0)

    # Where it is.

    def model_path(self, model: Model, *parts: str) -> str:
        """A path below a model's folder."""
        return self.task_path(model.task, model.folder, *parts)

    def prediction_paths(self, model: Model) -> list[str]:
        """The shards of predictions that a round selects from: made by the model before it."""
        mode = self.round(model).prediction.mode
        shards = self.config.shards
        return [
            self.model_path(self.before(model), "predictions", mode, f"shard-{shard}-of-{shards}.h5")
            for shard in range(shards)
        ]

    def earlier_prediction_paths(self, model: Model) -> list[str]:
        """The shards that the round before selected from; none where there is no round before."""
        before = self.before(model)
        return self.prediction_paths(before) if before.round else []

    def predict_files(self, model: Model, mode: str) -> dict[str, str]:
        """What predicting the unlabeled images reads, by the name that the predict stage gives it."""
        files = {
            "model": self.model_path(model, "model.safetensors"),
            "images": self.task_path(model.task, "data", "unlabeled", "images.csv"),
        }
        prediction = self.prediction(mode)
        if prediction.spatial_prior is not None:
            files["statistics"] = self.task_path(model.task, "data", "labeled", "statistics.h5")
        if prediction.calibration is not None:
            files["calibrator"] = self.calibration_path(model, prediction.calibration.mode, "calibrator.json")
        return files

    def calibration_path(self, model: Model, mode: str, file: str) -> str:
        """A file of a model's calibrator."""
        if self.task(model.task).calibration is None:
            raise UserError(f"tasks.{model.task}.calibration: is missing; calibrators are fitted on it")
        return self.model_path(model, "calibration", mode, file)

    def calibration(self, mode: str) -> Calibration:
        """The settings that a folder of a calibrator is named by."""
        found = [one.calibration for one in self._predictions.values() if one.calibration is not None]
        named = {one.mode: one for one in found}
        if mode not in named:
            raise UserError(nearest(mode, list(named), "calibration"))
        return named[mode]

    @cached_property
    def calibrations(self) -> list[tuple[Model, str]]:
        """Models whose predictions are calibrated for a round, with the calibration's mode, each once."""
        offline = [model for model in self.rounds if self.is_offline(model)]
        told = [(self.before(model), self.round(model).prediction.calibration) for model in offline]
        return list(dict.fromkeys((model, one.mode) for model, one in told if one is not None))

    def reliability_splits(self, task: str) -> list[str]:
        """Where calibrated probabilities are compared with labels."""
        return ["calibration", *self.evaluation_splits(task)]

    def choose_files(self, model: Model) -> dict[str, str]:
        """What the choose stage of a round reads beside the cut: what its predictions were made from."""
        return self.predict_files(self.before(model), self.round(model).prediction.mode)

    def chosen_file(self, model: Model, shard: int) -> dict[str, str]:
        """The shard as the choose stage makes it anew, where the policy's choice depends on the cut."""
        policy = self.experiment(model).policy
        if not (isinstance(policy, CbstSettings) and policy.choice == "normalized"):
            return {}
        return {"chosen": self.model_path(model, f"chosen-{shard}-of-{self.config.shards}.h5")}

    def train_files(self, model: Model) -> dict[str, str]:
        """What a training reads, by the name that the train stage gives it."""
        learned = self.learned_split(model)
        files = {"labeled": self.task_path(model.task, "data", learned, "images.csv")} | self._start_files(model)
        if isinstance(self.train_settings(model).class_weights, ClassWeightRuleSettings):
            files["statistics"] = self.task_path(model.task, "data", learned, "classes.csv")
        if model.round == 0:
            return files
        algorithm = self.experiment(model).algorithm
        alignment = getattr(algorithm, "alignment", None)
        if self.is_offline(model) or isinstance(algorithm, LearnsFromUnlabeled):
            files["unlabeled"] = self.task_path(model.task, "data", "unlabeled", "images.csv")
        if self.is_offline(model):
            files["pseudo_labels"] = self.model_path(model, "pseudo_labels.h5")
        if alignment is not None and isinstance(alignment.target, str):
            files["distribution"] = self.task_path(model.task, "data", alignment.target, "classes.csv")
        return files

    def learned_split(self, model: Model) -> str:
        """The split whose labels a training learns: the labeled one, or of an oracle the hidden truth."""
        return self.config.pretrain[model.name].labels if model.round == 0 else "labeled"

    def train_settings(self, model: Model) -> TrainSettings:
        """How a model is trained, as the config says it."""
        if model.round == 0:
            return self.config.pretrain[model.name].train
        return self.round(model).train if self.is_offline(model) else self.experiment(model).train

    def _start_files(self, model: Model) -> dict[str, str]:
        """The weights that a training starts from: of a model, or of a pretraining's encoder."""
        experiment = self.experiment(model) if model.round else None
        if experiment is not None and (self.is_offline(model) or experiment.start == "pretrained"):
            return {"start": self.model_path(self.before(model), "model.safetensors")}
        pretrain = self.pretraining(model)
        given = {"start": pretrain.start, "weights": pretrain.model.weights_file}
        return {name: file for name, file in given.items() if file is not None}

    def told_models(self) -> list[tuple[str, Model]]:
        """Each round under its experiment's name, round 0 too, which experiments share; a pretraining alone else."""
        told = []
        for model in self.rounds:
            if model.round == 1:
                told.append((model.name, self.before(model)))
            told.append((model.name, model))
        used = {model for _, model in told}
        return [(model.name, model) for model in self.pretrained if model not in used] + told

    @cached_property
    def told_tasks(self) -> list[str]:
        """The tasks that have a model; `only` may leave none to some."""
        told = {model.task for _, model in self.told_models()}
        return [task for task in self.config.tasks if task in told]

    def evaluation_splits(self, task: str) -> list[str]:
        """The names of a task's evaluation splits."""
        return list(self.task(task).evaluation)

    def evaluation_files(self, task: str) -> list[str]:
        """images.csv of each evaluation split."""
        return [self.task_path(task, "data", split, "images.csv") for split in self.evaluation_splits(task)]

    def report_files(self) -> list[str]:
        """Every table that the report tells of."""
        files = []
        for _, model in self.told_models():
            tables = ["metrics.csv", "confusion.csv", "sizes.csv", "train.csv", "manifest.json"]
            tables += ["examples.h5"] if model.round and model.name in self.showing else []
            if self.is_offline(model):
                tables += ["cut.csv", "pseudo_labels.csv", "pseudo_labels.h5"]
                tables += ["pseudo_label_scores.csv"] if self.config.tasks[model.task].truth else []
            files += [self.model_path(model, table) for table in tables]
        for model, mode in self.calibrations:
            files += [self.calibration_path(model, mode, file) for file in ("calibration.csv", "reliability.csv")]
        return list(dict.fromkeys(files))

    def alarm_files(self) -> list[str]:
        """The alarms of every round; apart from the other tables, since no score follows from them."""
        return [self.model_path(model, "alarms.csv") for model in self.rounds if self.is_offline(model)]

    def previewed(self, task: str) -> list[Model]:
        """The models that a task's preview shows: of the first seed, those of round 0 and of each last round."""
        told = [(name, model) for name, model in self.told_models() if model.task == task]
        first = [(name, model) for name, model in told if model.seed == self.config.seeds[0]]
        before = [model for _, model in first if model.round == 0]
        return list(dict.fromkeys([*before, *dict(first).values()]))

    def preview_files(self, task: str) -> dict[str, list[str]]:
        """What a task's preview is made from."""
        models = self.previewed(task)
        return {
            "images": [self.task_path(task, "data", "unlabeled", "images.csv")],
            "models": [self.model_path(model, "model.safetensors") for model in models],
            "labels": [self.model_path(model, "pseudo_labels.h5") for model in models if self.is_offline(model)],
        }

    def report_images(self) -> list[str]:
        """What the report shows of images: images.csv of splits and, unless it shows none, their previews; statistics
        of the labeled split, by which it groups classes."""
        shown = [(task, split) for task in self.told_tasks for split in ("unlabeled", "truth")]
        listed = [(task, split) for task, split in shown if split in self.splits(task)]
        known = [(task, file) for task in self.told_tasks for file in ("classes.csv", "statistics.h5")]
        previews = [self.task_path(task, "preview.h5") for task in self.told_tasks if self.config.report.images]
        return [
            *(self.task_path(task, "data", split, "images.csv") for task, split in listed),
            *(self.task_path(task, "data", "labeled", file) for task, file in known),
            *(self.task_path(task, "data", "truth", "classes.csv") for task, split in listed if split == "truth"),
            *previews,
        ]

    def check_files(self) -> None:
        """Look for every file that the config names, before any job; reading them is the check stage's work."""
        problems = [*self.weight_problems, *self.split_problems, *self.review_problems]
        if problems:
            raise UserError("\n  ".join([f"{len(problems)} problem(s) with files", *problems]))

    @cached_property
    def weight_problems(self) -> list[str]:
        """Weights that are not where pretrainings look for them."""
        named = dict.fromkeys(model.name for model in self.pretrained)
        told = ((name, line) for name in named for line in _weight_problems(self.config.pretrain[name]))
        return [f"pretrain.{name}.{line}" for name, line in told]

    @cached_property
    def encoder_problems(self) -> list[str]:
        """Encoders that are not there. This imports torch, for three seconds, so it is not asked at every run."""
        from selftrain.models.encoders import problem

        named = {model.name: self.config.pretrain[model.name].model for model in self.pretrained}
        wanted = {name: told.encoder for name, told in named.items() if told.module is None}
        told = {name: problem(encoder) for name, encoder in wanted.items()}
        return [f"pretrain.{name}.model.encoder: {reason}" for name, reason in told.items() if reason]


def _weight_problems(pretrain: PretrainSettings) -> Iterator[str]:
    """Weights that are not where a pretraining looks for them, by key."""
    from selftrain.models import packages

    model = pretrain.model
    for key, file in (("start", pretrain.start), ("model.weights", model.weights_file)):
        if file is not None and not Path(file).is_file():
            yield f"{key}: {file}: no such file"
    reason = None if model.weights_package is None else packages.problem(model.weights_package, model.encoder)
    if reason is not None:
        yield f"model.weights: {reason}"
