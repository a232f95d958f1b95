"""A network for trainings under Slurm: slow there whatever the machine, and telling where it ran."""

import json
import os
import time
from pathlib import Path

from torch import nn

SECONDS_A_PASS = 0.5
FILE = Path("passes.jsonl")
TOLD = ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")


def network(classes: int) -> nn.Module:
    return Paced(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, classes, 1))


class Paced(nn.Sequential):
    def forward(self, images):
        if "SLURM_JOB_ID" in os.environ:
            with FILE.open("a") as file:
                file.write(json.dumps({"time": time.time()} | {name: os.environ.get(name) for name in TOLD}) + "\n")
            time.sleep(SECONDS_A_PASS)
        return super().forward(images)
