"""The processes of this machine, and which of them are jobs of a run (Linux)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Process:
    """One process of a run."""

    pid: int
    parent: int
    session: int
    started: int
    """In ticks since the machine started: with the id it tells processes apart."""
    arguments: list[str]

    @property
    def kind(self) -> str | None:
        """The stage's name, of a job."""
        told = self.arguments
        if "selftrain" not in told or "stage" not in told or "--log" not in told[: told.index("stage") + 2]:
            return None
        return told[told.index("--log") + 2]


def processes() -> Iterator[Process]:
    """All processes that can be looked at and are no zombies."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told = (entry / "stat").read_text().rpartition(")")[2].split()
                arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # it has ended
                continue
            if told[0] != "Z":
                yield Process(int(entry.name), int(told[1]), int(told[3]), int(told[19]), arguments)


def jobs(session: int) -> dict[tuple[int, int], Process]:
    """The jobs of a run, without the processes that they forked."""
    own = {one.pid: one for one in processes() if one.session == session and one.kind}
    return {(one.pid, one.started): one for one in own.values() if one.parent not in own}
