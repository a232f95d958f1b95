"""The examples of docs/extend.md, taken from the page and run in a copy of the project."""

import subprocess
import sys

import pytest
from documents import ROOT, Block, blocks
from test_docs_commands import Workplace

PAGE = "docs/extend.md"
TABLES = ("entropy/seed-0/round-1/train.csv", "capped/seed-0/round-1/cut.csv")
"""What the commands of the page make, below the task's results."""


def changed(text: str, diff: Block) -> str:
    """A file after a diff without line numbers: runs of old lines, each of which is there once, become new ones."""
    lines = diff.text.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    assert text.count(old) == 1, f"{diff.place}: not once in {diff.file}:\n{old}"
    return text.replace(old, new)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """With all that the page adds."""
    place = Workplace(tmp_path_factory.mktemp("extend") / "selftrain")
    for block in blocks(PAGE):
        if block.language == "diff":
            file = place.folder / block.file
            file.write_text(changed(file.read_text(), block))
        elif block.language == "python":
            place.write(block)
    return place


def test_the_examples_are_written_as_the_project_is(workplace: Workplace) -> None:
    written = [block.file for block in blocks(PAGE) if block.language in ("python", "diff")]
    configured = ["--config", str(ROOT / "pyproject.toml")]
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *check, *configured, *written], **workplace.how)
        assert done.returncode == 0, done.stdout


def test_the_cap_is_a_cap(workplace: Workplace) -> None:
    """The example's policy against a slow definition, pixel by pixel."""
    script = """
import numpy as np
from selftrain.confidence import BINS, probability_of
from selftrain.select.policies import decide
from selftrain.settings.selection import SelectSettings
draw = np.random.default_rng(0)
for cap in (0.2, 0.6, 0.9):
    bins, classes = draw.integers(4000, 16000, 5000), draw.integers(0, 3, 5000)
    histograms = np.array([np.bincount(bins[classes == one], minlength=BINS) for one in range(3)])
    told = SelectSettings(classes=("a", "b", "c"), policy={"name": "capped", "cap": cap}, portion=0.3)
    cut = decide(told, histograms, np.full(3, 1 / 3))
    for one in range(3):
        own = np.sort(bins[classes == one])[::-1]
        least = own[round(0.3 * len(own)) - 1]
        right = ((own >= least) | (probability_of(own) >= cap)).sum()
        assert cut.selected(histograms)[one] == right, (cap, one)
"""
    done = subprocess.run([sys.executable, "-c", script], **workplace.how)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_examples_run(workplace: Workplace) -> None:
    workplace.page(PAGE)
    tables = {name: (workplace.folder / "results/harbor" / name).read_text() for name in TABLES}
    assert "entropy" in tables["entropy/seed-0/round-1/train.csv"]
    assert tables["capped/seed-0/round-1/cut.csv"].count("\n") == 5
    assert len(list((workplace.folder / "own-masks").glob("*.png"))) == 2
