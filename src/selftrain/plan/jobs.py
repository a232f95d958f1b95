"""The jobs that Snakemake would run, as it tells them itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selftrain.code_digest import SOURCE
from selftrain.errors import UserError

TOLD_BY = {
    "pretrain": "model.safetensors",
    "train": "model.safetensors",
    "train_showing": "model.safetensors",
    "evaluate": "metrics.csv",
    "merge": "pseudo_labels.h5",
    "statistics": "classes.csv",
    "reliability": "reliability.csv",
    "report": "index.html",
}
"""Of the rules with several outputs the one that stands for the job."""


@dataclass(frozen=True)
class Job:
    """A job of the graph that is yet to run."""

    rule: str
    output: str
    """The file that it makes, as the rules name it."""


def jobs_to_run(configs: Sequence[Path]) -> list[Job]:
    """Every job that `snakemake` would run now, by its main output; what is up to date is not among them.

    Raises:
        UserError: what Snakemake says, where it cannot plan.
    """
    snakefile = SOURCE.parent.parent / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--summary", "--nolock"]
    command += ["--configfile", *map(str, configs)]
    told = subprocess.run(command, capture_output=True, text=True)
    if told.returncode:
        raise UserError(f"snakemake cannot plan this:\n{told.stderr.strip()}")
    heading, *rows = (line.split("\t") for line in told.stdout.splitlines() if "\t" in line)
    output, rule, plan = (heading.index(name) for name in ("output_file", "rule", "plan"))
    jobs = [Job(row[rule], row[output]) for row in rows if row[plan] == "update pending"]
    return [job for job in jobs if job.output.endswith(TOLD_BY.get(job.rule, ""))]
