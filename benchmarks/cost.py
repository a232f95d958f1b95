"""What the published experiments take, counted and not timed: parameters, floating-point operations, activations.

python benchmarks/cost.py [configs/dars/cityscapes-1-8-crop-361.yaml ...]     # none: all published ones

Networks are built of torch's fake tensors, whose shapes and operations are real and whose numbers are not. A step is a
forward and a backward pass over its images, of a mean teacher also its own forward pass; how many there are follows
from the published sizes of the data sets. Activations are what autograd keeps in float32; weights, gradients, the
optimizer's state and workspaces come on top. Predicting is one experiment's inference over the unlabeled images, all
rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from selftrain import registry
from selftrain.data.datasets import published_count
from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.models.auxiliary import auxiliary
from selftrain.models.segmenter import Segmenter
from selftrain.settings.data import Size, SplitSettings, working_size
from selftrain.settings.mixing import MeanTeacherMixingSettings
from selftrain.settings.model import ModelSettings
from selftrain.settings.training import TrainStageSettings
from selftrain.train.algorithms import Given
from selftrain.train.inputs import TrainFiles
from selftrain.train.losses import cross_entropy, of_outputs
from selftrain.train.stage import length

ROOT = Path(__file__).parents[1]
FOLDERS = ("mlsl", "dars", "classmix", "dacs", "curriculum")
SIZES = {
    "cityscapes": (1024, 2048),
    "gta5": (1052, 1914),
    "synthia": (760, 1280),
    "voc": (375, 500),
    "bdd100k": (720, 1280),
}
PETA, GIB = 1e15, 2**30
FAKE = FakeTensorMode(allow_non_fake_inputs=True)


def main() -> None:
    """Print a table, a row per model that is trained, all rounds of an experiment in one."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument(
        "configs", nargs="*", type=Path, default=[p for f in FOLDERS for p in sorted((ROOT / "configs" / f).glob("*"))]
    )
    rows = [row for config in told.parse_args().configs for row in costs(config)]
    print(pd.DataFrame(rows).to_string(index=False))


def costs(config: Path) -> list[dict[str, object]]:
    """Of each training of the first task and seed."""
    graph = Graph.load(config)
    task, seed = next(iter(graph.config.tasks)), graph.config.seeds[0]
    models = [model for model in (*graph.pretrained, *graph.rounds) if (model.task, model.seed) == (task, seed)]
    found: dict[str, dict[str, object]] = {}
    for model in models:
        row = cost(graph, model)
        row = {"config": f"{config.parent.name}/{config.stem}", "model": model.name} | row
        if model.name in found:  # a further round
            for column in ("steps", "training, PFLOP", "predicting, PFLOP"):
                row[column] += found[model.name][column]
        found[model.name] = row
    return list(found.values())


def cost(graph: Graph, model: Model) -> dict[str, object]:
    """Of one training, and of the predictions that it learns from."""
    settings = graph.train(model)
    split = graph.splits(model.task)[graph.learned_split(model)]
    size = settings.train.augmentation.crop or size_of(split)
    images, steps = settings.train.batch_size, steps_of(graph, model, settings)
    built = network(settings.model.model_dump_json(), len(settings.labeled.classes))
    learned, kept = a_step(built, size)
    taught = 0.0
    if isinstance(settings.algorithm, MeanTeacherMixingSettings):
        taught = a_pass(built, size) * images / 2
    return {
        "million parameters": round(sum(p.numel() for p in built.parameters()) / 1e6, 1),
        "images": images,
        "size": f"{size[0]}×{size[1]}",
        "steps": steps,
        "activations, GiB": round(kept * images / GIB, 1),
        "training, PFLOP": round((learned * images + taught) * steps / PETA),
        "predicting, PFLOP": round(predicting(graph, model) / PETA) if graph.is_offline(model) else 0,
    }


def predicting(graph: Graph, model: Model) -> float:
    """Floating-point operations of predicting the unlabeled images once."""
    split, told = graph.splits(model.task)["unlabeled"], graph.round(model).prediction
    settings = graph.pretraining(model).model.model_dump_json()
    built = network(settings, len(graph.config.tasks[model.task].classes))
    views = [(told.patches.size, told.patches.count)] if told.patches else [(size_of(split), 1)]
    return count(split) * sum(number * a_pass(built, size) for size, number in views)


def steps_of(graph: Graph, model: Model, settings: TrainStageSettings) -> int:
    """Optimizer steps."""
    splits = graph.splits(model.task)
    with tempfile.TemporaryDirectory() as folder:
        tables = {name: Path(folder, f"{name}.csv") for name in ("labeled", "unlabeled")}
        for name, split in (("labeled", splits[graph.learned_split(model)]), ("unlabeled", splits["unlabeled"])):
            pd.DataFrame({"image": range(count(split))}).to_csv(tables[name], index=False)
        nothing = dict.fromkeys(("model", "table", "manifest", "resume"), Path())
        build = registry.load(registry.ALGORITHMS, settings.algorithm.name)
        algorithm = build(settings.algorithm, Given(len(settings.labeled.classes), mean_size=torch.ones(1)))
        return length(settings, TrainFiles(**tables, **nothing), algorithm)


def count(split: SplitSettings) -> int:
    """Images of a split, as published."""
    assert split.dataset is not None
    images = published_count(split.dataset)
    drawn = images if split.draw is None else split.draw.of(images)
    return images - drawn if split.draw is not None and split.draw.rest else drawn


def size_of(split: SplitSettings) -> Size:
    """Height and width at which its images are worked on."""
    assert split.dataset is not None
    return working_size(split.size, SIZES[split.dataset.name])


@cache
def network(told: str, classes: int) -> Segmenter:
    """With all that it has in training, from its settings as JSON."""
    settings = ModelSettings.model_validate_json(told)
    with FAKE:
        built = Segmenter(settings, classes, load_weights=False)
        built.heads.update(auxiliary(built, settings, classes))
    return built


@cache
def a_step(model: Segmenter, size: Size) -> tuple[float, int]:
    """Operations of learning from an image, and the bytes that autograd keeps of it: half of those of two."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(storage)
        return tensor

    alive: list[torch.UntypedStorage] = []
    model.train()
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FAKE, FlopCounterMode(display=False) as flops, hooks:
        images, labels = torch.zeros(2, 3, *size), torch.zeros(2, *size, dtype=torch.uint8)
        outputs = model(images, apart=True)
        of_outputs(lambda logits: cross_entropy(logits, labels), outputs).backward()
    return flops.get_total_flops() / 2, sum(size for at, size in kept.items() if at not in weights) // 2


@cache
def a_pass(model: Segmenter, size: Size) -> float:
    """Operations of predicting an image."""
    model.eval()
    with FAKE, FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.zeros(1, 3, *size))
    return flops.get_total_flops()


if __name__ == "__main__":
    main()
