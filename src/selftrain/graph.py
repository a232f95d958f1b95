"""The flow as data: which models, rounds and shards a config asks for, where their files are, what each job is told.

The rules in workflow/ ask this module for paths and settings and hold no logic of their own. It imports nothing heavy,
since every call of Snakemake starts here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain import artifacts, registry
from selftrain.code_digest import SOURCE, CodeDigests
from selftrain.errors import UserError
from selftrain.settings import config as config_file
from selftrain.settings.base import Settings, nearest
from selftrain.settings.config import Config, ExperimentSettings
from selftrain.settings.data import CheckedSplit, CheckSettings, ListSettings, ReadSettings, SplitSettings
from selftrain.settings.prediction import EvaluateStageSettings, PredictStageSettings, ScoreSettings
from selftrain.settings.report import ReportSettings, RoundReport, TaskReport
from selftrain.settings.selection import LabelSettings, SelectSettings
from selftrain.settings.training import SupervisedSettings, TrainSettings, TrainStageSettings


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


class Graph:
    """Paths and settings of every job."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def load(cls, source: Path | dict[str, Any]) -> Graph:
        """From a config file or from what Snakemake read of one."""
        return cls(config_file.parse(source) if isinstance(source, dict) else config_file.load(source))

    # What there is.

    @cached_property
    def pretrained(self) -> list[Model]:
        """All pretrainings."""
        config = self.config
        return [Model(t, name, seed, 0) for t in config.tasks for name in config.pretrain for seed in config.seeds]

    @cached_property
    def rounds(self) -> list[Model]:
        """All rounds of all experiments."""
        return [
            Model(task, name, seed, number)
            for name, experiment in self.config.experiments.items()
            for task in experiment.tasks or self.config.tasks
            for seed in self.config.seeds
            for number in range(1, len(experiment.rounds) + 1)
        ]

    def experiment(self, model: Model) -> ExperimentSettings:
        """The experiment that a round belongs to."""
        if model.name not in self.config.experiments:
            raise UserError(nearest(model.name, list(self.config.experiments), "experiment"))
        return self.config.experiments[model.name]

    def before(self, model: Model) -> Model:
        """The model that a round starts from."""
        if model.round > 1:
            return Model(model.task, model.name, model.seed, model.round - 1)
        return Model(model.task, self.experiment(model).pretrain, model.seed, 0)

    def splits(self, task: str) -> dict[str, SplitSettings]:
        """All splits of a task by name; `truth` is the unlabeled split with its hidden labels."""
        settings = self.config.tasks[task]
        truth = {"truth": settings.unlabeled} if settings.truth else {}
        return {"labeled": settings.labeled, "unlabeled": settings.unlabeled, **truth, **settings.evaluation}

    # Where it is.

    def task_path(self, task: str, *parts: str) -> str:
        """A path below a task's results."""
        return "/".join([self.config.results, task, *parts])

    def model_path(self, model: Model, *parts: str) -> str:
        """A path below a model's folder."""
        return self.task_path(model.task, model.folder, *parts)

    def prediction_paths(self, model: Model) -> list[str]:
        """The shards of predictions that a round selects from: made by the model before it."""
        mode = self.experiment(model).prediction.mode
        shards = self.config.shards
        return [
            self.model_path(self.before(model), "predictions", mode, f"shard-{shard}-of-{shards}.h5")
            for shard in range(shards)
        ]

    def train_files(self, model: Model) -> dict[str, str]:
        """What a training reads, by the name that the train stage gives it."""
        files = {"labeled": self.task_path(model.task, "data", "labeled", "images.csv")}
        if model.round == 0:
            pretrain = self.config.pretrain[model.name]
            weights = pretrain.model.weights if pretrain.model.weights != "hub" else None
            given = {"start": pretrain.start, "weights": weights}
            return files | {name: file for name, file in given.items() if file is not None}
        return files | {
            "start": self.model_path(self.before(model), "model.safetensors"),
            "unlabeled": self.task_path(model.task, "data", "unlabeled", "images.csv"),
            "pseudo_labels": self.model_path(model, "pseudo_labels.h5"),
        }

    def evaluation_splits(self, task: str) -> list[str]:
        """The names of a task's evaluation splits."""
        return list(self.config.tasks[task].evaluation)

    def evaluation_files(self, task: str) -> list[str]:
        """images.csv of each evaluation split."""
        return [self.task_path(task, "data", split, "images.csv") for split in self.evaluation_splits(task)]

    def report_files(self) -> list[str]:
        """Every table that the report tells of."""
        files = []
        for _, model in self._told_models():
            tables = ["metrics.csv", "confusion.csv", "train.csv", "manifest.json"]
            if model.round:
                tables += ["cut.csv", "pseudo_labels.csv", "pseudo_labels.h5"]
                tables += ["pseudo_label_scores.csv"] if self.config.tasks[model.task].truth else []
            files += [self.model_path(model, table) for table in tables]
        return list(dict.fromkeys(files))

    def report_images(self) -> list[str]:
        """images.csv of the splits that the report shows pictures of."""
        shown = [(task, split) for task in self.config.tasks for split in ("unlabeled", "truth")]
        listed = [(task, split) for task, split in shown if split in self.splits(task)]
        return [self.task_path(task, "data", split, "images.csv") for task, split in listed]

    def check_files(self) -> None:
        """Look for every file that the config names, before any job; reading them is the check stage's work."""
        from selftrain.data.listing import list_split

        problems = []
        for name, pretrain in self.config.pretrain.items():
            for key, file in (("start", pretrain.start), ("model.weights", pretrain.model.weights)):
                if file not in (None, "hub") and not Path(file).is_file():
                    problems.append(f"pretrain.{name}.{key}: {file}: no such file")
        for task in self.config.tasks:
            for split, settings in self.splits(task).items():
                if settings.streets is None:
                    problems += [
                        f"tasks.{task}.{split}: {line}" for line in _problems(list_split, self.listing(task, split))
                    ]
        if problems:
            raise UserError("\n  ".join([f"{len(problems)} problem(s) with files", *problems]))

    def split_files(self, task: str, split: str) -> list[str]:
        """The files a split is made from, for Snakemake to watch: images, labels, list; or the folder drawn."""
        from selftrain.data.listing import files_of

        settings = self.splits(task)[split]
        if settings.streets is not None:
            return [self._drawn(task, split)]
        return files_of(self.listing(task, split))

    def _drawn(self, task: str, split: str) -> str:
        return self.task_path(task, "data", "unlabeled" if split == "truth" else split, "drawn")

    # What each job is told.

    def told(self, settings: Settings | None) -> str:
        """The file that holds a job's settings, named by their digest: other settings, another `params`, a new run."""
        assert settings is not None
        content = settings.model_dump(mode="json")
        file = Path(self.config.results, ".settings", f"{type(settings).__name__}-{artifacts.digest(content)}.json")
        if not file.is_file():
            artifacts.write_json(file, content)
        return str(file)

    def listing(self, task: str, split: str) -> ListSettings:
        """How the images of a split are found."""
        settings, config = self.splits(task)[split], self.config
        labeled = split != "unlabeled"
        if settings.streets is not None:
            drawn = self._drawn(task, split)
            labels = ("labels/*.png",) if labeled else None
            return ListSettings(
                root=drawn, data_root=drawn, images=("images/*.png",), labels=labels, list=None, labeled=labeled
            )
        return ListSettings(
            root=str(Path(config.data_root) / config.tasks[task].root),
            data_root=config.data_root,
            images=settings.images,
            labels=settings.labels if labeled else None,
            list=settings.list,
            labeled=labeled,
        )

    def read(self, task: str, split: str) -> ReadSettings:
        """How the files of a split become arrays."""
        settings, of_task = self.splits(task)[split], self.config.tasks[task]
        return ReadSettings(
            classes=of_task.classes, ignore_index=of_task.ignore_index, ids=settings.ids, size=settings.size
        )

    def check(self, task: str, *, drawn: bool = True) -> CheckSettings:
        """All splits of a task; `drawn=False` leaves out those that are yet to be drawn."""
        chosen = [name for name, split in self.splits(task).items() if drawn or split.streets is None]
        return CheckSettings(
            task=task,
            splits={name: CheckedSplit(list=self.listing(task, name), read=self.read(task, name)) for name in chosen},
        )

    def train(self, model: Model) -> TrainStageSettings:
        """One training."""
        algorithm: Any
        if model.round == 0:
            pretrain = self.config.pretrain[model.name]
            train, algorithm = pretrain.train, SupervisedSettings()
        else:
            experiment = self.experiment(model)
            train, algorithm = self._round_train(model), experiment.algorithm
            pretrain = self.config.pretrain[experiment.pretrain]
        return TrainStageSettings(
            model=pretrain.model,
            train=train,
            algorithm=algorithm,
            seed=model.seed,
            round=model.round,
            labeled=self.read(model.task, "labeled"),
            unlabeled=self.read(model.task, "unlabeled"),
            colors=self.config.tasks[model.task].colors,
        )

    def _round_train(self, model: Model) -> TrainSettings:
        """A round's training, with the scale range that DARS section 3.3 gives it."""
        settings = self.experiment(model).rounds[model.round - 1]
        low, high = settings.train.augmentation.scale
        scale = ((1 - settings.beta_min) * low, (1 + settings.beta_max) * high)
        augmentation = settings.train.augmentation.model_copy(update={"scale": scale})
        return settings.train.model_copy(update={"augmentation": augmentation})

    def predict(self, model: Model, mode: str, shard: int, shards: int) -> PredictStageSettings:
        """One shard of a model's predictions on the unlabeled split."""
        modes = {e.prediction.mode: e.prediction for e in self.config.experiments.values()}
        if mode not in modes:
            raise UserError(nearest(mode, list(modes), "prediction mode"))
        return PredictStageSettings(
            prediction=modes[mode],
            batch_size=self.config.batch_size,
            shard=shard,
            shards=shards,
            read=self.read(model.task, "unlabeled"),
        )

    def select(self, model: Model) -> SelectSettings:
        """The selection of a round."""
        experiment = self.experiment(model)
        return SelectSettings(
            classes=self.config.tasks[model.task].classes,
            policy=experiment.policy,
            portion=experiment.rounds[model.round - 1].portion,
        )

    def label(self, model: Model) -> LabelSettings:
        """The pseudo-labels of a round."""
        return LabelSettings(seed=model.seed, round=model.round, select=self.select(model))

    def evaluate(self, model: Model) -> EvaluateStageSettings:
        """The scores of a model, with the prediction that its experiment uses."""
        prediction = self.experiment(model).prediction if model.round else self.config.prediction
        return EvaluateStageSettings(
            prediction=prediction,
            batch_size=self.config.batch_size,
            splits={name: self.read(model.task, name) for name in self.config.tasks[model.task].evaluation},
        )

    def score(self, task: str) -> ScoreSettings:
        """The scores of pseudo-labels against hidden truth."""
        return ScoreSettings(truth=self.read(task, "truth"))

    def report(self) -> ReportSettings:
        """Everything there will be to tell of."""
        rounds = [
            RoundReport(
                task=model.task, experiment=name, seed=model.seed, round=model.round, folder=self.model_path(model)
            )
            for name, model in self._told_models()
        ]
        return ReportSettings(tasks=tuple(self._task_report(task) for task in self.config.tasks), rounds=tuple(rounds))

    def _told_models(self) -> list[tuple[str, Model]]:
        """Each round under its experiment's name, round 0 too, which experiments share; a pretraining alone else."""
        told = []
        for model in self.rounds:
            if model.round == 1:
                told.append((model.name, self.before(model)))
            told.append((model.name, model))
        used = {model for _, model in told}
        return [(model.name, model) for model in self.pretrained if model not in used] + told

    def _task_report(self, task: str) -> TaskReport:
        settings = self.config.tasks[task]
        images = {name: self.task_path(task, "data", name, "images.csv") for name in self.splits(task)}
        return TaskReport(
            name=task,
            classes=settings.classes,
            colors=settings.colors,
            unlabeled=images["unlabeled"],
            truth=images.get("truth"),
            ids=settings.unlabeled.ids,
            ignore_index=settings.ignore_index,
            evaluation={name: images[name] for name in settings.evaluation},
        )

    # Code as an input.

    @cached_property
    def _digests(self) -> CodeDigests:
        return CodeDigests(Path(self.config.results, ".settings", "code.json"), frozen=not self.config.code_is_input)

    def code(self, *modules: str, own: str | None = None) -> str:
        """The digest of what a job runs, a user's own module included."""
        return self._digests.of(*modules, own=own)

    def remember_code(self) -> None:
        """Keep the digests of a run that begins, for `code_is_input: false` later."""
        self._digests.remember()

    def train_code(self, model: Model) -> str:
        """Of the loop, the chosen algorithm and the network."""
        algorithm = registry.module_of(registry.ALGORITHMS[self.train(model).algorithm.name])
        return self.code("selftrain.train.stage", algorithm, self._decoder(model), own=self._own_module(model))

    def predict_code(self, model: Model) -> str:
        """Of predicting with the network."""
        return self.code("selftrain.predict.stage", self._decoder(model), own=self._own_module(model))

    def evaluate_code(self, model: Model) -> str:
        """Of scoring the network."""
        return self.code("selftrain.evaluate.stage", self._decoder(model), own=self._own_module(model))

    def select_code(self, model: Model) -> str:
        """Of the chosen policy."""
        policy = registry.module_of(registry.POLICIES[self.experiment(model).policy.name])
        return self.code("selftrain.select.stage", policy)

    def _decoder(self, model: Model) -> str:
        return registry.module_of(registry.DECODERS[self.train(model).model.decoder.name])

    def _own_module(self, model: Model) -> str | None:
        return self.train(model).model.module


def use_this_python() -> None:
    """Let the rules' `python -m selftrain` be this checkout under the Python that runs Snakemake, activated or not.

    A rule's own conda environment comes before it on the path, and then runs the checkout as well.
    """
    for name, first in (("PATH", Path(sys.executable).parent), ("PYTHONPATH", SOURCE.parent)):
        os.environ[name] = os.pathsep.join([str(first), *filter(None, [os.environ.get(name)])])


def _problems(work: Callable[[ListSettings], object], settings: ListSettings) -> list[str]:
    try:
        work(settings)
    except UserError as error:
        return str(error).split("\n")
    return []
