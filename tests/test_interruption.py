"""A run that is killed again and again ends as one that was left alone: a few of the kills of interruption.py."""

import random

import interruption
import pytest


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_as_one_left_alone(tmp_path):
    seed = 0
    project, durations = interruption.prepare(tmp_path / "run", interruption.config(2, every_kind=False))
    interruption.clear(project, data=False)
    plan = {
        "train": ["SIGKILL snakemake", "SIGTERM job", "SIGKILL all"],
        "predict": ["SIGKILL job"],
        "label": ["Ctrl-C"],
        "merge": ["SIGTERM all"],
        "evaluate": ["SIGKILL snakemake"],
    }
    about = {"seed": seed, "number": 0, "processes": 2}
    kills = interruption.Pass(project, plan, durations, random.Random(seed), about).run()
    # A job may be quicker than its killer; most are not.
    assert len(kills) >= 4 and "train" in {kill.job for kill in kills}
    assert [kill for kill in kills if kill.problems] == []
    assert all(kill.steps_lost is not None for kill in kills if kill.job == "train")
