"""A network for trainings under Slurm: slow there whatever the machine, and telling where it ran."""

import json
import os
import time
from pathlib import Path

from torch import nn

SECONDS_A_PASS = 0.5
FILE = Path("passes.jsonl")
TOLD = {"SLURM_JOB_ID": "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES": "GIVEN_DEVICES"}
"""Columns, and the variables that they are of: see sitecustomize.py."""


def network(classes: int) -> nn.Module:
    return Paced(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, classes, 1))


class Paced(nn.Sequential):
    def forward(self, images):
        if "SLURM_JOB_ID" in os.environ:
            with FILE.open("a") as file:
                file.write(
                    json.dumps({"time": time.time()} | {column: os.environ.get(name) for column, name in TOLD.items()})
                    + "\n"
                )
            time.sleep(SECONDS_A_PASS)
        return super().forward(images)
