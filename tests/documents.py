"""The documentation as data: pages, and the headings, links, blocks and tables in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHELL = ("bash", "sh", "console")
PROGRAMS = (
    "selftrain",
    "snakemake",
    "make",
    "python",
    "pip",
    "sbatch",
    "squeue",
    "export",
    "git",
    "tests/slurm/box.sh",
)


@dataclass(frozen=True)
class Block:
    """Code in a page: fenced, or indented by four blanks, and then without a language."""

    page: str
    line: int
    """The first, from 1, fence included."""
    end: int
    """The last."""
    language: str
    file: str
    """What stands behind the language: the file that the block is, or changes."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_shell(self) -> bool:
        """Whether it is to be typed; indented blocks are, if a line begins as a command does."""
        indented = not self.language and any(line.split(" ")[0] in PROGRAMS for line in self.text.splitlines())
        return self.language in SHELL or indented


@dataclass(frozen=True)
class Command:
    """A command in a page, and what the page says that it prints."""

    block: Block
    text: str
    output: str | None = None
    """Lines, `...` for any number of others; none: nothing is said of it."""


@dataclass(frozen=True)
class Table:
    """A table in a page: cells as they are written."""

    page: str
    heading: str
    """Of the section that it is in, without marks."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def pages() -> list[str]:
    """Every page, from the root of the project."""
    return ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]


@lru_cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


@lru_cache
def blocks(page: str) -> tuple[Block, ...]:
    """All code in a page, in order."""
    lines = [*text_of(page).splitlines(), ""]
    found, at = [], 0
    while at < len(lines):
        fence = re.match(r"(`{3,})(\w*) ?(.*)", lines[at])
        end = at + 1
        if fence:
            while lines[end] != fence[1]:
                end += 1
            code = "\n".join(lines[at + 1 : end]) + "\n"
            end += 1
            found.append(Block(page, at + 1, end, fence[2], fence[3], code))
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            code = "\n".join(line[4:] for line in lines[at:end]).rstrip() + "\n"
            found.append(Block(page, at + 1, end, "", "", code))
        at = end
    return tuple(found)


def commands(block: Block) -> Iterator[Command]:
    """What is to be typed, one after the other; a line that ends in a backslash goes on in the next."""
    text = block.text.replace("\\\n", "")
    if block.language == "console":
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            typed, _, output = part.partition("\n")
            yield Command(block, typed, output)
        return
    for line in text.splitlines():
        program = line.split(" ")[0]
        if line.strip() and not line.startswith("#") and (block.language or program in PROGRAMS):
            yield Command(block, re.sub(r"\s+# .*", "", line))


@lru_cache
def prose(page: str, *, spans: bool = False) -> str:
    """A page without its blocks of code, and without code in its lines, unless `spans` are wanted."""
    inside = {line for block in blocks(page) for line in range(block.line, block.end + 1)}
    lines = [line for number, line in enumerate(text_of(page).splitlines(), 1) if number not in inside]
    text = "\n".join(lines)
    return text if spans else re.sub(r"`[^`\n]*`", "", text)


def links(page: str) -> list[str]:
    """Where a page's links lead to."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: str) -> set[str]:
    """What a link may name behind `#`: headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", prose(page, spans=True), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", without_links(told).lower()).strip().replace(" ", "-") for told in headings}


def without_links(text: str) -> str:
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)


@lru_cache
def tables(page: str) -> tuple[Table, ...]:
    """All tables in a page."""
    heading, found, rows = "", [], []
    for line in [*text_of(page).splitlines(), ""]:
        if line.startswith("|"):
            rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
        elif rows:
            found.append(Table(page, heading, rows[0], tuple(rows[2:])))
            rows = []
        if line.startswith("#"):
            heading = line.strip("# ").replace("`", "")
    return tuple(found)


def spans(cell: str) -> list[str]:
    """What stands in code marks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
