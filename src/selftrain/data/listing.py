"""Which files belong to a split: by globs, by a list file, or in the folders of a published data set."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selftrain.data import datasets
from selftrain.errors import UserError
from selftrain.names import writable
from selftrain.settings.data import DrawSettings, ListSettings


@dataclass(frozen=True)
class Item:
    """One image of a split; its name is the file's stem."""

    name: str
    image: Path
    label: Path | None


def list_split(settings: ListSettings) -> list[Item]:
    """The images of a split, sorted by name, but in the list's order for list files.

    Raises:
        UserError: with every problem of the split, one a line.
    """
    items, problems = find(settings)
    if settings.list is not None:  # what is found by other means is there
        problems += [f"{file}: no such file" for file in _files(items) if not file.is_file()]
    if problems:
        raise UserError("\n".join(problems))
    return items


def find(settings: ListSettings) -> tuple[list[Item], list[str]]:
    """The images that a split names, whether or not they are there, and what is wrong with the naming."""
    items, problems = _source(settings)
    problems += _odd_names(items)
    problems += _stems_twice([item.image for item in items])
    if not items and not problems:
        problems = [f"{Path(settings.root) / (settings.list or '')}: no images; the split is empty"]
    if settings.draw is not None and not problems:
        return _drawn(items, settings.draw)
    return items, problems


def _source(settings: ListSettings) -> tuple[list[Item], list[str]]:
    if settings.list is not None:
        return _from_list(settings)
    return _from_globs(settings) if settings.dataset is None else _of_dataset(settings)


def _drawn(items: list[Item], draw: DrawSettings) -> tuple[list[Item], list[str]]:
    """A part of the images, in their order; which ones depends on nothing but their names and the seed."""
    from selftrain import randomness  # brings numpy, which calls of Snakemake seldom need

    count = draw.of(len(items))
    if count > len(items) - draw.rest:
        left = ", which leaves none for the rest" if draw.rest else ""
        return [], [f"draw.count: {count} of {len(items)} images{left}; give fewer, or a share such as 1/8"]
    names = sorted(item.name for item in items)
    order = randomness.generator(draw.seed, "drawn images").permutation(len(names))
    drawn = {names[at] for at in order[:count]}
    return [item for item in items if (item.name in drawn) != draw.rest], []


def files_of(settings: ListSettings) -> list[str]:
    """Every file that a split is made from, its list file first.

    Raises:
        UserError: with every problem of the split, one a line.
    """
    listed = [str(Path(settings.root) / settings.list)] if settings.list is not None else []
    return listed + [str(file) for file in _files(list_split(settings))]


def _files(items: list[Item]) -> list[Path]:
    return [file for item in items for file in (item.image, item.label) if file is not None]


def _odd_names(items: list[Item]) -> list[str]:
    """Names that no table or message could have on a line of its own: with line breaks, or in no known encoding."""
    return [
        f"{str(file)!r}: a name with a line break or another sign that cannot be written; rename it"
        for file in _files(items)
        if not writable(str(file))
    ]


def _stems_twice(files: list[Path]) -> list[str]:
    by_stem = defaultdict(list)
    for file in files:
        by_stem[file.stem].append(str(file))
    return [
        f"{', '.join(same)}: the same stem '{stem}' {len(same)} times"
        for stem, same in by_stem.items()
        if len(same) > 1
    ]


def _of_dataset(settings: ListSettings) -> tuple[list[Item], list[str]]:
    assert settings.dataset is not None
    try:
        found, problems = datasets.find(settings.dataset, Path(settings.root), labeled=settings.labeled)
    except UserError as error:
        return [], [str(error)]
    files = [(found.image(name), found.label(name) if settings.labeled else None) for name in found.names]
    missing = set(found.missing)  # told already
    there = [(Path(image), label and Path(label)) for image, label in files if not {image, label} & missing]
    return [Item(image.stem, image, label or None) for image, label in there], problems


def _from_globs(settings: ListSettings) -> tuple[list[Item], list[str]]:
    images, problems = _matches(settings.root, settings.images or ())
    if not settings.labeled:
        return [Item(path.stem, path, None) for path in images], problems
    labels, more = _matches(settings.root, settings.labels or ())
    by_stem = {path.stem: path for path in labels}
    where = ", ".join(settings.labels or ())
    missing = [
        f"{path}: no label; a file named '{path.stem}' with any ending is looked for in {where}"
        for path in images
        if path.stem not in by_stem
    ]
    items = [Item(path.stem, path, by_stem.get(path.stem)) for path in images]
    return items, problems + more + _stems_twice(labels) + missing


def _matches(root: str, patterns: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    found: set[Path] = set()
    problems = []
    for pattern in patterns:
        paths = [Path(match) for match in _expanded(root, Path(pattern).parts)]
        matches = [path for path in paths if path.is_file()]
        problems += [f"{path}: a link that leads nowhere" for path in paths if path.is_symlink() and not path.exists()]
        if not matches:
            problems.append(f"{Path(root) / pattern}: no file matches")
        found.update(matches)
    return sorted(found, key=lambda path: (path.stem, str(path))), problems


def _expanded(root: str, parts: tuple[str, ...]) -> Iterator[str]:
    """All that a pattern matches, given by its parts. Links are followed, those that lead in a circle once.

    Only the pattern is one: a root named `data [old]` is taken as it is.
    """
    deep = parts.index("**") if "**" in parts else len(parts)
    for match in glob.iglob(str(Path(*parts[:deep])), root_dir=root) if deep else [""]:  # noqa: PTH207
        path = str(Path(root, match))
        if deep == len(parts):
            yield path
        else:
            for folder in _below(path):
                yield from _expanded(folder, parts[deep + 1 :] or ("*",))


def _below(folder: str, within: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """A folder and all below it that are not hidden; what leads back to one that it is in is left out."""
    try:
        here = os.stat(folder)  # noqa: PTH116
        own = (here.st_dev, here.st_ino)
        if own in within:
            return
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:  # no folder, or one that may not be read
        return
    yield folder
    for entry in shown:
        if Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir():
            yield from _below(entry.path, within | {own})


def _from_list(settings: ListSettings) -> tuple[list[Item], list[str]]:
    file = Path(settings.root) / str(settings.list)
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        return [], [f"{file}: no such list file"]
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{file}: not readable as a list ({error})"]
    items, problems = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            item, wrong = _from_line(settings, line)
            items += [item] if item else []
            problems += [f"{file}:{number}: {problem}" for problem in wrong]
    return items, problems


def _from_line(settings: ListSettings, line: str) -> tuple[Item | None, list[str]]:
    entries = _entries(settings, line)
    if len(entries) > 2 or (settings.labeled and len(entries) == 1):
        expected = "an image and its label" if settings.labeled else "an image, or an image and its label"
        return None, [f"'{line}' should be {expected}, with a tab between them where names have spaces"]
    entries = entries if settings.labeled else entries[:1]
    outside = [entry for entry in entries if _is_outside(settings, entry)]
    if outside:
        return None, [
            f"'{entry}' points outside data_root ({settings.data_root}), which only `outside_data_root: true` allows"
            for entry in outside
        ]
    image, label = Path(settings.root) / entries[0], Path(settings.root) / entries[1] if settings.labeled else None
    return Item(image.stem, image, label), []


def _entries(settings: ListSettings, line: str) -> list[str]:
    """Split at tabs, else at spaces, unless the line as a whole names an image."""
    if "\t" in line:
        return [entry.strip() for entry in line.split("\t") if entry.strip()]
    # Of os.path, since a Path raises where a folder may not be read, or a name is too long.
    whole = os.path.isfile(Path(settings.root) / line.strip())  # noqa: PTH113
    return [line.strip()] if not settings.labeled and whole else line.split()


def _is_outside(settings: ListSettings, entry: str) -> bool:
    """Judged by the path's text, so that folders of symbolic links remain usable."""
    if settings.data_root is None:
        return False
    data_root, path = (
        os.path.normpath(Path(one).absolute()) for one in (settings.data_root, Path(settings.root) / entry)
    )
    return not Path(path).is_relative_to(data_root)
