"""A whole run on tiny data: what it makes, and the job behind each file."""

import os
import shutil
from pathlib import Path

import tiny
from project import forked_snakemake
from walking import ROOT, Job, walk

SPLITS = {"labeled": 3, "unlabeled": 4, "val": 2}


def run_all(folder: Path) -> tuple[Path, list[Job]]:
    """Run the whole graph in a folder; returns it and its jobs."""
    for number, (name, count) in enumerate(SPLITS.items()):
        tiny.split(folder / name, [tiny.SIZE] * count, seed=number)
    split = {name: {"images": f"{name}/images/*", "labels": f"{name}/labels/*"} for name in SPLITS}
    config = {
        "batch_size": 2,
        "shards": 2,
        "tasks": {
            "toy": {
                "classes": list(tiny.CLASSES),
                "labeled": split["labeled"],
                "unlabeled": split["unlabeled"],
                "truth": True,
                "evaluation": {"val": split["val"]},
            }
        },
        "train": {"steps": 2, "batch_size": 2, "augmentation": {"crop": [24, 24]}},
        "pretrain": {"base": {"model": {"module": "tiny:network"}}},
        "experiments": {
            "dars": {
                "policy": "dars",
                "rounds": [{"portion": 0.5}, {"portion": 0.5, "prediction": {"spatial_prior": {}}}],
            }
        },
    }
    return folder, walk(folder, config)


def job_of(ran: tuple[Path, list[Job]], output: str) -> Job:
    """The job that makes a file, without that file and the others that it makes."""
    (job,) = [job for job in ran[1] if any(path.endswith(output) for path in job.outputs)]
    for path in job.outputs:
        if Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)
    return job


ROUND, BASE = "results/toy/dars/seed-0/round-1", "results/toy/pretrained/base/seed-0"
PREDICTION = f"{BASE}/predictions/single/shard-0-of-2.h5"
MODEL = f"{BASE}/model.safetensors"
TRAIN, LABELS = f"{ROUND}/model.safetensors", f"{ROUND}/pseudo_labels.h5"
SHARD = f"{ROUND}/pseudo_labels-0-of-2.h5"
OTHER = SHARD.replace("round-1", "round-2")
CLASSES = "results/toy/data/labeled/classes.csv"
STATISTICS = "results/toy/data/labeled/statistics.h5"
PREVIEW, PAGE = "results/toy/preview.h5", "results/report/index.html"
LABELED, IMAGES, VAL, TRUTH = (
    f"results/toy/data/{name}/images.csv" for name in ("labeled", "unlabeled", "val", "truth")
)
SUMMARY = "results/summary.csv"


def snakemake(*arguments: str) -> tuple[int | None, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    options = ["--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", "none", "--configfile", "config.yaml"]
    return forked_snakemake(Path.cwd(), {**os.environ, "PYTHONPATH": path}, *options, *arguments)
