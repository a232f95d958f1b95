"""What all benchmarks share: taking turns on a noisy machine, and one table to say what came of it.

A measurement is a ratio of two works that took turns in one run, or CPU-seconds by the process's own accounting.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

NOT_MEASURED = "not measured: no GPU"


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        what: is measured.
        measured: the figure, with its unit.
        to_reach: the number to reach, with its sign; empty where there is none.
        against: what it is compared with, and that one's figure.
        ratio: of the two, in the direction that `to_reach` speaks of.
    """

    what: str
    measured: str
    to_reach: str = ""
    against: str = ""
    ratio: str = ""

    def __post_init__(self) -> None:
        """Tell it as soon as it is known: what comes later may be cut off, as on a machine that is lent."""
        print(
            "; ".join(filter(None, (self.what, self.measured, self.against, self.ratio))), file=sys.stderr, flush=True
        )


def medians(
    works: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Seconds of each work by `clock`, medians; the works take turns, so that a slow spell of the machine slows all.

    The first turn is thrown away.
    """
    spent: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            start = clock()
            work()
            spent[name].append(clock() - start)
    return {name: statistics.median(turns[1:]) for name, turns in spent.items()}


def peak_mebibytes() -> float:
    """The most memory that this process has used. Not ru_maxrss: a child inherits its parent's."""
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(status.split()[0]) / 1024


def machine() -> str:
    """Processor, cores and versions."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in described.splitlines() if line.startswith("model name")]
    there = {one.metadata["Name"]: one.version for one in distributions()}  # where a GPU is, Snakemake need not be
    versions = ", ".join(f"{name} {there[name]}" for name in ("torch", "numpy", "h5py", "snakemake") if name in there)
    processor = names[0] if names else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table, aligned."""
    rows = [("what", "measured", "against", "ratio", "to reach")]
    rows += [(line.what, line.measured, line.against, line.ratio, line.to_reach) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    return "\n".join(
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def show(lines: Sequence[Line]) -> None:
    """Print the machine and the table."""
    print(machine(), table(lines), sep="\n\n")
