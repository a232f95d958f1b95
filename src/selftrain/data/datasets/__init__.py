"""Published data sets, one file each: where files are and how their ids map; reading them is the same for all."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from selftrain import registry
from selftrain.errors import UserError
from selftrain.settings.base import nearest
from selftrain.settings.data import DatasetSettings, SplitSettings

TOLD = 3
"""Missing files that are named; of the others it is told how many there are."""


@dataclass(frozen=True)
class Layout:
    """One way in which the files of a split lie; `{}` is what the paths of an image and its label share."""

    images: str
    """Path of an image, such as 'images/train/{}.jpg'; `{}` may hold folders."""
    labels: str | None = None
    """Path of its label; none: the split has none."""
    ids: Mapping[int, str | None] = field(default_factory=dict)
    """Every id that label files hold, and its class; none: no class, ignored."""
    named_by: tuple[str, ...] = ()
    """Files that name what `{}` stands for, one a line; none: all that is there."""
    left_out_by: tuple[str, ...] = ()
    """Files that name, in the same way, what does not belong to the split."""
    label_channel: int | None = None
    """Of label files with several channels, the one that holds ids."""


@dataclass(frozen=True)
class DataSet:
    """A published data set."""

    title: str
    source: str
    """Where to get it, and how it lies below its folder."""
    splits: Mapping[str, tuple[Layout, ...]]
    """By name; of several layouts, the first that is there is used."""
    counts: Mapping[str, int]
    """Images of each split, as published."""
    stretch_labels: bool = False
    """Some labels have another size than their image, as the data set is published."""


@dataclass(frozen=True)
class Found:
    """The files of a split in one of its layouts."""

    folder: Path
    layout: Layout
    names: list[str]
    """What `{}` stands for, sorted."""
    missing: list[str]
    """Images and labels that are not there."""
    unreadable: list[str]
    """Lists of images that are not there, or name none that is."""

    def image(self, name: str) -> str:
        """Of what `{}` stands for, the image."""
        return f"{self.folder}/{self.layout.images.replace('{}', name)}"

    def label(self, name: str) -> str:
        """Of what `{}` stands for, the label."""
        return f"{self.folder}/{str(self.layout.labels).replace('{}', name)}"

    @property
    def whole(self) -> bool:
        """Whether there are images, and all that belongs to them."""
        return bool(self.names) and not self.missing and not self.unreadable


def load(settings: DatasetSettings) -> DataSet:
    """The data set that is meant."""
    found: DataSet = registry.load(registry.DATASETS, settings.name)
    return found


def published_count(settings: DatasetSettings) -> int:
    """Images of a split, as published."""
    data_set = load(settings)
    return data_set.counts[settings.split or next(iter(data_set.splits))]


def find(settings: DatasetSettings, root: Path, *, labeled: bool) -> tuple[Found, list[str]]:
    """The files of a split below the task's root, and what is wrong with them, a line each.

    Raises:
        UserError: the data set has no such split, or none with labels where they are needed.
    """
    data_set, folder = load(settings), root / (settings.name if settings.folder is None else settings.folder)
    candidates = [_found(folder, layout) for layout in _layouts(data_set, settings, labeled=labeled)]
    whole = next((found for found in candidates if found.whole), None)
    best = whole or max(candidates, key=lambda found: (len(found.names), -len(found.missing)))
    return best, [] if whole else _problems(data_set, best)


def class_ids(layout: Layout, split: SplitSettings, classes: tuple[str, ...], ignored: int) -> dict[int, int]:
    """Class index by label id; ids of classes that the task does not have are ignored.

    Raises:
        UserError: a class that the data set knows nothing of.
    """
    if split.ids is not None:
        return split.ids
    known = [name for name in dict.fromkeys(layout.ids.values()) if name is not None]
    for name in classes:
        if name not in known:
            assert split.dataset is not None
            told = nearest(name, known, f"class of the data set '{split.dataset.name}'")
            raise UserError(f"{told} (the two go by the same names, or by 'ids')")
    index = {name: at for at, name in enumerate(classes)}
    return {raw: index.get(name or "", ignored) for raw, name in layout.ids.items()}


def _layouts(data_set: DataSet, settings: DatasetSettings, *, labeled: bool) -> list[Layout]:
    split = settings.split or next(iter(data_set.splits))
    if split not in data_set.splits:
        raise UserError(nearest(split, list(data_set.splits), f"split of {data_set.title}"))
    layouts = [layout for layout in data_set.splits[split] if layout.labels is not None or not labeled]
    if not layouts:
        raise UserError(f"the split '{split}' of {data_set.title} has no labels")
    # Without a need for labels, neither their absence nor their kind matters.
    return layouts if labeled else [_unlabeled(layout) for layout in layouts]


def _unlabeled(layout: Layout) -> Layout:
    return layout if _is_named_by_labels(layout) else Layout(layout.images, None, {}, layout.named_by)


def _is_named_by_labels(layout: Layout) -> bool:
    """Whether only its labels tell which images belong to a split."""
    return bool(layout.left_out_by)


def _found(folder: Path, layout: Layout) -> Found:
    patterns = [layout.images] if layout.labels is None else [layout.images, layout.labels]
    there = {pattern: _names_there(folder, pattern) for pattern in patterns}
    known = set().union(*there.values())
    lists, told = _lists(folder, (*layout.named_by, *layout.left_out_by), known)
    named = set().union(*(lists[name] for name in layout.named_by))
    if not layout.named_by:
        named = there[patterns[-1]] if _is_named_by_labels(layout) else known
    names = sorted(named.difference(*(lists[name] for name in layout.left_out_by)))
    missing = [
        f"{folder}/{pattern.replace('{}', name)}"
        for pattern in patterns
        for name in names
        if name not in there[pattern]
    ]
    return Found(folder, layout, names, missing, told)


def _lists(folder: Path, files: tuple[str, ...], known: set[str]) -> tuple[dict[str, set[str]], list[str]]:
    """What each list of images names, and what is wrong with the lists."""
    names: dict[str, set[str]] = {file: set() for file in files}
    told: list[str] = []
    for file in files:
        try:
            names[file] = set((folder / file).read_text("utf-8-sig").split())
        except (OSError, UnicodeDecodeError):
            told.append(f"{folder / file}: no such list of images, or not readable as one")
            continue
        if known and not names[file] & known:
            told.append(
                f"{folder / file}: names no image that is there; a name such as {min(known)} is needed per line"
            )
    return names, told


def _names_there(folder: Path, pattern: str) -> set[str]:
    """What `{}` stands for in the paths that are there."""
    before, after = pattern.split("{}")
    # Only the pattern is one: a folder named `data [old]` is taken as it is. Unlike Path.glob, links are followed.
    there = glob.glob(f"{before}**/*{after}", root_dir=folder, recursive=True)  # noqa: PTH207
    return {path[len(before) : len(path) - len(after)] for path in there}


def _problems(data_set: DataSet, found: Found) -> list[str]:
    if not found.folder.is_dir():
        return [f"{found.folder}: no such folder. {data_set.title}: {data_set.source}"]
    if found.unreadable:
        return [f"{line}. {data_set.title}: {data_set.source}" for line in found.unreadable]
    if not found.names:
        pattern = found.layout.labels if _is_named_by_labels(found.layout) else found.layout.images
        return [f"{found.folder / str(pattern).replace('{}', '*')}: no such files. {data_set.title}: {data_set.source}"]
    more = len(found.missing) - TOLD
    told = [f"{file}: no such file" for file in found.missing[:TOLD]]
    return told + ([f"{found.folder}: {more} further files of {data_set.title} are missing"] if more > 0 else [])
