"""The jobs behind a model, one after the other in this process: the graph without Snakemake.

Paths and settings are the graph's (`selftrain.graph`), so models share pretrainings, predictions and pseudo-labels, and
everything that reads a results folder reads this one. What is there already is not made again: beside the results
lies, for each job, a record of the settings that it had and of the jobs before it, and of no code: files that another
commit has left are taken, unless their format is another. A training that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selftrain import artifacts
from selftrain.calibrate.stage import calibrate
from selftrain.data import streets
from selftrain.data.check import check
from selftrain.data.tables import STATISTICS, write_images, write_statistics
from selftrain.evaluate.pseudo_labels import score
from selftrain.evaluate.stage import evaluate
from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.label import pseudo_labels
from selftrain.label.choice import choose
from selftrain.label.merge import merge
from selftrain.label.stage import label
from selftrain.predict import store
from selftrain.predict.stage import predict_shard
from selftrain.select.stage import select
from selftrain.settings.base import Settings
from selftrain.train.inputs import TrainFiles
from selftrain.train.stage import train


class Chain:
    """Each method makes what it is named after, and first whatever that is made from; it returns the path."""

    def __init__(self, graph: Graph, *, version: int, owner: str) -> None:
        """For one row of the study.

        Args:
            graph: of the row's config.
            version: of the study; what another version made is made anew.
            owner: the row's digest; what it is the first to need counts as its own work.
        """
        self.graph, self.version, self.owner = graph, version, owner
        self.threads = graph.config.machine.threads
        self.spent = {"seconds": 0.0, "cpu_seconds": 0.0}
        """By the jobs that are the owner's, in this run or an earlier one."""
        self._keys: dict[str, str] = {}

    def evaluated(self, model: Model) -> Path:
        """metrics.csv of a model."""
        graph, at = self.graph, functools.partial(self.graph.model_path, model)
        splits = graph.evaluation_splits(model.task)
        images = {split: self.listed(model.task, split) for split in splits}
        labeled, weights = self.counted(model.task, "labeled"), self.trained(model)
        tables = [at(name) for name in ("confusion.csv", "metrics.csv", "sizes.csv")]
        settings = graph.evaluate(model)
        work = functools.partial(evaluate, settings, weights, images, labeled, *map(Path, tables), threads=self.threads)
        self._once(tables, settings, [labeled, weights, *images.values()], work)
        return Path(at("metrics.csv"))

    def trained(self, model: Model) -> Path:
        """model.safetensors: of a pretraining, a round or an online training."""
        graph, at = self.graph, functools.partial(self.graph.model_path, model)
        files = {name: self._made(model, name, file) for name, file in graph.train_files(model).items()}
        outputs = {"model": at("model.safetensors"), "table": at("train.csv"), "manifest": at("manifest.json")}
        outputs |= {"examples": at("examples.h5")} if model.round and model.name in graph.showing else {}
        paths = TrainFiles(**files, **{n: Path(f) for n, f in outputs.items()}, resume=self._results(".resume"))
        settings = graph.train(model)
        work = functools.partial(train, settings, paths, graph.config.machine, code=f"study {self.version}")
        self._once(list(outputs.values()), settings, list(files.values()), work)
        return paths.model

    def _made(self, model: Model, name: str, file: str) -> Path:
        """An input of a training, once it is there."""
        if name == "weights" or (name == "start" and model.round == 0):
            return Path(file)
        if name == "start":
            return self.trained(self.graph.before(model))
        if name == "pseudo_labels":
            return self.labeled(model)
        split = Path(file).parent.name
        if file.endswith("images.csv"):
            return self.listed(model.task, split)
        return self.counted(model.task, split).with_name(Path(file).name)

    def labeled(self, model: Model) -> Path:
        """pseudo_labels.h5 of a round, scored where there is hidden truth."""
        graph, at = self.graph, functools.partial(self.graph.model_path, model)
        mode = graph.round(model).prediction.mode
        shards = range(graph.config.shards)
        predictions = [self.predicted(graph.before(model), mode, shard) for shard in shards]
        classes, cut = self.counted(model.task, "labeled"), Path(at("cut.csv"))
        selection, settings = graph.select(model), graph.label(model)
        self._once([cut], selection, [*predictions, classes], lambda: select(selection, predictions, classes, cut))
        output, table = Path(at("pseudo_labels.h5")), Path(at("pseudo_labels.csv"))

        def label_and_merge() -> None:
            parts = [Path(at(f"pseudo_labels-{shard}-of-{len(shards)}.h5")) for shard in shards]
            for shard, prediction, part in zip(shards, predictions, parts, strict=True):
                label(settings, prediction, cut, part, self._chosen(model, cut, shard))
            merge(settings, parts, predictions, cut, output, table)
            for file in (*parts, *output.parent.glob("chosen-*.h5")):
                file.unlink()

        told = [settings, pseudo_labels.FORMAT.version]
        self._once([output, table], told, [*predictions, cut], label_and_merge)
        if graph.config.tasks[model.task].truth:
            truth, scoring = self.listed(model.task, "truth"), graph.score(model.task)
            scores = Path(at("pseudo_label_scores.csv"))
            self._once([scores], scoring, [output, truth], lambda: score(scoring, output, truth, scores))
        return output

    def _chosen(self, model: Model, cut: Path, shard: int) -> Path | None:
        """A shard predicted again, where the policy's choice depends on the cut; merging removes it."""
        wanted = self.graph.chosen_file(model, shard).get("chosen")
        if wanted is None:
            return None
        before, mode = self.graph.before(model), self.graph.round(model).prediction.mode
        settings = self.graph.choose(model, shard, self.graph.config.shards)
        choose(settings, cut=cut, output=Path(wanted), threads=self.threads, **self._predict_files(before, mode))
        return Path(wanted)

    def predicted(self, model: Model, mode: str, shard: int) -> Path:
        """A shard of a model's predictions on the unlabeled images."""
        shards = self.graph.config.shards
        output = self.graph.model_path(model, "predictions", mode, f"shard-{shard}-of-{shards}.h5")
        settings, files = self.graph.predict(model, mode, shard, shards), self._predict_files(model, mode)
        work = functools.partial(predict_shard, settings, output=Path(output), threads=self.threads, **files)
        self._once([output], [settings, store.FORMAT.version], list(files.values()), work)
        return Path(output)

    def _predict_files(self, model: Model, mode: str) -> dict[str, Path]:
        files = {"model": self.trained(model), "images": self.listed(model.task, "unlabeled")}
        prediction = self.graph.prediction(mode)
        if prediction.spatial_prior is not None:
            files["statistics"] = self.counted(model.task, "labeled").with_name("statistics.h5")
        if prediction.calibration is not None:
            files["calibrator"] = self.calibrated(model, prediction.calibration.mode)
        return files

    def calibrated(self, model: Model, mode: str) -> Path:
        """calibrator.json of a model."""
        output = Path(self.graph.calibration_path(model, mode, "calibrator.json"))
        images, weights = self.listed(model.task, "calibration"), self.trained(model)
        settings = self.graph.calibrate(model, mode)
        work = functools.partial(calibrate, settings, weights, images, output, threads=self.threads)
        self._once([output], settings, [images, weights], work)
        return output

    def counted(self, task: str, split: str) -> Path:
        """classes.csv of a split, with statistics.h5 beside it."""
        images, settings = self.listed(task, split), self.graph.read(task, split)
        outputs = [images.with_name(name) for name in ("classes.csv", "statistics.h5")]
        told = [settings, STATISTICS.version]
        self._once(outputs, told, [images], lambda: write_statistics(settings, images, *outputs))
        return outputs[0]

    def listed(self, task: str, split: str) -> Path:
        """images.csv of a split, of a task whose files were looked at."""
        checked, output = self.checked(task), Path(self.graph.task_path(task, "data", split, "images.csv"))
        settings = self.graph.listing(task, split)
        told = [settings, self.graph.signature(task, split)]
        self._once([output], told, [checked], lambda: write_images(settings, output))
        return output

    def checked(self, task: str) -> Path:
        """checked.csv: every file of a task was read."""
        drawn = [self.drawn(task, split) for split, one in self.graph.splits(task).items() if one.streets is not None]
        output, settings = Path(self.graph.task_path(task, "data", "checked.csv")), self.graph.check(task)
        told = [settings, self.graph.signature(task, *self.graph.splits(task))]
        self._once([output], told, drawn, lambda: check(settings, output))
        return output

    def drawn(self, task: str, split: str) -> Path:
        """The folder of a split of built-in images."""
        folder, settings = Path(self.graph.drawn_folders(task, split)[0]), self.graph.splits(task)[split].streets
        assert settings is not None

        def draw() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            streets.write(folder, domain=settings.domain, count=settings.count, seed=settings.seed, size=settings.size)

        self._once([folder], settings, [], draw)
        return folder

    def _results(self, *parts: str) -> Path:
        return Path(self.graph.config.results, *parts)

    def _once(
        self, outputs: Sequence[Path | str], told: Any, inputs: Sequence[Path], work: Callable[[], object]
    ) -> None:
        """Do a job unless its record says that these outputs came of what it is told now and of such inputs."""
        first = str(outputs[0])
        if first in self._keys:
            return
        key = artifacts.digest([self.version, _plain(told), [self._keys.get(str(file), str(file)) for file in inputs]])
        record = self._results(".jobs", Path(first).relative_to(self.graph.config.results)).with_suffix(".json")
        known = json.loads(record.read_text()) if record.is_file() else {}
        if known.get("key") != key or not all(Path(file).exists() for file in outputs):
            started = time.monotonic(), time.process_time()
            work()
            spent = {"seconds": time.monotonic() - started[0], "cpu_seconds": time.process_time() - started[1]}
            known = {"key": key, "owner": self.owner, **spent}
            artifacts.write_json(record, known)
        if known["owner"] == self.owner:
            for name in self.spent:
                self.spent[name] += known[name]
        self._keys[first] = key


def _plain(told: Any) -> list[Any]:
    """Settings, or a list of them and of other values, as JSON has them."""
    each = told if isinstance(told, list) else [told]
    return [one.model_dump(mode="json") if isinstance(one, Settings) else one for one in each]
