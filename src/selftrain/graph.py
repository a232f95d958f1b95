"""The graph of jobs: the flow, what each job of it is told, and the code that it runs.

The rules in workflow/ ask this module for paths and settings and hold no logic of their own. It imports nothing heavy,
since every call of Snakemake starts here.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain import artifacts, registry
from selftrain.code_digest import SOURCE, CodeDigests
from selftrain.errors import UserError, said
from selftrain.flow import Flow, Model
from selftrain.settings import config_file
from selftrain.settings.base import Settings
from selftrain.settings.calibration import CalibrateSettings, Calibration
from selftrain.settings.data import CheckedSplit, CheckSettings
from selftrain.settings.prediction import (
    EvaluatedSplit,
    EvaluateStageSettings,
    PredictStageSettings,
    PreviewSettings,
    ReliabilitySettings,
    ScoreSettings,
)
from selftrain.settings.report import CalibratorReport, ReportSettings, RoundReport, SummarySettings, TaskReport
from selftrain.settings.selection import LabelSettings, Policy, SelectSettings
from selftrain.settings.training import (
    Algorithm,
    SupervisedSettings,
    TrainSettings,
    TrainStageSettings,
    WeakLabelSettings,
)


class Graph(Flow):
    """Paths and settings of every job."""

    @classmethod
    def load(cls, *files: Path | str, over: dict[str, Any] | None = None) -> Graph:
        """From config files, the values of each over those of the files before it, and `over` over all."""
        return cls(config_file.load(*files, over=over))

    # What each job is told.

    def told(self, settings: Settings | None) -> str:
        """The file that holds a job's settings, named by their digest: other settings, another `params`, a new run."""
        assert settings is not None
        content = settings.model_dump(mode="json")
        file = Path(self.config.results, ".settings", f"{type(settings).__name__}-{artifacts.digest(content)}.json")
        if not file.is_file():
            artifacts.write_json(file, content)
        return str(file)

    def check(self, task: str, *, drawn: bool = True) -> CheckSettings:
        """All splits of a task that can be read; `drawn=False` leaves out those that are yet to be drawn."""
        wanted = [name for name, split in self.splits(task).items() if drawn or split.streets is None]
        chosen = [name for name in wanted if self.readable(task, name)]
        return CheckSettings(
            task=task,
            transductive=self.config.tasks[task].transductive,
            splits={name: CheckedSplit(list=self.listing(task, name), read=self.read(task, name)) for name in chosen},
        )

    def train(self, model: Model) -> TrainStageSettings:
        """One training."""
        return TrainStageSettings(
            model=self.pretraining(model).model,
            train=self._round_train(model) if self.is_offline(model) else self.train_settings(model),
            algorithm=self._algorithm(model),
            seed=model.seed,
            round=model.round,
            labeled=self.read(model.task, self.learned_split(model)),
            unlabeled=self.read(model.task, "unlabeled") if "unlabeled" in self.train_files(model) else None,
            colors=self.config.tasks[model.task].colors,
        )

    def _algorithm(self, model: Model) -> Algorithm:
        """What a training is told of its algorithm."""
        return SupervisedSettings() if model.round == 0 else self.experiment(model).algorithm

    def _round_train(self, model: Model) -> TrainSettings:
        """A round's training, with the scale range that DARS section 3.3 gives it."""
        settings = self.round(model)
        low, high = settings.train.augmentation.scale
        scale = ((1 - settings.beta_min) * low, (1 + settings.beta_max) * high)
        augmentation = settings.train.augmentation.model_copy(update={"scale": scale})
        return settings.train.model_copy(update={"augmentation": augmentation})

    def calibrate(self, model: Model, mode: str) -> CalibrateSettings:
        """The fit of a model's calibrator."""
        return CalibrateSettings(
            calibration=self.calibration(mode),
            seed=model.seed,
            batch_size=self.config.batch_size,
            read=self.read(model.task, "calibration"),
        )

    def reliability(self, model: Model, mode: str) -> ReliabilitySettings:
        """How far its probabilities can be trusted."""
        splits = self.splits(model.task)
        return ReliabilitySettings(
            calibration=self.calibration(mode),
            batch_size=self.config.batch_size,
            splits={
                name: EvaluatedSplit(read=self.read(model.task, name), score_size=splits[name].score_size)
                for name in self.reliability_splits(model.task)
            },
        )

    def predict(self, model: Model, mode: str, shard: int, shards: int) -> PredictStageSettings:
        """One shard of a model's predictions on the unlabeled split."""
        return PredictStageSettings(
            prediction=self.prediction(mode),
            seed=model.seed,
            batch_size=self.config.batch_size,
            shard=shard,
            shards=shards,
            read=self.read(model.task, "unlabeled"),
        )

    def choose(self, model: Model, shard: int, shards: int) -> PredictStageSettings:
        """One shard, predicted again as for the selection of a round."""
        return self.predict(self.before(model), self.round(model).prediction.mode, shard, shards)

    def select(self, model: Model) -> SelectSettings:
        """The selection of a round."""
        return SelectSettings(
            classes=self.config.tasks[model.task].classes,
            policy=self._policy(model),
            portion=self.round(model).portion,
        )

    def _policy(self, model: Model) -> Policy:
        policy = self.experiment(model).policy
        assert policy is not None, "the config refuses rounds without a policy"
        return policy

    def label(self, model: Model) -> LabelSettings:
        """The pseudo-labels of a round."""
        algorithm = self.experiment(model).algorithm
        eta = algorithm.eta if isinstance(algorithm, WeakLabelSettings) else None
        return LabelSettings(seed=model.seed, round=model.round, select=self.select(model), eta=eta)

    def evaluate(self, model: Model) -> EvaluateStageSettings:
        """The scores of a model."""
        task = self.config.tasks[model.task]
        return EvaluateStageSettings(
            evaluation=self.config.evaluation,
            seed=model.seed,
            batch_size=self.config.batch_size,
            splits={
                name: EvaluatedSplit(read=self.read(model.task, name), score_size=split.score_size)
                for name, split in task.evaluation.items()
            },
            subsets=task.subsets,
            groups=task.groups,
        )

    def score(self, task: str) -> ScoreSettings:
        """The scores of pseudo-labels against hidden truth."""
        return ScoreSettings(truth=self.read(task, "truth"))

    def preview(self, task: str) -> PreviewSettings:
        """The images of a task that people look at."""
        return PreviewSettings(
            images=self.config.report.images,
            evaluation=self.config.evaluation,
            seed=self.config.seeds[0],
            batch_size=self.config.batch_size,
            read=self.read(task, "unlabeled"),
        )

    def summary(self) -> SummarySettings:
        """All scores there will be."""
        return SummarySettings(rounds=self._told_rounds())

    def report(self) -> ReportSettings:
        """Everything there will be to tell of."""
        tasks = tuple(self._task_report(task) for task in self.told_tasks)
        return ReportSettings(page=self.config.report, tasks=tasks, rounds=self._told_rounds())

    def _told_rounds(self) -> tuple[RoundReport, ...]:
        return tuple(
            RoundReport(
                task=model.task,
                experiment=name,
                seed=model.seed,
                round=model.round,
                folder=self.model_path(model),
                offline=self.is_offline(model),
                scored=self.is_offline(model) and self.config.tasks[model.task].truth,
                showing=model.round > 0 and model.name in self.showing,
                oracle=self.is_oracle(model),
                upper_bound=self.upper_bound(model),
            )
            for name, model in self.told_models()
        )

    def is_oracle(self, model: Model) -> bool:
        """Whether it may have learned from hidden truth."""
        return self.pretraining(model).labels == "truth" or (model.round > 0 and self.experiment(model).oracle)

    def upper_bound(self, model: Model) -> str | None:
        """The folder of the model of the target's labels that an experiment is compared with."""
        name = self.experiment(model).upper_bound if model.round else None
        return None if name is None else self.model_path(Model(model.task, name, model.seed, 0))

    def _task_report(self, task: str) -> TaskReport:
        settings = self.config.tasks[task]
        images = {name: self.task_path(task, "data", name, "images.csv") for name in self.splits(task)}
        return TaskReport(
            name=task,
            classes=settings.classes,
            colors=settings.colors,
            unlabeled=images["unlabeled"],
            truth=images.get("truth"),
            read_truth=self.read(task, "truth") if settings.truth else None,
            evaluation=tuple(settings.evaluation),
            subsets=tuple(settings.subsets),
            calibrations=tuple(
                CalibratorReport(
                    model=one.folder,
                    mode=mode,
                    file=self.calibration_path(one, mode, "calibration.csv"),
                    reliability=self.calibration_path(one, mode, "reliability.csv"),
                )
                for one, mode in self.calibrations
                if one.task == task
            ),
            labeled=self.task_path(task, "data", "labeled", "classes.csv"),
            statistics=self.task_path(task, "data", "labeled", "statistics.h5"),
            truth_classes=self.task_path(task, "data", "truth", "classes.csv") if settings.truth else None,
            preview=self.task_path(task, "preview.h5") if self.config.report.images else None,
            groups=settings.groups,
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

    def forget_finished(self) -> None:
        """Remove what trainings keep until a run has ended well."""
        shutil.rmtree(Path(self.config.results, ".finished"), ignore_errors=True)

    def train_code(self, model: Model) -> str:
        """Of the loop, the chosen algorithm and the network."""
        algorithm = registry.module_of(registry.ALGORITHMS[self.train(model).algorithm.name])
        return self.code("selftrain.train.stage", algorithm, *self._network(model), own=self._own_module(model))

    def calibrate_code(self, model: Model, mode: str) -> str:
        """Of the network, and of fitting the chosen calibrator."""
        return self._calibration_code("selftrain.calibrate.stage", model, self.calibration(mode))

    def reliability_code(self, model: Model, mode: str) -> str:
        """Of the network and its calibrator, and of measuring both."""
        return self._calibration_code("selftrain.calibrate.reliability", model, self.calibration(mode))

    def predict_code(self, model: Model, mode: str) -> str:
        """Of predicting with the network, and with its calibrator where there is one."""
        return self._calibration_code("selftrain.predict.stage", model, self.prediction(mode).calibration)

    def choose_code(self, model: Model) -> str:
        """Of predicting with the network again, as for the selection of a round."""
        return self._calibration_code("selftrain.label.choice", model, self.round(model).prediction.calibration)

    def _calibration_code(self, stage: str, model: Model, calibration: Calibration | None) -> str:
        chosen = [] if calibration is None else [registry.module_of(registry.CALIBRATORS[calibration.name])]
        return self.code(stage, *self._network(model), *chosen, own=self._own_module(model))

    def evaluate_code(self, model: Model) -> str:
        """Of scoring the network."""
        return self.code("selftrain.evaluate.stage", *self._network(model), own=self._own_module(model))

    def preview_code(self, task: str) -> str:
        """Of every network that predicts the images."""
        models = self.previewed(task)
        networks = sorted({module for model in models for module in self._network(model)})
        own = sorted({self._own_module(model) or "" for model in models})
        return " ".join(self.code("selftrain.preview.stage", *networks, own=one or None) for one in own)

    def select_code(self, model: Model) -> str:
        """Of the chosen policy."""
        policy = registry.module_of(registry.POLICIES[self._policy(model).name])
        return self.code("selftrain.select.stage", policy)

    def _network(self, model: Model) -> list[str]:
        """The modules of the chosen decoder, and of the encoder where it is not timm's."""
        told = self.pretraining(model).model
        chosen = [registry.DECODERS[told.decoder.name]]
        if told.module is None and told.encoder in registry.ENCODERS:
            chosen.append(registry.ENCODERS[told.encoder])
        return [registry.module_of(path) for path in chosen]

    def _own_module(self, model: Model) -> str | None:
        return self.pretraining(model).model.module


class Asked:
    """A graph as the rules ask it, at any time: what is wrong is told by `telling`."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __getattr__(self, name: str) -> Any:
        """The graph's own, where its methods tell what is wrong."""
        with telling():
            own = getattr(self._graph, name)
        return telling()(own) if callable(own) else own


@contextmanager
def telling() -> Iterator[None]:
    """Let a mistake, or a file that the system refuses, end Snakemake with one message and exit code 1.

    Of an exception in a function of a rule, Snakemake would tell a traceback; SystemExit is none to it.
    """
    try:
        yield
    except (UserError, OSError) as error:
        if os.environ.get("SELFTRAIN_DEBUG"):
            raise
        print(f"error: {said(error)}", file=sys.stderr)  # not by sys.exit, whose message Snakemake drops while jobs run
        sys.exit(1)


def use_this_python() -> None:
    """Let the rules' `python -m selftrain` be this checkout under the Python that runs Snakemake, activated or not.

    A rule's own conda environment comes before it on the path, and then runs the checkout as well.
    """
    for name, first in (("PATH", Path(sys.executable).parent), ("PYTHONPATH", SOURCE.parent)):
        os.environ[name] = os.pathsep.join([str(first), *filter(None, [os.environ.get(name)])])
