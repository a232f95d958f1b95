"""The graph on a Slurm of one node with fake GPUs: who runs where, and what a time limit does to a training."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import yaml
from project import ROOT, Project

from selftrain.label.pseudo_labels import PseudoLabels

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (Debian: slurm-wlm, munge)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run a Slurm"),
]

FILE = "passes.jsonl"
LONG = "pretrained/long/seed-0"
STEPS = 200
"""Of the long training: at half a second each, more than the minute and a half after which a limit of one has hit."""
QUICK = "pretrained/quick/seed-0"
SHARD = f"results/tiny/{QUICK}/predictions/single/shard-0-of-4.h5"
ROUND = "results/tiny/st/seed-0/round-1"
DATA = [f"results/tiny/data/{file}" for file in ("labeled/classes.csv", "labeled/images.csv", "unlabeled/images.csv")]
TARGETS = (f"results/tiny/{LONG}/model.safetensors", f"{ROUND}/pseudo_labels.h5")


def config() -> dict:
    streets = lambda domain, count, seed: {  # noqa: E731
        "streets": {"domain": domain, "count": count, "seed": seed, "size": [32, 64]}
    }
    return {
        "tasks": {
            "tiny": {
                "classes": "camvid",
                "labeled": streets("synthetic", 4, 1),
                "unlabeled": streets("real", 16, 2),
                "evaluation": {"val": streets("real", 2, 3)},
            }
        },
        "model": {"module": "paced:network"},
        "train": {"steps": 4, "batch_size": 4, "augmentation": {"crop": [32, 64]}},
        "machine": {"checkpoint_seconds": 1},
        "batch_size": 1,
        "shards": 4,
        "pretrain": {"quick": {}, "long": {"train": {"steps": STEPS}}},
        "experiments": {"st": {"policy": "st", "rounds": [{"portion": 0.2}]}},
    }


class PacedProject(Project):
    """A copy of the project, run by its profile for Slurm or, without, here."""

    def __init__(self, folder) -> None:
        super().__init__(folder, config())
        for file in ("paced.py", "sitecustomize.py"):
            shutil.copy(ROOT / "tests/slurm" / file, folder / "src")

    def use_slurm(self, gpus: int = 1) -> None:
        """By the profile, edited as for a cluster without accounting, and in a hurry."""
        file = self.folder / "workflow/profiles/slurm/config.yaml"
        profile = yaml.safe_load(file.read_text())
        profile["set-resources"]["train"]["runtime"] = "attempt"
        for rule in ("train", "predict"):
            profile["set-resources"][rule]["gpu"] = gpus
        profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 12}
        file.write_text(yaml.safe_dump(profile))
        self.where = ("--workflow-profile", str(file.parent.relative_to(self.folder)))

    def make(self, *arguments: str) -> None:
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def passes(self) -> pd.DataFrame:
        """Each pass of a network in a job of Slurm."""
        return pd.read_json(self.folder / FILE, lines=True, dtype=False)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory):
    """A Slurm that ends with this block, since its standard input does."""
    command = [ROOT / "tests/slurm/box.sh", tmp_path_factory.mktemp("box"), "3", "4"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as box:
        assert box.stdout.readline() == "ready\n"
        yield


@pytest.fixture(scope="module")
def both(box, tmp_path_factory: pytest.TempPathFactory) -> list[PacedProject]:
    """The graph run by Slurm, and at the same time here, where nothing interrupts it."""
    slurm, here = projects = [PacedProject(tmp_path_factory.mktemp(name)) for name in ("slurm", "here")]
    slurm.make("--", *DATA)  # here, since so short jobs take Slurm and its plugin a minute more
    slurm.use_slurm()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda project: project.make("--", *TARGETS), projects))
    assert not (here.folder / FILE).exists()
    return projects


@pytest.fixture(scope="module")
def ran(both) -> PacedProject:
    return both[0]


@pytest.fixture(scope="module")
def here(both) -> PacedProject:
    return both[1]


def jobs(told: str) -> pd.DataFrame:
    """What Slurm says of the jobs whose comment, a rule and its wildcards, has `told` in it."""
    form = {"id": "%i", "comment": "%k", "state": "%T", "limit": "%l"}
    command = ["squeue", "--states=all", "--noheader", f"--format={'|'.join(form.values())}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    table = pd.DataFrame([line.split("|") for line in lines], columns=list(form))
    return table[table.comment.str.contains(told)].sort_values("id", key=lambda ids: ids.astype(int))


def test_shards_are_predicted_side_by_side_each_on_a_gpu_of_its_own(ran):
    predictions = jobs("rule_predict")
    assert len(predictions) == 4 and set(predictions.state) == {"COMPLETED"}
    jobs_passes = {job: group for job, group in ran.passes().groupby("SLURM_JOB_ID")}
    assert all(len(set(group.CUDA_VISIBLE_DEVICES)) == 1 for group in jobs_passes.values())
    spans = {
        job: (group.time.min(), group.time.max(), group.CUDA_VISIBLE_DEVICES.iloc[0])
        for job, group in jobs_passes.items()
    }
    together = [(one, other) for one in spans for other in spans if one != other and meet(spans[one], spans[other])]
    assert any({one, other} <= set(predictions.id) for one, other in together), spans
    assert all(spans[one][2] != spans[other][2] for one, other in together), spans  # the long training's included


def meet(one: tuple, other: tuple) -> bool:
    """Whether the earlier of two spans (first and last pass) has not ended when the later one begins."""
    return max(one[0], other[0]) <= min(one[1], other[1])


def test_a_training_killed_by_its_time_limit_goes_on_in_a_retry_with_more_time(ran, here):
    attempts = jobs(f"rule_pretrain_.*{LONG.replace('/', '_')}")
    assert attempts.state.tolist() == ["TIMEOUT", "COMPLETED"]
    assert attempts.limit.tolist() == ["1:00", "2:00"]
    log = (ran.folder / f"results/logs/tiny/{LONG}/train.log").read_text()
    reached = int(re.search(r"going on from step (\d+)", log)[1])
    done = ran.passes().SLURM_JOB_ID.value_counts()[attempts.id].tolist()
    assert 0 < reached <= done[0] < STEPS and done[1] == STEPS - reached
    assert list((ran.folder / "results/.resume").iterdir()) == []
    model = f"results/tiny/{LONG}/model.safetensors"
    assert (ran.folder / model).read_bytes() == (here.folder / model).read_bytes()


def test_what_slurm_made_is_what_is_made_here(ran, here):
    for name in (f"results/tiny/{QUICK}/model.safetensors", f"{ROUND}/cut.csv", f"{ROUND}/pseudo_labels.csv"):
        assert (ran.folder / name).read_bytes() == (here.folder / name).read_bytes(), name
    there, own = (PseudoLabels(project.folder / ROUND / "pseudo_labels.h5") for project in (ran, here))
    assert there.names == own.names and len(own.names) == 16
    for name in own.names:
        assert (there.label(name) == own.label(name)).all()
        assert (there.confidence(name) == own.confidence(name)).all()


def test_a_profile_without_gpus_asks_for_none(ran):
    before = len(ran.passes())
    ran.use_slurm(gpus=0)
    ran.make("--force", "--", SHARD)
    passes = ran.passes()[before:]
    assert len(passes) == 4 and passes.CUDA_VISIBLE_DEVICES.isna().all()
    (job,) = set(passes.SLURM_JOB_ID)
    told = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    assert "JobState=COMPLETED" in told and "gpu" not in told.replace(str(ran.folder), "")
