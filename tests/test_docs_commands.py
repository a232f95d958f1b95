"""Every command in the documentation is run here, in order within a page, or is listed with the reason why not.

One folder is for all pages: a copy of the project beside a user's images, where a page finds what those before it made.
"""

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import harbor
import pytest
import yaml
from documents import Block, Command, blocks, commands, pages
from project import Project

from selftrain.settings.base import deep_merge

SMALL = {"train": {"steps": 12, "batch_size": 4, "augmentation": {"crop": [32, 64], "scale": [1, 1]}}}
"""What of a page's config is not as it stands there: enough for the files, not for good models."""

OF_THE_README = ("README.md", "docs/start.md")
RUN = (*OF_THE_README, "docs/methods/curriculum.md", "docs/methods/review.md")
"""Pages whose commands are run here, those first that others build on; docs/extend.md has a test of its own."""

NOT_RUN = {
    "make setup": "installs PyTorch",
    "source .venv/bin/activate": "there is no .venv; its commands are found all the same",
    "make demo": "minutes long; tests/test_graph.py runs such a graph, and results.md has its figures",
    "make test": "is what runs this",
    "make lint test": "is what runs this",
    "make test-slurm": "starts a Slurm, as root",
    "make bench": "minutes long; tests/test_benchmarks.py runs each file of it",
    "python tests/interruption.py *": "kills a run as often as asked; tests/test_interruption.py does it a few times",
    "python benchmarks/study": "hours long; tests/test_study.py runs a small one",
    "python benchmarks/scale.py *": "minutes long; tests/test_benchmarks.py runs it on less",
    "snakemake --configfile my.yaml --touch -- all": "would have what this folder lacks count as made",
    "pip install *": "needs an index of packages",
    "snakemake --cores all -- results/synthetic-to-real/*": "the demo",
    "selftrain show results/synthetic-to-real/*": "the demo",
    "*configs/*": "data sets that are not here; tests/test_published_configs.py plans each config",
    "*workflow/profiles/slurm*": "a cluster; tests/slurm has one",
    "squeue *": "a cluster",
    "sbatch *": "a cluster",
    "export SNAKEMAKE_OUTPUT_CACHE=*": "of a group; tests/test_cache.py has one",
    "snakemake --configfile my.yaml --cores 8 --cache -- all": "the same",
}
"""Commands, `*` for anything, and why they are not run."""


def told(page: str) -> list[Command]:
    return [command for block in blocks(page) if block.is_shell for command in commands(block)]


def reason(command: Command) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if fnmatch(command.text, pattern)), None)


def test_every_command_is_run_or_listed():
    elsewhere = [page for page in pages() if page not in (*RUN, "docs/extend.md")]
    left = [
        f"{command.block.place}: {command.text}" for page in elsewhere for command in told(page) if not reason(command)
    ]
    assert not left, "neither run nor listed:\n" + "\n".join(left)


def test_every_reason_is_needed():
    every = [command.text for page in pages() for command in told(page)]
    assert [pattern for pattern in NOT_RUN if not any(fnmatch(text, pattern) for text in every)] == []


def test_the_readme_and_the_page_to_start_with_have_one_config():
    """So that who goes from one to the other runs nothing twice."""
    first, second = (next(block for block in blocks(page) if block.file == "my.yaml") for page in OF_THE_README)
    assert yaml.safe_load(first.text) == yaml.safe_load(second.text)


class Workplace:
    """A clone, with a user's folders and the README's config in it, where commands are typed as a page has them."""

    def __init__(self, folder: Path) -> None:
        Project(folder, {})
        harbor.write(folder)
        self.folder, self.typed = folder, set[str]()
        self.write(next(block for block in blocks("README.md") if block.file == "my.yaml"))
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(folder / "src")}
        self.environment = os.environ | environment

    def page(self, page: str) -> None:
        """Write its files and type its commands, from the top to the end."""
        for block in blocks(page):
            if block.file and block.language != "diff":
                self.write(block)
            for command in commands(block) if block.is_shell else ():
                if not reason(command):
                    self.type(command)
            if block.language == "python" and not block.file:
                self.finish(subprocess.run([sys.executable, "-c", block.text], **self.how), block.place)

    def write(self, block: Block) -> None:
        """A file of a page; trainings of a config are made small."""
        text = block.text
        if block.language == "yaml" and "include" not in (whole := yaml.safe_load(text)):
            text = yaml.safe_dump(deep_merge(whole, SMALL), sort_keys=False)
        (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / block.file).write_text(text)

    @property
    def how(self) -> dict:
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return out | {"cwd": self.folder, "env": self.environment, "text": True, "timeout": 900}

    def type(self, command: Command) -> None:
        """Run a command, and look for what the page says that it prints; it fails where that is an error.

        What another page has had done is done: once is enough.
        """
        if command.output is None and command.text in self.typed:
            return
        self.typed.add(command.text)
        done = subprocess.run(["bash", "-c", command.text], **self.how)
        fails = command.output is not None and "error:" in command.output
        self.finish(done, f"{command.block.place}: {command.text}", fails=fails)
        if command.output is not None:
            lines = ["(.*\n)*" if line == "..." else re.escape(line) + "\n" for line in command.output.splitlines()]
            printed = re.sub(r"^info: .*\n", "", done.stdout, flags=re.MULTILINE)  # a bar, at a terminal
            assert re.fullmatch("".join(lines), printed), f"{command.block.place}: {command.text}\n{done.stdout}"

    def finish(self, done: subprocess.CompletedProcess, what: str, *, fails: bool = False) -> None:
        assert (done.returncode != 0) == fails, f"{what}\n{done.stdout}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("docs") / "selftrain")


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_do_what_it_says(workplace: Workplace, page: str) -> None:
    """In the order of RUN: pages use what those before them made."""
    workplace.page(page)
    assert {command.text for command in told(page) if not reason(command)} <= workplace.typed


@pytest.mark.slow
def test_the_readme_leads_to_masks_of_images_that_are_not_ours(workplace: Workplace) -> None:
    if not (workplace.folder / "masks").is_dir():  # run alone
        workplace.page("README.md")
    assert {"photo_0.png", "photo_1.png"} <= {mask.name for mask in (workplace.folder / "masks").iterdir()}
    assert (workplace.folder / "shown.png").stat().st_size > 10_000
    assert (workplace.folder / "results/report/index.html").is_file()
