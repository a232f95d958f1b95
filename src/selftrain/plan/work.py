"""What a job of the graph has to work through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean

import torch

from selftrain import registry
from selftrain.data.decoding import image_size
from selftrain.data.images import shard_of
from selftrain.data.listing import list_split
from selftrain.data.sizes import working_size
from selftrain.data.tables import read_images, working_sizes
from selftrain.flow import Model, model_at
from selftrain.graph import Graph
from selftrain.models.segmenter import Segmenter
from selftrain.plan.jobs import Job
from selftrain.predict.patches import tiles
from selftrain.settings.data import Size
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import InferenceSettings
from selftrain.settings.training import TrainStageSettings
from selftrain.train.algorithms import Algorithm, Given
from selftrain.train.length import length

PREDICTIONS, PSEUDO_LABELS = 1.5, 0.5
"""Bytes a pixel on disk; docs/performance.md has measured ones."""
FLOAT = 4
"""Bytes of a parameter."""
TEACHER = 1 / 3
"""Of the work of learning an image (a forward and, twice as much, a backward pass), what a teacher's look takes."""
SAMPLED = 50
"""Images whose size is looked at, where there is no table of all sizes yet."""


@dataclass(frozen=True)
class Images:
    """A split: how many images, and the mean of their areas as they are worked on, in pixels."""

    count: int
    area: float
    size: Size
    """Height and width of the first one."""


@dataclass(frozen=True)
class Work:
    """What a job works through."""

    images: int = 0
    forward: int = 0
    """Passes of the network without learning."""
    steps: int = 0
    seen: float = 0.0
    """Pixels of those passes."""
    learned: float = 0.0
    """Pixels that pass forward and backward; a teacher's look at one counts a third."""
    bytes: float = 0.0
    """On disk, of what stays."""
    pretrain: str | None = None
    """The pretraining whose network works."""


class Workload:
    """The work of each job of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self._splits = graph, dict[tuple[str, str], Images]()

    def of(self, job: Job) -> Work:
        """What a job works through; nothing that counts, of most."""
        task, *place = Path(job.output).relative_to(self.graph.config.results).parts
        if job.rule in ("pretrain", "train", "train_showing"):
            return self._train(model_at(task, "/".join(place[:3])))
        if job.rule == "predict":
            model, mode = model_at(task, "/".join(place[:3])), place[4]
            return self._shard(model, mode, place[5], kept=self.graph.config.keep_predictions)
        if job.rule == "choose":
            model = model_at(task, "/".join(place[:3]))
            mode = self.graph.round(model).prediction.mode
            return self._shard(self.graph.before(model), mode, place[3], kept=False)
        if job.rule == "evaluate":
            splits = self.graph.evaluation_splits(task)
            return self._look(model_at(task, "/".join(place[:3])), splits, self.graph.config.evaluation)
        if job.rule in ("calibrate", "reliability"):
            splits = ["calibration"] if job.rule == "calibrate" else self.graph.reliability_splits(task)
            return self._look(model_at(task, "/".join(place[:3])), splits, InferenceSettings())
        if job.rule == "preview":
            return self._preview(task)
        if job.rule == "merge":
            unlabeled = self.split(task, "unlabeled")
            return Work(unlabeled.count, bytes=PSEUDO_LABELS * unlabeled.count * unlabeled.area)
        return Work()

    def split(self, task: str, name: str) -> Images:
        """How many images a split has, and how large they are."""
        if (task, name) not in self._splits:
            self._splits[task, name] = self._counted(task, name)
        return self._splits[task, name]

    def _counted(self, task: str, name: str) -> Images:
        settings = self.graph.splits(task)[name]
        table = Path(self.graph.task_path(task, "data", name, "images.csv"))
        if table.is_file():
            sizes = working_sizes(read_images(table), settings.size)
            return _images(len(sizes), sizes)
        if settings.streets is not None:
            return _images(settings.streets.count, [working_size(settings.size, settings.streets.size)])
        items = list_split(self.graph.listing(task, name))
        some = items[:: -(-len(items) // SAMPLED) or 1]
        return _images(len(items), [working_size(settings.size, image_size(item.image)) for item in some])

    def _train(self, model: Model) -> Work:
        settings = self.graph.train(model)
        algorithm = _algorithm(settings)
        images = {name: self.split(model.task, name).count for name in self._seen(model)}
        steps = length(settings, images, algorithm)
        height, width = self.crop(model)
        batch = settings.train.batch_size
        taught = TEACHER * algorithm.taught if settings.train.teacher is not None else 0
        learned = steps * batch * height * width * (1 + taught)
        stays = FLOAT * parameters(settings.model, len(settings.labeled.classes))
        return Work(steps * batch, 0, steps, 0, learned, stays, self._network(model))

    def crop(self, model: Model) -> Size:
        """Height and width of what a step learns of an image; without a crop, of the first labeled image."""
        return self.graph.train(model).train.augmentation.crop or self.split(model.task, "labeled").size

    def _network(self, model: Model) -> str:
        return self.graph.experiment(model).pretrain if model.round else model.name

    def _seen(self, model: Model) -> list[str]:
        """The splits that a training sees, by the names that `epochs_of` gives them."""
        return ["labeled", "unlabeled"] if "unlabeled" in self.graph.train_files(model) else ["labeled"]

    def _shard(self, model: Model, mode: str, name: str, *, kept: bool) -> Work:
        shard, shards = (int(part) for part in Path(name).stem.split("-")[1::2])
        unlabeled = self.split(model.task, "unlabeled")
        count = len(shard_of(unlabeled.count, self.graph.config.batch_size, shard, shards))
        passes, pixels = views(self.graph.prediction(mode), unlabeled)
        stays = PREDICTIONS * count * unlabeled.area if kept else 0
        return Work(count, count * passes, 0, count * pixels, 0, stays, self._network(model))

    def _look(self, model: Model, splits: list[str], inference: InferenceSettings) -> Work:
        found = [self.split(model.task, name) for name in splits]
        each = [views(inference, one) for one in found]
        forward = sum(one.count * passes for one, (passes, _) in zip(found, each, strict=True))
        seen = sum(one.count * pixels for one, (_, pixels) in zip(found, each, strict=True))
        return Work(sum(one.count for one in found), forward, 0, seen, 0, 0, self._network(model))

    def _preview(self, task: str) -> Work:
        models, unlabeled = self.graph.previewed(task), self.split(task, "unlabeled")
        count = len(models) * min(self.graph.config.report.images, unlabeled.count)
        passes, pixels = views(self.graph.config.evaluation, unlabeled)
        return Work(count, count * passes, 0, count * pixels, 0, 0, self._network(models[0]))


def _images(count: int, sizes: Sequence[Size]) -> Images:
    """So many images, of sizes that are all of theirs or stand for them."""
    return Images(count, mean(math.prod(size) for size in sizes) if sizes else 0, sizes[0] if sizes else (0, 0))


def views(inference: InferenceSettings, images: Images) -> tuple[int, float]:
    """Forward passes that one of these images takes, a patch counted as one, and the pixels of all of them."""
    turned = 2 if inference.flip else 1
    factor = turned * sum(scale**2 for scale in inference.scales)
    each = turned * len(inference.scales)
    if inference.patches is None:
        return each, factor * images.area
    patches, tiling = inference.patches, tiles(images.size, inference.patches.size)
    count = max(patches.count, tiling) if patches.cover else patches.count
    whole = int(patches.whole_image or count < tiling)
    return each * (count + whole), factor * (count * math.prod(patches.size) + whole * images.area)


def _algorithm(settings: TrainStageSettings) -> Algorithm:
    """The algorithm of a training, which needs what is given only for its losses."""
    classes = torch.ones(len(settings.labeled.classes))
    given = Given(len(classes), mean_size=classes, distribution=classes, place=(settings.seed, settings.round))
    algorithm: Algorithm = registry.load(registry.ALGORITHMS, settings.algorithm.name)(settings.algorithm, given)
    return algorithm


@cache
def _counted_parameters(settings: str, classes: int) -> int:
    with torch.device("meta"):
        network = Segmenter(ModelSettings.model_validate_json(settings), classes, load_weights=False)
    return sum(one.numel() for one in network.parameters())


def parameters(settings: ModelSettings, classes: int) -> int:
    """Of a network."""
    return _counted_parameters(settings.model_dump_json(), classes)
