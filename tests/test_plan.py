"""What a plan says against what Snakemake, the stages and the files say."""

import io
import math
from collections import Counter

import pandas as pd
import pytest
import tiny
import torch
import yaml
from project import Project, tiny_config
from torch import nn
from typer.testing import CliRunner
from walking import call

from selftrain.cli import app
from selftrain.data.tables import write_images
from selftrain.errors import UserError
from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.plan import jobs as planned_jobs
from selftrain.plan import table as plan_table
from selftrain.plan.jobs import Job
from selftrain.plan.table import plan
from selftrain.plan.timing import timed
from selftrain.plan.work import Images, Workload, views
from selftrain.predict.forward import Predictor
from selftrain.settings.config_file import parse
from selftrain.settings.prediction import InferenceSettings


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("plan"), tiny_config())


def test_its_jobs_are_those_that_snakemake_would_run(project, monkeypatch, capsys):
    monkeypatch.chdir(project.folder)
    assert call("plan", "config.yaml", "--csv") == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out)).set_index("job")
    counts = Counter(job.split()[0].replace("train_showing", "train") for job in project.planned())
    assert table.jobs.drop("all").to_dict() == counts
    assert table.jobs["all"] == counts.total() and table.hours.isna().all()
    # 2 pretrainings of 16 steps, one of 2, and 9 rounds or online trainings: those of branches have 16, too
    assert table.steps["pretrain"] == 2 * 16 + 2 and table.steps["all"] == table.steps[["pretrain", "train"]].sum()
    assert table.images["predict"] == 7 * 6 and table.images["evaluate"] == 3 * table.jobs["evaluate"]
    before_and_after = Graph.load(project.folder / "config.yaml").previewed("tiny")
    assert table.images["preview"] == table.forward_passes["preview"] == 7 * len(before_and_after)
    assert table.forward_passes["predict"] == 7 * (5 + 9)  # one of the predictions has 9 patches an image


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"flip": True, "scales": (0.5, 1.0)},
        {"patches": {"size": (8, 12), "count": 5}},
        {"patches": {"size": (8, 12), "count": 3}},  # which cannot cover it: the whole image passes, too
        {"patches": {"size": (7, 24), "count": 1, "cover": True}, "flip": True},
        {"patches": {"size": (32, 32), "count": 2}},
        {"patches": {"size": (8, 12), "count": 7, "whole_image": True}, "flip": True, "scales": (1.0, 1.5)},
    ],
)
def test_passes_and_pixels_are_those_that_a_network_sees(told):
    passes, pixels = 0, 0

    class Counting(nn.Module):
        def forward(self, images):
            nonlocal passes, pixels
            passes, pixels = passes + len(images), pixels + images[:, 0].numel()
            return images.float()

    settings, size = InferenceSettings(**told), (16, 24)
    Predictor(Counting(), 3, settings)(torch.zeros(1, 3, *size, dtype=torch.uint8), ["a"], size)
    assert views(settings, Images(1, math.prod(size), size)) == (passes, pixels)


def test_images_of_a_split_are_counted_before_and_after_they_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = [(10, 20), (20, 20), (30, 20)] * 40
    listed = tiny.split(tmp_path / "task/labeled", sizes)
    files = {"images": "labeled/images/*.png", "labels": "labeled/labels/*.png", "size": None}
    config = tiny_config()
    config["tasks"]["tiny"] |= {"root": "task", "labeled": files}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    graph = Graph.load("config.yaml")
    before = Workload(graph).split("tiny", "labeled")
    assert before.count == 120 and before.area == pytest.approx(400, rel=0.02) and before.size == (10, 20)
    assert listed.exists()
    write_images(graph.listing("tiny", "labeled"), tmp_path / "results/tiny/data/labeled/images.csv")
    after = Workload(graph).split("tiny", "labeled")
    assert (after.count, after.area, after.size) == (120, 400, (10, 20))


def small(tmp_path, steps):
    config = tiny_config()
    config["pretrain"] = {"start": {"train": {"steps": steps}}}
    config["experiments"] = {"dars": config["experiments"]["dars"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return [tmp_path / "config.yaml"]


def test_hours_follow_a_few_steps_that_are_timed_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = small(tmp_path, 30)
    jobs = planned_jobs.jobs_to_run(configs)
    monkeypatch.setattr(plan_table, "jobs_to_run", lambda _: jobs)  # they stay the same
    untimed, remarks = plan(configs)
    assert untimed.hours.isna().all() and "--time" in remarks[0]
    table, remarks = plan(configs, time=True)
    hours = table.set_index("job").hours
    assert (
        (hours > 0).all() and hours["all"] == pytest.approx(hours.drop("all").sum()) and "hours of jobs" in remarks[0]
    )
    again, _ = plan(configs)
    pd.testing.assert_frame_equal(again, table)
    longer = plan(small(tmp_path, 3000))[0].set_index("job").hours
    assert longer["pretrain"] > hours["pretrain"] and longer["predict"] == hours["predict"]


@pytest.mark.parametrize("pixels", [{"channels": 5, "bits": 16}, {"channels": 1}])
def test_a_network_of_other_images_is_timed_on_such(folder_task, tmp_path, pixels):
    count = pixels["channels"]
    folder_task["tasks"]["tiny"]["pixels"] = pixels
    folder_task["model"] = {"encoder": "test_resnet", "mean": [0.5] * count, "std": [0.2] * count}
    folder_task["train"] = {"batch_size": 2}
    graph = Graph(parse(folder_task))
    rates = timed(graph, Model("tiny", "base", 0, 0), (32, 48))
    assert rates.learned > 0 and rates.seen >= 0


def test_changed_images_let_run_more_than_can_be_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_table, "jobs_to_run", lambda _: [Job("check", "results/tiny/data/checked.csv")])
    table, remarks = plan(small(tmp_path, 3))
    assert list(table.job) == ["check", "all"] and "what follows from them is not in this table" in remarks[0]
    monkeypatch.setattr(plan_table, "jobs_to_run", lambda _: [])
    assert plan(small(tmp_path, 3))[1] == ["nothing to do: everything is up to date"]


def test_a_config_that_is_wrong_is_told_as_ever(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("tasks: {}\n")
    with pytest.raises(UserError, match="tasks"):
        plan([tmp_path / "config.yaml"])
    told = CliRunner().invoke(app, ["plan", str(tmp_path / "no.yaml")])
    assert told.exit_code and "no.yaml" in str(told.exception)
    monkeypatch.setattr(planned_jobs, "SOURCE", tmp_path / "src/selftrain")
    with pytest.raises(UserError, match="snakemake cannot plan this"):
        planned_jobs.jobs_to_run([tmp_path / "config.yaml"])


def test_jobs_without_images_have_no_work():
    graph = Graph.load("config.yaml")
    assert Workload(graph).of(Job("summary", "results/summary.csv")).images == 0
