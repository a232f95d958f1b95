"""What several workflows share: pretrained models, through Snakemake's cache between workflows."""

import pytest
from project import Project, tiny_config

MODEL = "results/tiny/pretrained/start/seed-0/model.safetensors"


@pytest.mark.slow
def test_a_second_workflow_takes_a_pretrained_model_from_the_cache_and_another_setting_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    config = tiny_config()
    config["experiments"] = {"dars": config["experiments"]["dars"]}
    runs = []
    for name, steps in (("one", 2), ("same", 2), ("longer", 3)):
        config["train"]["steps"] = steps
        project = Project(tmp_path / name, config)
        done = project.snakemake("--cache", "--", MODEL)
        assert done.returncode == 0, done.stderr
        runs.append(project.folder)
    one, same, longer = ((folder / MODEL).resolve() for folder in runs)
    assert one == same != longer and one.parent == tmp_path / "cache"
    told = [(folder / "results/logs/tiny/pretrained/start/seed-0/train.log").read_text() for folder in runs]
    assert ["step" in one for one in told] == [True, False, True]
