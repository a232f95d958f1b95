"""The jobs of a config one after the other in this process, as Snakemake plans them: no process and no import a job."""

import os
import re
import shlex
import sys
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import typer
import yaml
from project import ROOT, forked_snakemake

from selftrain import cli

COMMAND = typer.main.get_command(cli.app)
"""Made once; typer looks at all commands for each call of one."""


class Job(NamedTuple):
    """One job of the graph; paths are seen from where it is run."""

    rule: str
    outputs: list[str]
    arguments: list[str]
    """Of the command line, without the log."""


def call(*arguments: str | Path) -> int:
    """Run the command line in this process; returns its exit code."""
    argv = ["selftrain", *map(str, arguments)]
    with (
        mock.patch.object(cli, "app", COMMAND),
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict(os.environ),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    return int(end.value.code or 0)


def planned(folder: Path, config: dict) -> list[Job]:
    """The jobs of a config, in an order in which they can be run."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    options = ["--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", "none", "--configfile", "config.yaml"]
    options += ["--cores", "1", "--dry-run", "--printshellcmds"]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    code, told = forked_snakemake(folder, {**os.environ, "PYTHONPATH": path}, *options)
    assert code == 0, told
    blocks = re.findall(
        r"(?:rule|checkpoint) (\w+):\n.*?    output: (.*?)\n.*?\nShell command: (.*?)\n", told, re.DOTALL
    )
    return [Job(rule, outputs.split(", "), _without_log(shlex.split(shell))) for rule, outputs, shell in blocks]


def _without_log(command: list[str]) -> list[str]:
    assert command[:4] == ["python", "-m", "selftrain", "stage"] and command[4] == "--log", command
    return ["stage", *command[6:]]


def walk(folder: Path, config: dict) -> list[Job]:
    """Run all jobs of a config in a folder, and return them."""
    jobs = planned(folder, config)
    with chdir(folder):
        for job in jobs:
            assert call(*job.arguments) == 0, job
    return jobs
