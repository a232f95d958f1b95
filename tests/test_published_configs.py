"""Every config that is shipped: planned over trees in the layouts of the data sets, told in docs, and clear about what
is missing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import published
import pytest

from selftrain.graph import Graph

ROOT = Path(__file__).parents[1]
WHOLE = [path for path in sorted(ROOT.glob("configs/*/*.yaml")) if path.parent.name != "parts"]
BASES = {
    "curriculum-table-1": "camvid/day-to-dusk",
    "table-5.1": "classmix/cityscapes-1-8",
    "table-5.2": "dacs/gta5-to-cityscapes",
}
"""Ablations on any task, and the published experiment that they are of."""

PLAN = """
import json, sys
from snakemake.cli import main
runs, snakefile = json.loads(sys.argv[1]), sys.argv[2]
for files in runs:
    print("===", files[-1], flush=True)
    sys.argv = ["snakemake", "--snakefile", snakefile, "--dry-run", "--cores", "2", "--configfile", *files]
    try:
        main()
    except SystemExit as end:
        print("exit", end.code, flush=True)
"""
"""One process plans all: starting Snakemake takes most of the time."""


def files_of(path: Path) -> list[str]:
    """The file, after the one that it goes on top of, if any."""
    base = BASES.get(path.stem) if path.parent.name == "ablation" else None
    return [*([str(ROOT / f"configs/{base}.yaml")] if base else []), str(path)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run in, with data sets in `data`, weights, and what configs/camvid has in ../shared."""
    folder = tmp_path_factory.mktemp("published") / "project"
    for tree in published.TREES.values():
        tree(folder / "data")
    extra = folder / "data/cityscapes/leftImg8bit/train_extra/aachen"
    for number in range(9000):  # as many as are asked for
        (extra / f"extra_{number:06}_000019_leftImg8bit.png").touch()
    shared = folder.parent / "shared"
    for file in ("data/camvid/a.jpg", "data/camvid/a.png", "data/camvid/b.jpg", "data/camvid/b.png"):
        (shared / file).parent.mkdir(parents=True, exist_ok=True)
        (shared / file).touch()
    ours = [path for folder in ("camvid", "benchmark") for path in ROOT.glob(f"configs/{folder}/*.yaml")]
    named = re.findall(r"lists/\w+\.txt", "".join(path.read_text() for path in ours))
    for name in named:
        (shared / "data/camvid" / name).parent.mkdir(exist_ok=True)
        (shared / "data/camvid" / name).write_text("a.jpg a.png\nb.jpg b.png\n")
    encoders = ("tf_efficientnet_lite0", "mobilenetv2_100_headless")
    for weights in (folder / "weights/resnet38", *(shared / "weights" / name for name in encoders)):
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.with_name(f"{weights.name}.safetensors").touch()
    return folder


@pytest.fixture(scope="module")
def planned(project: Path) -> dict[str, str]:
    """What Snakemake plans for each config, by the config's path."""
    runs = [files_of(path) for path in WHOLE]
    command = [sys.executable, "-c", PLAN, json.dumps(runs), str(ROOT / "Snakefile")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    told = re.split(r"^=== (.*)\n", done.stdout, flags=re.MULTILINE)
    assert done.returncode == 0, told[0]
    return dict(zip(told[1::2], told[2::2], strict=True))


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_would_run(path: Path, planned: dict[str, str]) -> None:
    plan = planned[str(path)]
    assert "exit 0" in plan, plan
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", plan, flags=re.MULTILINE))
    config = Graph.load(*files_of(path)).config
    experiments = [one for name, one in config.experiments.items() if config.only is None or name in config.only]
    rounds = sum(len(one.rounds or [None]) * len(one.tasks or config.tasks) for one in experiments) * len(config.seeds)
    trainings = sum(int(jobs.get(rule, 0)) for rule in ("pretrain", "train", "train_showing"))
    assert int(jobs["evaluate"]) == trainings > rounds


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_is_missing_is_told(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = Graph.load(*files_of(path))
    told = "\n".join([*graph.split_problems, *graph.weight_problems])
    named = {
        split.dataset.name
        for task in graph.config.tasks
        for split in graph.splits(task).values()
        if split.dataset is not None
    }
    for name in named:
        assert re.search(f"^tasks.*: data/{name}: no such folder. .* lie in this folder", told, re.MULTILINE)
    for pretrain in graph.config.pretrain.values():
        if pretrain.model.weights not in (None, "hub"):
            assert f"model.weights: {pretrain.model.weights}: no such file" in told
    assert told


def test_each_published_experiment_names_its_table_and_is_in_the_docs() -> None:
    docs = (ROOT / "docs/papers.md").read_text()
    for path in WHOLE:
        if path.parent.name in ("camvid", "benchmark"):
            continue  # ours
        assert re.search(r"Tables? \d", path.read_text().splitlines()[0]), path
        assert str(path.relative_to(ROOT / "configs")) in docs, path


def test_parts_are_all_used() -> None:
    included = "".join(path.read_text() for path in ROOT.glob("configs/**/*.yaml"))
    for part in ROOT.glob("configs/parts/*.yaml"):
        assert re.search(rf"[\[ /]{re.escape(part.name)}[,\]]", included), part
