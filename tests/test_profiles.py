"""The profile for Slurm, as far as it can be looked at without one; tests/test_slurm.py runs it."""

import re

import pytest
import yaml
from project import ROOT, Project, tiny_config

FILE = "workflow/profiles/slurm/config.yaml"
ON_SLURM = ("--workflow-profile", "workflow/profiles/slurm")


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path, tiny_config())


def resources(project: Project) -> dict[str, dict[str, str]]:
    """What a rule's jobs would ask for."""
    found = re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", project.dry_run(), re.MULTILINE)
    return {rule: dict(part.split("=", 1) for part in told.split(", ")) for rule, told in found}


def test_the_default_profile_is_found(project):
    """Snakemake looks for it beside the Snakefile. Without it a run that was killed does not go on."""
    told = project.dry_run()
    assert "Using workflow specific profile" in told and "profiles/default" in told
    assert (ROOT / "profiles").resolve() == ROOT / "workflow/profiles"


def test_every_job_on_slurm_has_a_time_limit_and_those_with_a_network_one_of_their_own(project):
    here = resources(project)
    project.where = ON_SLURM
    there = resources(project)
    assert here.keys() == there.keys() and "runtime" not in here["train"]
    with_network = {rule for rule, told in here.items() if "gpu" in told}
    assert with_network == {
        "pretrain",
        "train",
        "train_showing",
        "predict",
        "choose",
        "calibrate",
        "reliability",
        "evaluate",
    }
    for rule, told in there.items():
        assert told["runtime"] == ("30" if rule not in with_network else "240" if "train" in rule else "120")
        assert told["mem_mb"] == ("16000" if rule in with_network else "4000")
        assert told.get("gpu") == ("1" if rule in with_network else None)


def test_two_lines_of_the_profile_make_no_job_ask_for_a_gpu(project):
    file = project.folder / FILE
    text = file.read_text()
    assert text.count("    # gpu: 0 #") == 2
    file.write_text(text.replace("    # gpu: 0 #", "    gpu: 0 #"))
    project.where = ON_SLURM
    assert {told.get("gpu") for told in resources(project).values()} == {"0", None}


def test_a_retry_gets_more_time_and_memory(project):
    """Snakemake evaluates these expressions, in default-resources and set-resources alike."""
    profile = yaml.safe_load((project.folder / FILE).read_text())
    for asked in (profile["default-resources"], *profile["set-resources"].values()):
        first, second = ({name: eval(asked[name], {"attempt": n}) for name in ("mem_mb", "runtime")} for n in (1, 2))
        assert all(second[name] == 2 * first[name] for name in first)
    assert profile["retries"] >= 2


def test_the_profile_for_slurm_keeps_what_the_default_says(project):
    default, slurm = (
        yaml.safe_load((project.folder / f"workflow/profiles/{name}/config.yaml").read_text())
        for name in ("default", "slurm")
    )
    assert default.items() <= slurm.items()
