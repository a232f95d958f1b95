"""What the graph costs: `python benchmarks/graph.py`.

(a) Planning, and finding nothing to do, in a graph of thousands of jobs whose stages make empty files.
(b) A whole tiny graph on one core against the same commands one after another.
(c) Starting Python and importing, for a stage without and one with torch.
"""

from __future__ import annotations

import argparse
import os
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml
from measures import Line, show

ROOT = Path(__file__).parents[1]
STAND_IN = '''"""Instead of a stage: makes what it is told of and is not there; a path without a suffix is a folder."""

import os
import sys

told = [argument.rpartition("=")[2] for argument in sys.argv[1:]]
beside = [os.path.join(os.path.dirname(path), name) for path in told if path.endswith("/report/index.html")
          for name in ("figures", "images")]
for path in told + beside:
    if "/" in path and not os.path.exists(path):
        folder, file = os.path.split(path) if os.path.splitext(path)[1] else (path, "")
        os.makedirs(folder, exist_ok=True)
        if file:
            open(path, "w").close()
'''
TOLD_CHILDREN = """
import atexit, os, sys
from snakemake.cli import main
atexit.register(lambda: print("children's seconds:", sum(os.times()[2:4]), file=sys.stderr))
main()
"""
METHODS: tuple[dict[str, Any], ...] = (
    {"policy": "st"},
    {"policy": "cbst"},
    {"policy": "da"},
    {"policy": {"name": "dars", "resolution": "float16"}},
    {"policy": {"name": "cbst", "choice": "normalized"}, "prediction": {"spatial_prior": {}}},
    {"policy": "cbst", "prediction": {"patches": {"size": [16, 32], "count": 9}}, "algorithm": "weak_labels"},
)

STARTED = {
    "train": ("train", "train_showing"),
    "predict": ("predict", "choose", "evaluate", "calibrate", "reliability", "preview"),
    "select": (),
}
"""Rules whose jobs start with about the same imports, by one of them; select stands for all that need no torch."""


def config(experiments: int, rounds: int, seeds: int, shards: int) -> dict[str, Any]:
    """Each method in turn, on a few tiny drawn images."""
    portions = [{"portion": round((number + 1) / (rounds + 1), 3)} for number in range(rounds)]
    drawn = {"domain": "real", "size": [32, 64]}
    return {
        "tasks": {
            "tiny": {
                "classes": "camvid",
                "labeled": {"streets": drawn | {"count": 4, "seed": 1}},
                "unlabeled": {"streets": drawn | {"count": 4, "seed": 2}},
                "truth": True,
                "evaluation": {"val": {"streets": drawn | {"count": 2, "seed": 3}}},
            }
        },
        "seeds": list(range(seeds)),
        "shards": shards,
        "train": {"steps": 2, "batch_size": 2, "augmentation": {"crop": [32, 64]}},
        "pretrain": {"start": {}},
        "experiments": {
            f"experiment-{number}": method | {"rounds": portions}
            for number, method in enumerate(islice(cycle(METHODS), experiments))
        },
    }


@dataclass(frozen=True)
class Spent:
    """Seconds of a process: by the clock, of CPU with and without its children; and what it told."""

    wall: float
    cpu: float
    own: float
    told: str

    def __str__(self) -> str:
        return f"{self.wall:.1f} s, {self.cpu:.1f} of CPU"


@dataclass(frozen=True)
class Whole:
    """A graph planned, run, and found done; its commands in an order that they can be called in, its jobs by rule."""

    commands: list[str]
    rules: dict[str, int]
    planning: Spent
    running: Spent
    again: Spent


class Project:
    """A copy of the project, in a folder of its own."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, stand_in: bool) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copy(ROOT / "Snakefile", folder)
        for name in ("workflow", "src", "envs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        (folder / "profiles").symlink_to("workflow/profiles")
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        if stand_in:
            (folder / "src/selftrain/__main__.py").write_text(STAND_IN)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(folder / "src")}

    def python(self, *arguments: str) -> Spent:
        """Call a Python of its own."""
        return self._spent([[sys.executable, *arguments]])

    def _spent(self, calls: Sequence[Sequence[str]]) -> Spent:
        before, start, told = os.times(), time.perf_counter(), ""
        for call in calls:
            done = subprocess.run(call, cwd=self.folder, env=self.environment, capture_output=True, text=True)
            told = done.stdout + done.stderr
            if done.returncode:
                raise RuntimeError(f"{call}:\n{told[-4000:]}")
        wall, after = time.perf_counter() - start, os.times()
        whole = sum(after[2:4]) - sum(before[2:4])
        children = re.search(r"^children's seconds: (.*)$", told, re.MULTILINE)
        return Spent(wall, whole, whole - float(children[1] if children else 0), told)

    def snakemake(self, *arguments: str) -> Spent:
        """A call of Snakemake, its jobs apart."""
        return self.python("-c", TOLD_CHILDREN, *arguments)

    def whole(self, *, cores: int) -> Whole:
        """Plan, run, and run again."""
        planning = self.snakemake("--dry-run", "--printshellcmds")
        commands = re.findall(r"^Shell command: (python .+)$", planning.told, re.MULTILINE)
        rules = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", planning.told, re.MULTILINE)}
        assert 0 < len(commands) == rules["total"] - 1, "a job's command is missing"  # of `all`, there is none
        running, again = (self.snakemake("--cores", str(cores)) for _ in range(2))
        assert "Nothing to be done" in again.told, again.told[-4000:]
        return Whole(commands, rules, planning, running, again)

    def forget(self) -> None:
        """As before any job, but for what the jobs are told, which planning writes."""
        for path in (self.folder / "results").iterdir():
            if path.name != ".settings":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def by_hand(self, commands: Sequence[str]) -> Spent:
        """Call commands one after another, as Snakemake calls them."""
        told = "set -euo pipefail\n"
        calls = [["bash", "-c", told + command] for command in commands]
        return self._spent(calls)

    def shares(self) -> dict[str, float]:
        """Of a run with nothing to do, how much of the time goes into the project's own code, by cProfile."""
        self.python("-m", "cProfile", "-o", "profile", "-m", "snakemake", "--cores", "1")
        profile = pstats.Stats(str(self.folder / "profile"))

        def share(kind: str, name: str) -> float:
            """Of functions in files of a kind, with all that they call."""
            spent = [
                t[3] for (file, _, function), t in profile.stats.items() if file.endswith(kind) and function == name
            ]
            return sum(spent) / profile.total_tt

        return {
            "parsing the rules, selftrain's imports and config included": share("Snakefile", "<module>"),
            "asking selftrain for the jobs' inputs and params": share(".smk", "<lambda>"),
        }


def of_thousands(project: Project, whole: Whole, *, profile: bool) -> list[Line]:
    """Planning and finding nothing to do."""
    count, own = len(whole.commands), whole.running.own
    reading = project.python("-c", "from selftrain.graph import Graph; Graph.load('config.yaml').check_files()")
    return [
        Line(f"planning {count} jobs (dry run)", str(whole.planning)),
        Line(f"nothing to do in {count} jobs", str(whole.again), against="Snakemake alone, 6125 jobs: 5.2 s"),
        Line("- starting Snakemake alone", str(project.snakemake("--version"))),
        Line("- reading and checking the config, in a Python of its own", str(reading)),
        *(
            Line(f"- {part}", f"{share:.0%} by cProfile")
            for part, share in (project.shares() if profile else {}).items()
        ),
        Line(
            f"Snakemake itself while {count} jobs run",
            f"{own:.0f} CPU-s, {own / count * 1e3:.0f} ms a job",
            against="Snakemake alone, 6125 jobs: 160 s, 26 ms",
        ),
    ]


def against_hand(project: Project, whole: Whole) -> list[Line]:
    """A graph on one core and its commands by hand."""
    project.forget()
    hand, run, count = project.by_hand(whole.commands), whole.running, len(whole.commands)
    return [
        Line(
            f"a graph of {count} jobs, one core",
            str(run),
            against=f"its commands by hand: {hand}",
            ratio=f"{run.wall / hand.wall:.2f}, CPU {run.cpu / hand.cpu:.2f}",
        ),
        Line(
            "- added by Snakemake",
            f"{run.own:.1f} CPU-s, {(run.own - whole.again.own) / count:.3f} a job above nothing to do",
            against=f"nothing to do: {whole.again.own:.1f} CPU-s",
        ),
    ]


def of_demo(project: Project) -> list[Line]:
    """The demo with nothing to do, and what its jobs spend before they begin."""
    whole = project.whole(cores=2)
    light = {"predict": "from selftrain import uncompiled; uncompiled.import_networks(); "}
    start = {
        name: project.python("-c", f"{light.get(name, '')}import selftrain.cli, selftrain.{name}.stage")
        for name in STARTED
    }
    jobs = {name: sum(whole.rules.get(rule, 0) for rule in rules) for name, rules in STARTED.items()}
    jobs["select"] = len(whole.commands) - sum(jobs.values())
    spent = sum(start[name].cpu * count for name, count in jobs.items())
    return [
        Line(f"nothing to do in the demo's {len(whole.commands)} jobs", str(whole.again), to_reach="< 5 s"),
        *(
            Line(f"starting and importing: {name}", str(start[name]), against=f"{jobs[name]} such jobs")
            for name in jobs
        ),
        Line(
            "all such starts of the demo",
            f"{spent:.0f} CPU-s",
            against="ten minutes of two cores: 1200 CPU-s",
            ratio=f"{spent / 1200:.0%}",
        ),
    ]


def measure(arguments: Sequence[str]) -> list[Line]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny graph, no stage really run")
    for name, number in (("experiments", 6), ("rounds", 5), ("seeds", 3), ("shards", 32)):
        parser.add_argument(f"--{name}", type=int, default=number)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if told.quick:
            project = Project(folder / "quick", config(1, 1, 1, 2), stand_in=True)
            whole = project.whole(cores=1)
            return of_thousands(project, whole, profile=False) + against_hand(project, whole)
        project = Project(folder / "tiny", config(1, 1, 1, 1), stand_in=False)
        lines = against_hand(project, project.whole(cores=1))
        lines += of_demo(Project(folder / "demo", yaml.safe_load((ROOT / "config.yaml").read_text()), stand_in=True))
        sizes = config(told.experiments, told.rounds, told.seeds, told.shards)
        project = Project(folder / "thousands", sizes, stand_in=True)
        return of_thousands(project, project.whole(cores=2), profile=True) + lines


if __name__ == "__main__":
    show(measure(sys.argv[1:]))
