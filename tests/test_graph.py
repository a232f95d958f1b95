"""The whole graph on tiny data, run as a user runs it, and what a second run does after each kind of change."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from selftrain import artifacts

ROOT = Path(__file__).parents[1]
DARS_2 = "results/tiny/dars/seed-0/round-2"


class Project:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder: Path, config: dict) -> None:
        self.folder = folder
        shutil.copy(ROOT / "Snakefile", folder)
        for name in ("workflow", "src", "envs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        self.configure(config)

    def configure(self, config: dict) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(self.folder / "src")}
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600)

    def planned(self, *arguments: str) -> list[str]:
        """Jobs that a run would do, as 'rule' or 'rule wildcards'."""
        done = self.snakemake("--dry-run", *arguments)
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
        if "Nothing to be done" in told:
            return []
        blocks = re.findall(r"rule (\w+):\n(.*?)\n(?=\[|Job stats|Would)", told, re.DOTALL)
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
    names = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
    return {
        "tasks": {
            "tiny": {
                "classes": names.split(),
                "labeled": streets("synthetic", 4, 1),
                "unlabeled": streets("real", 7, 2),
                "truth": True,
                "evaluation": {"val": streets("real", 3, 3)},
            }
        },
        "train": {"steps": 2, "batch_size": 4, "augmentation": {"crop": [32, 64]}},
        "batch_size": 1,
        "pretrain": {"start": {}},
        "experiments": {
            "st": {"policy": "st", "rounds": rounds[:1]},
            "dars": {"policy": {"name": "dars", "resolution": "float16"}, "rounds": rounds},
        },
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("graph"), tiny_config())
    done = project.snakemake()
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def project(ran: Project):
    """The project after a run; config and code are as they were when the test ends."""
    yield ran
    ran.configure(tiny_config())
    shutil.rmtree(ran.folder / "src")
    shutil.copytree(ROOT / "src", ran.folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))


def test_every_artifact_is_there(ran):
    for name in (
        f"{DARS_2}/cut.csv",
        f"{DARS_2}/pseudo_labels.h5",
        f"{DARS_2}/pseudo_labels.csv",
        f"{DARS_2}/model.safetensors",
        f"{DARS_2}/train.csv",
        f"{DARS_2}/metrics.csv",
        f"{DARS_2}/confusion.csv",
        f"{DARS_2}/manifest.json",
        "results/tiny/pretrained/start/seed-0/predictions/single/shard-0-of-1.h5",
        "results/report/index.html",
    ):
        assert (ran.folder / name).is_file(), name
    assert not list((ran.folder / "results").rglob(".*-*.h5")), "a temporary file was left"
    assert not list((ran.folder / "results/.resume").iterdir()), "resume state was left"


def test_the_summary_has_every_round_and_split(ran):
    summary = pd.read_csv(ran.folder / "results/summary.csv")
    columns = "task experiment seed round split miou pixel_accuracy gain labeled_share pseudo_label_accuracy"
    assert list(summary.columns) == columns.split()
    told = sorted(zip(summary.experiment, summary["round"], summary.split, strict=True))
    assert told == [(e, r, "val") for e, n in (("dars", 2), ("st", 1)) for r in range(n + 1)]
    later = summary[summary["round"] > 0]
    assert later.labeled_share.between(0, 1, inclusive="right").all()
    assert later.pseudo_label_accuracy.between(0, 1).all()
    assert (summary[summary["round"] == 0].gain == 0).all()


def test_running_again_does_nothing(ran):
    assert ran.planned() == []


def test_a_portion_reruns_its_round_and_no_prediction(project):
    config = tiny_config()
    config["experiments"]["dars"]["rounds"][1]["portion"] = 0.4
    project.configure(config)
    planned = project.planned()
    of_round = {job.split()[0] for job in planned if " " in job}
    assert of_round == {"select", "label", "merge", "train", "evaluate", "score"}
    assert all("round=2" in job or "round-2" in job for job in planned if " " in job), planned
    assert {job for job in planned if " " not in job} == {"summary", "report"}


def test_one_more_round_plans_only_that_round(project):
    config = tiny_config()
    config["experiments"]["dars"]["rounds"].append({"portion": 0.6})
    project.configure(config)
    planned = project.planned()
    predictions = [job for job in planned if job.startswith("predict")]
    assert len(predictions) == 1 and "round-2" in predictions[0]
    others = [job for job in planned if job not in (*predictions, "summary", "report")]
    assert others and all("round=3" in job or "round-3" in job for job in others), others


def append(project: Project, module: str, text: str) -> None:
    with (project.folder / "src/selftrain" / module).open("a") as file:
        file.write(text)


def test_selection_code_reruns_selection_and_not_pretraining(project):
    append(project, "select/dars.py", "\nADDED = 1\n")
    planned = project.planned()
    assert any(job.startswith("select") and "experiment=dars" in job for job in planned)
    assert not any("pretrained" in job or "experiment=st" in job or "st/seed" in job for job in planned), planned


@pytest.mark.parametrize("module", ["select/cbst.py", "models/decoders/aspp.py", "settings/base.py"])
def test_code_that_is_not_used_reruns_nothing(project, module):
    append(project, module, "\nADDED = 1\n")
    assert project.planned() == []


def test_an_algorithm_that_is_not_used_reruns_nothing(project):
    append(project, "train/algorithms/self_training.py", "\nADDED = 1\n")
    assert project.planned("--", "results/tiny/pretrained/start/seed-0/metrics.csv") == []
    retrained = [job for job in project.planned() if job.startswith("train")]
    assert retrained and not any("pretrained" in job for job in retrained)


def test_comments_and_docstrings_rerun_nothing(project):
    append(project, "train/stage.py", "\n# A comment.\n")
    assert project.planned() == []


def test_code_can_be_no_input(project):
    project.configure(tiny_config() | {"code_is_input": False})
    append(project, "train/stage.py", "\nADDED = 1\n")
    assert project.planned() == []
    project.configure(tiny_config())
    assert any("train" in job for job in project.planned())


def test_machine_settings_rerun_nothing(project):
    project.configure(tiny_config() | {"machine": {"threads": 2, "workers": 1, "checkpoint_seconds": 5}})
    assert project.planned() == []


def test_a_round_can_be_forced_alone(project):
    planned = project.planned("--force", "--", f"{DARS_2}/model.safetensors")
    assert planned == ["train task=tiny, model=dars/seed-0/round-2"]


def test_shards_change_no_byte(project):
    target = project.folder / "results/tiny/dars/seed-0/round-1/pseudo_labels.h5"
    whole = artifacts.digest_file(target)
    project.configure(tiny_config() | {"shards": 5})
    done = project.snakemake("--", str(target.relative_to(project.folder)))
    assert done.returncode == 0, done.stderr
    assert "shard=4" in done.stdout + done.stderr
    assert artifacts.digest_file(target) == whole


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["experiments"]["dars"].update(polcy="dars"), ["experiments.dars", "'polcy'", "'policy'"]),
        (lambda c: c["experiments"]["dars"]["rounds"][1].update(portion=1.5), ["rounds[1].portion", "1.5"]),
        (lambda c: c["train"].update(steps="many"), ["train.steps", "many"]),
        (
            lambda c: c["tasks"]["tiny"].update(labeled={"images": "no/*.png", "labels": "no/*.png"}),
            ["tiny.labeled", "no/*.png"],
        ),
    ],
)
def test_a_wrong_config_is_one_error_before_any_job(project, change, told):
    config = tiny_config()
    change(config)
    project.configure(config)
    done = project.snakemake()
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "rule " not in said
    assert "error: " in said and all(text in said for text in told), said


def test_a_broken_image_is_named_before_training(tmp_path):
    config = tiny_config()
    (tmp_path / "own/images").mkdir(parents=True)
    (tmp_path / "own/images/broken.png").write_bytes(b"no image")
    config["tasks"]["tiny"]["unlabeled"] = {"images": "own/images/*.png"}
    config["tasks"]["tiny"]["truth"] = False
    project = Project(tmp_path, config)
    done = project.snakemake()
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "own/images/broken.png: not readable as an image" in said
    assert "Traceback" not in said and "rule train" not in said
    assert not (tmp_path / "results/tiny/data/checked.csv").exists()


def test_snakemake_reads_the_config_given_instead_of_the_default(ran):
    other = tiny_config()
    other["tasks"] = {"other": other["tasks"]["tiny"]}
    (ran.folder / "other.yaml").write_text(yaml.safe_dump(other))
    planned = ran.planned("--configfile", "other.yaml")
    assert any("task=other" in job for job in planned)
    assert not any("task=tiny" in job for job in planned)
