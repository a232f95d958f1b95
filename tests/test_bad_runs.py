"""What the system refuses, and settings, targets and places that no run can have: one message, nothing half-written."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finished_run import (
    BASE,
    LABELS,
    MODEL,
    PAGE,
    PREDICTION,
    PREVIEW,
    ROUND,
    SHARD,
    STATISTICS,
    TRAIN,
    job_of,
    snakemake,
)
from refusals import changed, unprivileged
from walking import ROOT

from selftrain.flow import model_at
from selftrain.graph import Graph

# What the system refuses.

WRITERS = [
    "data/checked.csv",
    "data/labeled/images.csv",
    STATISTICS,
    MODEL,
    PREDICTION,
    f"{BASE}/confusion.csv",
    f"{ROUND}/cut.csv",
    f"{ROUND}/signs.csv",
    f"{ROUND}/alarms.csv",
    SHARD,
    LABELS,
    f"{ROUND}/pseudo_label_scores.csv",
    "results/summary.csv",
    PREVIEW,
    PAGE,
]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "failing"])
@pytest.mark.parametrize("output", WRITERS)
def test_a_disk_that_is_full_or_fails(output, number, ran, results, refused, monkeypatch):
    """Every job: what was written is no longer taken when it is to reach the disk."""

    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    job = job_of(ran, output)
    monkeypatch.setattr(os, "fsync", failing)
    told = ("cannot be written", os.strerror(number), {errno.ENOSPC: "free some space"}.get(number, "the disk"))
    refused(*job.arguments, told=told, outputs=[Path(path) for path in job.outputs if Path(path).suffix])


@pytest.mark.parametrize("output", [MODEL, PREDICTION, STATISTICS, SHARD, LABELS, PREVIEW, PAGE])
def test_a_file_that_ends_half_way(output, ran, results, refused):
    """Libraries in C write these files; here each gets some bytes and then an error of the system's."""
    job = job_of(ran, output)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        refused(*job.arguments, told=("cannot be written (File too large; ",), outputs=[Path(output)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_results_that_may_only_be_read(ran, results, refused):
    job = job_of(ran, "summary.csv")
    Path("results").chmod(0o555)
    with unprivileged():
        refused(*job.arguments, told=("results/summary.csv: cannot be written (Permission denied; let it be writable",))
    Path("results").chmod(0o755)


def test_a_file_where_a_folder_is_needed(ran, results, refused):
    job = job_of(ran, SHARD)
    shutil.rmtree(ROUND.rpartition("/")[0])
    Path(ROUND).parent.write_text("")
    refused(*job.arguments[:-1], f"{ROUND}/x.h5", told=(f"{ROUND}/", "cut.csv"))
    job = job_of(ran, MODEL)
    shutil.rmtree(BASE)
    Path(BASE).write_text("")
    refused(*job.arguments, told=("cannot be written", "a file is where a folder is needed"))


# Runs


def test_a_gpu_that_is_asked_for_and_not_there(ran, results, refused, monkeypatch):
    job = job_of(ran, PREDICTION)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    told = ("CUDA_VISIBLE_DEVICES=1 asks for a GPU, and torch sees none; ", "to compute on the CPU")
    refused(*job.arguments, told=told, outputs=list(map(Path, job.outputs)))


SETTINGS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "more memory than there is": (
        MODEL,
        {"model.arguments": {"width": 10**11}},
        ("out of memory (", "can't allocate memory", "lower train.batch_size or train.augmentation.crop"),
    ),
    "a scale beyond all numbers": (PREDICTION, {"prediction.scales": [1e30]}, ("prediction.scales.0",)),
    "a size beyond all numbers": (
        PREDICTION,
        {"prediction.scales": [1e9]},
        ("out of memory (", "smaller ones"),
    ),
    "more memory than there is to predict": (
        PREDICTION,
        {"prediction.scales": [30000.0]},
        ("out of memory (", "let fewer images pass at once (batch_size)"),
    ),
    "a crop that no image fills": (
        MODEL,
        {"train.augmentation.crop": [24, 49]},
        ("train.augmentation.crop: 49 is more than any image is wide, 48 at the largest scale; give a smaller crop",),
    ),
    "a loss that is no number": (
        MODEL,
        {"train.optimizer": {"name": "sgd", "lr": 1e30}, "train.steps": 10},
        ("step 2: the loss 'labeled' is nan; images: labeled-", "Lower the learning rate, set clip_gradient"),
    ),
    "settings of another version": (MODEL, {"old": 1}, ("not the settings of this job", "run it by Snakemake")),
    "no number in settings": (
        MODEL,
        {"train.optimizer.lr": None},
        ("not the settings of this job (train.optimizer.lr",),
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_of_a_job(case, ran, results, refused):
    output, changes, told = SETTINGS[case]
    job = job_of(ran, output)
    settings = Path(job.arguments[job.arguments.index("--settings") + 1])
    settings.write_text(json.dumps(changed(json.loads(settings.read_text()), changes)))
    refused(*job.arguments, told=told, outputs=list(map(Path, job.outputs)))


TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a task": ("results/tyo/data/checked.csv", ("unknown task 'tyo'; did you mean 'toy'?",)),
    "a split": ("results/toy/data/vla/images.csv", ("tasks.toy: unknown split 'vla'; did you mean 'val'?",)),
    "a split that is not drawn": ("results/toy/data/val/drawn", ("tasks.toy.evaluation.val: is not drawn",)),
    "a review": ("results/toy/data/review.csv", ("tasks.toy.review: is missing",)),
    "a pretraining": (MODEL.replace("base", "bsae"), ("unknown pretraining 'bsae'; did you mean 'base'?",)),
    "an experiment": (LABELS.replace("dars", "drs"), ("unknown experiment 'drs'; did you mean 'dars'?",)),
    "a round": (LABELS.replace("round-1", "round-9"), ("round-9: no round 9; 'dars' has rounds 1 to 2",)),
    "a seed": (TRAIN.replace("seed-0", "seed-7"), ("seed-7/round-1: no seed 7; the config has seeds 0",)),
    "a seed in other digits": (TRAIN.replace("seed-0", "seed-00"), ("MissingRuleException",)),
    "a shard of pseudo-labels": (
        SHARD.replace("-0-of", "-5-of"),
        ("no shard 5-of-2; with `shards: 2` there are 0-of",),
    ),
    "a shard of predictions": (PREDICTION.replace("-0-of", "-9-of"), ("no shard 9-of-2; ", "0-of-2 to 1-of-2")),
    "other shards": (PREDICTION.replace("-of-2", "-of-1"), ("no shard 0-of-1; ", "0-of-2 to 1-of-2")),
    "a mode": (PREDICTION.replace("single", "sngle"), ("unknown prediction mode 'sngle'; did you mean 'single'?",)),
    "a calibrator": (f"{BASE}/calibration/matrix/calibrator.json", ("tasks.toy: unknown split 'calibration'",)),
    "a file": (f"{ROUND}/metrix.csv", ("MissingRuleException", f"{ROUND}/metrix.csv")),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets_that_do_not_exist(case, ran, results):
    target, told = TARGETS[case]
    code, said = snakemake("--cores", "1", "--", target)
    assert code == 1 and "Traceback" not in said and not [part for part in told if part not in said], said
    assert not Path(target).exists() and not list(Path(".snakemake").glob("locks/*"))


def test_settings_that_cannot_be_written(ran, results):
    """Those of a job, which are written while Snakemake plans."""
    graph = Graph.load("config.yaml")
    settings = Path(graph.told(graph.select(model_at("toy", "dars/seed-0/round-1"))))
    settings.unlink()
    settings.mkdir()
    code, said = snakemake("--dry-run", "--force", "--", f"{ROUND}/cut.csv")
    assert code == 1 and "Traceback" not in said, said
    assert f"error: {settings}: cannot be written (Is a directory; a folder is where a file is needed)" in said


@pytest.mark.parametrize("folder", ["/proc", "x" * 300], ids=["system", "long"])
def test_results_that_cannot_be_written(folder, ran, results):
    code, said = snakemake("--dry-run", "--config", f"results={folder}")
    assert code == 1 and "Traceback" not in said and f"error: {folder}/.settings" in said, said


def test_two_runs_in_one_directory(ran, results):
    """The lock of a run that is at work, as Snakemake keeps it."""
    locks = Path(".snakemake/locks")
    locks.mkdir(parents=True, exist_ok=True)
    (locks / "0.output.lock").write_text(f"{PREDICTION}\n")
    Path(PREDICTION).unlink()
    code, said = snakemake("--cores", "1", "--", PREDICTION)
    assert code != 0 and "LockException" in said and "Traceback" not in said, said
    assert not Path(PREDICTION).exists()


def test_a_traceback_is_there_for_who_asks_for_it(tmp_path):
    for option in ([], ["--debug"]):
        command = [sys.executable, "-m", "selftrain", *option, "check", tmp_path / "no.yaml"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and "no.yaml" in done.stderr
        assert ("Traceback" in done.stderr) == bool(option), done.stderr
