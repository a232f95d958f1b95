"""A copy of the project in a folder of its own, run as a user runs it, and a config with a little of everything."""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "pandas", "pydantic", "smart_open", "snakemake_executor_plugin_slurm"])
"""Starts processes that have imported Snakemake and what it imports later: that is half the time of a plan."""


class Project:
    """A copy of the project in a folder of its own."""

    where: tuple[str, ...] = ("--cores", "2")
    """Options that say where jobs run."""
    python: str | Path = sys.executable
    """What runs the jobs of a forked run; with that of `forked_jobs` they are quick as well."""

    def __init__(self, folder: Path, config: dict) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        shutil.copy(ROOT / "Snakefile", folder)
        for name in ("workflow", "src", "envs"):
            self.copy(name)
        (folder / "profiles").symlink_to("workflow/profiles")
        self.configure(config)

    def copy(self, name: str) -> None:
        """A folder of the project; again, what was changed in the copy of it is as it was."""
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, self.folder / name, ignore=ignored, dirs_exist_ok=True)

    def configure(self, config: dict) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    @property
    def environment(self) -> dict[str, str]:
        """In which the code of this copy runs, each module compiled once, whatever is said of that elsewhere."""
        return {"PYTHONPATH": str(self.folder / "src"), "PYTHONDONTWRITEBYTECODE": ""}

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        environment = os.environ | self.environment
        command = [sys.executable, "-m", "snakemake", *self.where, *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900)

    def forked(self, *arguments: str) -> tuple[int | None, str]:
        """As `snakemake`, but sooner: its exit code, and what it tells on both streams."""
        return forked_snakemake(self.folder, self.environment, *self.where, *arguments, python=self.python)

    def dry_run(self, *arguments: str) -> str:
        """What a run tells that it would do."""
        code, told = self.forked("--dry-run", *arguments)
        assert code == 0, told
        return told

    def planned(self, *arguments: str) -> list[str]:
        """Jobs that a run would do, as 'rule' or 'rule wildcards'."""
        told = self.dry_run(*arguments)
        if "Nothing to be done" in told:
            return []
        blocks = re.findall(r"(?:rule|checkpoint) (\w+):\n(.*?)\n(?=\[|Job stats|Would)", told, re.DOTALL)
        assert blocks, told
        wildcards = [re.search(r"wildcards: (.*)", body) for _, body in blocks]
        return [
            f"{rule} {found[1]}" if found else rule
            for (rule, _), found in zip(blocks, wildcards, strict=True)
            if rule != "all"
        ]


def forked_snakemake(
    folder: Path, environment: dict[str, str], *arguments: str, python: str | Path = sys.executable
) -> tuple[int | None, str]:
    """What `python -m snakemake` does in a folder, with the code on the environment's PYTHONPATH."""
    output = folder / "forked.txt"
    process = FORKS.Process(target=_snakemake, args=(folder, environment, arguments, str(python), output))
    process.start()
    process.join(900)
    told = output.read_text()
    output.unlink()
    return process.exitcode, told


def _snakemake(
    folder: Path, environment: dict[str, str], arguments: tuple[str, ...], python: str, output: Path
) -> None:
    """In a process of its own."""
    from snakemake.cli import main

    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ |= environment
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.argv, sys.executable = ["snakemake", *arguments], python
    main()


def tiny_config() -> dict:
    streets = lambda domain, count, seed: {  # noqa: E731
        "streets": {"domain": domain, "count": count, "seed": seed, "size": [32, 64]}
    }
    rounds = [{"portion": 0.2}, {"portion": 0.5, "beta_min": 0.2, "beta_max": 0.5}]
    # Trained enough for the branches to agree on something.
    branches = {"model": {"branches": 2}, "train": {"steps": 16, "optimizer": {"lr": 0.01}}}
    names = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
    return {
        "tasks": {
            "tiny": {
                "classes": names.split(),
                "labeled": streets("synthetic", 4, 1),
                "unlabeled": streets("real", 7, 2),
                "truth": True,
                "calibration": streets("real", 2, 4),
                "evaluation": {"val": streets("real", 3, 3)},
            }
        },
        "train": {"steps": 2, "batch_size": 4, "augmentation": {"crop": [32, 64]}},
        "batch_size": 1,
        "pretrain": {"start": {}, "branched": branches, "oracle": branches | {"labels": "truth"}},
        "experiments": {
            "st": {"pretrain": "branched", "policy": "st", "prediction": {"agreement": 1}, "rounds": rounds[:1]},
            "dars": {"policy": {"name": "dars", "resolution": "float16"}, "rounds": rounds},
            "cbst": {
                "policy": {"name": "cbst", "choice": "normalized"},
                "prediction": {"spatial_prior": {}, "calibration": "temperature"},
                "rounds": rounds[:1],
            },
            "mlsl": {  # its second round starts from, and is predicted by, a model that has a head
                "policy": "cbst",
                "algorithm": {"name": "weak_labels", "channels": 8, "hidden": 8},
                "rounds": [rounds[0], {"portion": 0.5, "prediction": {"patches": {"size": [16, 32], "count": 9}}}],
            },
            "hybrid": {
                "policy": "da",
                "algorithm": {"name": "hybrid", "across": "source_to_target", "rare_classes": True},
                "rounds": [one.copy() for one in rounds],
            },
            "curriculum": {
                "pretrain": "branched",
                "upper_bound": "oracle",
                "algorithm": "curriculum",
                "train": {"class_weights": "small_and_frequent"},
            },
            "classmix": {"algorithm": "mean_teacher_mixing"},
            "aligned": {
                "algorithm": {"name": "mean_teacher_mixing", "alignment": {"target": "truth"}},
                "start": "pretrained",
                "oracle": True,
            },
        },
    }
