"""A copy of the project in a folder of its own, run as a user runs it, and a config with a little of everything."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


class Project:
    """A copy of the project in a folder of its own."""

    where: tuple[str, ...] = ("--cores", "2")
    """Options that say where jobs run."""

    def __init__(self, folder: Path, config: dict) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        shutil.copy(ROOT / "Snakefile", folder)
        for name in ("workflow", "src", "envs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        self.configure(config)

    def configure(self, config: dict) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(self.folder / "src")}
        command = [sys.executable, "-m", "snakemake", *self.where, *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900)

    def planned(self, *arguments: str) -> list[str]:
        """Jobs that a run would do, as 'rule' or 'rule wildcards'."""
        done = self.snakemake("--dry-run", *arguments)
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
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
