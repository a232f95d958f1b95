"""Kills a run of the whole graph at random moments, starts it again, and compares it with a run that was left alone.

    python tests/interruption.py --kills 100 --seed 0 --folder /tmp/interruption --csv kills.csv

Each pass makes all results anew and kills jobs of every kind on the way. A row per kill is appended to the table, and a
second call goes on where the first ended. tests/test_interruption.py is a short pass of the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
from leftovers import differences
from project import Project, tiny_config
from running import Process, jobs, processes

WAYS = {
    "SIGKILL job": "the job's process, as by the system when memory is short",
    "SIGTERM job": "the job's process",
    "SIGKILL all": "Snakemake and all its jobs, as by a power loss",
    "SIGTERM all": "Snakemake and all its jobs, as by a shutdown",
    "Ctrl-C": "SIGINT to Snakemake and all its jobs",
    "SIGKILL snakemake": "Snakemake alone; its jobs work on while it is started again",
}
SIGNALS = {way: getattr(signal, way.split()[0].replace("Ctrl-C", "SIGINT")) for way in WAYS}

TIMES = {"train": 2, "predict": 1, "label": 3, "merge": 3, "evaluate": 1}
"""How often jobs of a kind are killed in every way in a pass; with two processes, trainings alone and thrice."""

OTHERS = ("draw", "check", "list", "statistics", "calibrate", "reliability", "select", "signs", "choose", "alarms")
OTHERS += ("review", "score", "summary", "report")
"""Kinds that are killed in three ways in a pass."""

SPANS = (0.6, 0.6, 0.6, 1.1)
"""Shares of a job's usual life within which its moment is drawn: mostly such that few jobs end before it."""

IN_STEPS, STEPS_SECONDS = 0.7, 4
"""The share of trainings that are killed within so many seconds of a first step: most of a short job is its start."""

JOURNAL = """

_begin, _advance = _Run.__init__, _Run.advance


def _begin_noting(self, settings, paths, *rest):
    self.noted = paths.model
    _begin(self, settings, paths, *rest)


def _advance_noting(self, batches):
    told = _advance(self, batches)
    if self.fabric.is_global_zero:
        with open("journal.txt", "a") as file:
            file.write(f"{time.time()} {os.getpid()} {os.getppid()} {self.step} {self.noted}\\n")
    return told


_Run.__init__, _Run.advance = _begin_noting, _advance_noting
"""
"""What is added to the copied train stage: a line for every step, so that a step taken twice is seen."""


NETWORK = """
from torch import nn


def network(classes):
    first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(8, classes, 1))
"""
"""Quick, since most of a job's time should not be one forward; with what makes resuming hard."""


def config(processes: int = 1, *, every_kind: bool = True) -> dict:
    """A graph with jobs of every kind, and trainings of some seconds; or with the most important kinds only."""
    told = tiny_config()
    told |= {"shards": 2 if every_kind else 1, "machine": {"processes": processes, "checkpoint_seconds": 0.5}}
    told["model"] = {"module": "quick:network"}
    told["train"] = {"steps": 300, "batch_size": 4, "augmentation": {"crop": [32, 64]}}
    told["pretrain"] = {"start": {}}
    chosen = ("cbst", "classmix") if every_kind else ("dars",)
    told["experiments"] = {name: told["experiments"][name] for name in chosen}
    for experiment in told["experiments"].values():
        if "rounds" in experiment:
            experiment["rounds"] = experiment["rounds"][:1]
    if not every_kind:
        del told["tasks"]["tiny"]["truth"], told["tasks"]["tiny"]["calibration"]
    return told


def heed_interrupts() -> None:
    """As in a terminal; what a script runs in the background ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Kill:
    """A row of the table."""

    seed: int
    number: int
    processes: int
    job: str
    way: str
    after: float
    """Seconds since the job was first seen."""
    pid: int
    beside: str
    """Jobs that ran beside it."""
    unlocked: bool = False
    """Whether Snakemake's lock was left, so that it takes `--unlock` before the next start."""
    waited: bool = False
    """Whether a job of the next start waited for one of this."""
    steps_lost: int | None = None
    """Training steps that were taken again."""
    seconds_lost: float | None = None
    """What they had taken."""
    problems: str = ""


@dataclass
class Pass:
    """One run of the graph from nothing to its end, with kills on the way.

    Args:
        project: whose results are made; `reference` beside them is what they must be.
        plan: per kind of job the ways in which jobs of that kind are killed.
        durations: seconds that a job of a kind takes.
        draw: of moments.
        about: seed, number and processes, for the table.
        most: kills, at most.
    """

    project: Project
    plan: dict[str, list[str]]
    durations: dict[str, float]
    draw: random.Random
    about: dict[str, int]
    most: int = sys.maxsize
    kills: list[Kill] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)

    def run(self) -> list[Kill]:
        """Until the graph is done; returns the kills, whose problems say what was not as it should be."""
        while True:
            snakemake, output = self._start()
            kill = self._kill_one(snakemake)
            if kill is None:
                break
            self.kills.append(kill)
            kill.problems += self._problems()
            pd.DataFrame(self.kills).to_csv(self.project.folder / "kills.csv", index=False)
        told = output.read_text()
        self._note_waiting()
        left = self._problems(at_the_end=True)
        if snakemake.returncode != 0:
            left += f"; the last start ended with {snakemake.returncode}: {told[-2000:]}"
        self._note_steps()
        if self.kills:
            self.kills[-1].problems += left
        return self.kills

    def _start(self) -> tuple[subprocess.Popen, Path]:
        """As a user does, with `--unlock` where Snakemake would ask for it."""
        output = self.project.folder / f"snakemake-{len(self.sessions)}.txt"
        command = [sys.executable, "-m", "snakemake", *self.project.where]
        environment = os.environ | {"PYTHONPATH": str(self.project.folder / "src")}
        if any(self.project.folder.glob(".snakemake/locks/*")):
            self.kills[-1].unlocked = True
            done = self.project.snakemake("--unlock")
            assert done.returncode == 0, done.stderr
        with output.open("w") as file:
            told = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file, "start_new_session": True}
            told["preexec_fn"] = heed_interrupts
            snakemake = subprocess.Popen(command, cwd=self.project.folder, env=environment, **told)
        self.sessions.append(snakemake.pid)
        return snakemake, output

    def _kill_one(self, snakemake: subprocess.Popen) -> Kill | None:
        """Draw a moment in the life of each job, and kill the first whose moment comes; none if all ended before."""
        seen: dict[tuple[int, int], float] = {}
        moments: dict[tuple[int, int], float] = {}
        while snakemake.poll() is None:
            now, running = time.monotonic(), jobs(snakemake.pid)
            for key, job in running.items():
                if key not in seen:
                    seen[key] = now
                    life = self.draw.choice(SPANS) * self.durations.get(job.kind or "", 5)
                    in_steps = job.kind == "train" and self.draw.random() < IN_STEPS
                    moments[key] = math.inf if in_steps else now + self.draw.uniform(0, life)
                if moments[key] == math.inf and self._takes_steps(job.pid):
                    moments[key] = now + self.draw.uniform(0, STEPS_SECONDS)
                if now >= moments[key] and self.plan.get(job.kind or "") and len(self.kills) < self.most:
                    beside = sorted(other.kind or "" for one, other in running.items() if one != key)
                    try:
                        return self._kill(snakemake, job, now - seen[key], beside)
                    except ProcessLookupError:
                        continue  # it ended by itself meanwhile
            time.sleep(0.1)
        return None

    def _takes_steps(self, pid: int) -> bool:
        """Whether the last step of any training was one of this job."""
        journal = self.project.folder / "journal.txt"
        last = journal.read_text().splitlines()[-1:] if journal.exists() else []
        return any(str(pid) in line.split()[1:3] for line in last)

    def _kill(self, snakemake: subprocess.Popen, job: Process, after: float, beside: list[str]) -> Kill:
        assert job.kind is not None
        way = self.plan[job.kind][-1]
        if way.endswith("job"):
            os.kill(job.pid, SIGNALS[way])
        elif way == "SIGKILL snakemake":
            os.kill(snakemake.pid, SIGNALS[way])
        else:
            os.killpg(snakemake.pid, SIGNALS[way])
        self.plan[job.kind].pop()
        kill = Kill(**self.about, job=job.kind, way=way, after=round(after, 2), pid=job.pid, beside=" ".join(beside))
        try:
            snakemake.wait(180)
        except subprocess.TimeoutExpired:
            kill.problems += "; Snakemake did not end"
            os.killpg(snakemake.pid, signal.SIGKILL)
            snakemake.wait()
        if way != "SIGKILL snakemake":
            for _ in range(600):
                if not (left := [one for one in processes() if one.session == snakemake.pid]):
                    break
                time.sleep(0.1)
            else:
                kill.problems += f"; still there: {[one.arguments for one in left]}"
        return kill

    def _problems(self, *, at_the_end: bool = False) -> str:
        found = differences(self.project.folder / "results", self.project.folder / "reference", whole=at_the_end)
        if at_the_end:
            left = [one for one in processes() if one.session in self.sessions]
            found += [f"still there: {one.arguments}" for one in left]
        return "".join(f"; {one}" for one in found)

    def _note_waiting(self) -> None:
        """Which starts had to wait for a job of the one before."""
        for number, kill in enumerate(self.kills):
            told = (self.project.folder / f"snakemake-{number + 1}.txt").read_text()
            kill.waited = "waiting for its end" in told

    def _note_steps(self) -> None:
        """Which steps were taken twice, and whether two processes ever trained one model at once."""
        journal = read_journal(self.project.folder / "journal.txt")
        for kill in self.kills:
            if kill.job == "train":
                lost = steps_lost(journal, kill.pid)
                kill.steps_lost, kill.seconds_lost = lost
                if kill.way == "SIGKILL snakemake" and kill.steps_lost:
                    kill.problems += "; an orphan's steps were taken again"
        for model, steps in journal.groupby("model"):
            blocks = [pid for pid, _ in itertools.groupby(steps["pid"])]
            if len(blocks) != len(set(blocks)):
                self.kills[-1].problems += f"; two processes trained {model} at once: {blocks}"


def read_journal(file: Path) -> pd.DataFrame:
    """A row per training step, in the order of time."""
    names = ["time", "pid", "parent", "step", "model"]
    table = pd.read_csv(file, sep=" ", names=names) if file.exists() else pd.DataFrame(columns=names)
    return table.sort_values("time", kind="stable")


def steps_lost(journal: pd.DataFrame, pid: int) -> tuple[int, float]:
    """How many steps of a killed training the next one took again, and the seconds they had taken."""
    own = journal[(journal["pid"] == pid) | (journal["parent"] == pid)]
    if own.empty:
        return 0, 0.0
    later = journal[(journal["model"] == own["model"].iloc[0]) & (journal["time"] > own["time"].iloc[-1])]
    if later.empty:
        return 0, 0.0
    again = own[own["step"] >= later["step"].iloc[0]]
    seconds = again["time"].iloc[-1] - again["time"].iloc[0] if len(again) else 0.0
    return len(again), round(float(seconds), 2)


def prepare(folder: Path, told: dict) -> tuple[Project, dict[str, float]]:
    """A project with the results of a run that was left alone in `reference`, and the seconds that its jobs took."""
    fresh = not (folder / "reference").exists()
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not fresh:
        project = object.__new__(Project)
        project.folder = folder
        return project, json.loads((folder / "durations.json").read_text())
    project = Project(folder, told)
    stage = folder / "src/selftrain/train/stage.py"
    stage.write_text(stage.read_text() + JOURNAL)
    (folder / "quick.py").write_text(NETWORK)
    durations = _timed(project)
    (folder / "durations.json").write_text(json.dumps(durations))
    shutil.copytree(folder / "results", folder / "reference")
    return project, durations


def _timed(project: Project) -> dict[str, float]:
    """Run the graph to its end; returns the mean seconds of a job of each kind."""
    timed = Pass(project, {}, {}, random.Random(), {"seed": 0, "number": 0, "processes": 0})
    snakemake, output = timed._start()
    first: dict[tuple[int, int], tuple[str, float]] = {}
    last: dict[tuple[int, int], float] = {}
    while snakemake.poll() is None:
        for key, job in jobs(snakemake.pid).items():
            first.setdefault(key, (job.kind or "", time.monotonic()))
            last[key] = time.monotonic()
        time.sleep(0.05)
    assert snakemake.returncode == 0, output.read_text()
    table = pd.DataFrame(
        [(kind, last[key] - start) for key, (kind, start) in first.items()], columns=["kind", "seconds"]
    )
    return table.groupby("kind")["seconds"].mean().to_dict()


def clear(project: Project, *, data: bool = True) -> None:
    """Remove the results, for the next pass; those of the data only if asked for."""
    results = project.folder / "results"
    for path in [*results.glob("tiny/*"), *results.iterdir()]:
        if path != results / "tiny" and (data or path != results / "tiny/data"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (project.folder / "journal.txt").unlink(missing_ok=True)


def plan_of(draw: random.Random, processes: int) -> dict[str, list[str]]:
    """The ways in which jobs of each kind are killed in a pass, in a random order; in two processes trainings alone."""

    def every_way(times: int) -> list[str]:
        return [way for _ in range(times) for way in draw.sample(list(WAYS), len(WAYS))]

    if processes > 1:
        return {"train": every_way(3)}
    others = {kind: draw.sample(list(WAYS), 3) for kind in OTHERS}
    return {kind: every_way(times) for kind, times in TIMES.items()} | others


def main() -> None:
    """Kill until there are as many rows as asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="for the runs; kept")
    parser.add_argument("--csv", type=Path, required=True, help="the table, appended to")
    told = parser.parse_args()
    while True:
        rows = pd.read_csv(told.csv) if told.csv.exists() else pd.DataFrame(columns=["seed", "number"])
        rows = rows[rows["seed"] == told.seed]
        if len(rows) >= told.kills:
            break
        number = int(rows["number"].max()) + 1 if len(rows) else 0
        count = 1 + number % 2  # every other pass trains in two processes
        project, durations = prepare(told.folder / f"processes-{count}", config(count, every_kind=count == 1))
        clear(project)
        draw = random.Random(f"{told.seed} {number}")
        about = {"seed": told.seed, "number": number, "processes": count}
        kills = Pass(project, plan_of(draw, count), durations, draw, about, told.kills - len(rows)).run()
        table = pd.DataFrame([asdict(kill) for kill in kills])
        table.to_csv(told.csv, mode="a", header=not told.csv.exists(), index=False)
        bad = table[table["problems"] != ""]
        print(f"pass {number}: {len(table)} kills, {len(bad)} with problems", *bad["problems"], sep="\n", flush=True)


if __name__ == "__main__":
    main()
