"""The splits of a config: where the images of each are, and how their files become arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

from selftrain.data.signature import signature
from selftrain.errors import UserError, by_problem
from selftrain.settings.base import graph_path, nearest
from selftrain.settings.config import Config
from selftrain.settings.data import (
    ListSettings,
    ReadSettings,
    ReviewSettings,
    SplitSettings,
    StreetsSettings,
    TaskSettings,
)


class Splits:
    """The splits of all tasks."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._files: dict[tuple[str, str], list[str]] = {}
        self._read: dict[tuple[str, str], ReadSettings] = {}

    def task_path(self, task: str, *parts: str) -> str:
        """A path below a task's results."""
        return "/".join([self.config.results, task, *parts])

    def task(self, name: str) -> TaskSettings:
        """A task by name."""
        if name not in self.config.tasks:
            raise UserError(nearest(name, list(self.config.tasks), "task"))
        return self.config.tasks[name]

    def splits(self, task: str) -> dict[str, SplitSettings]:
        """All splits of a task by name; `truth` is the unlabeled split with its hidden labels."""
        settings = self.task(task)
        splits = {"labeled": settings.labeled, "unlabeled": settings.unlabeled}
        splits |= {"truth": settings.unlabeled} if settings.truth else {}
        splits |= {"calibration": settings.calibration} if settings.calibration else {}
        return splits | settings.evaluation

    def split(self, task: str, name: str) -> SplitSettings:
        """A split of a task by name."""
        splits = self.splits(task)
        if name not in splits:
            raise UserError(f"tasks.{task}: {nearest(name, list(splits), 'split')}")
        return splits[name]

    def streets(self, task: str, split: str) -> StreetsSettings:
        """How the images of a split are drawn."""
        streets = self.split(task, split).streets
        if streets is None:
            raise UserError(f"{self.place(task, split)}: is not drawn (`streets`); its files are where the config says")
        return streets

    def listing(self, task: str, split: str) -> ListSettings:
        """How the images of a split are found."""
        settings, labeled = self.split(task, split), split != "unlabeled"
        of_streets = settings.streets is not None
        images, labels = (("images/*.png",), ("labels/*.png",)) if of_streets else (settings.images, settings.labels)
        drawn = self._drawn(task, split)
        return ListSettings(
            root=drawn if of_streets else self._root(task),
            data_root=self._bounds(drawn if of_streets else self.config.data_root),
            images=images,
            labels=labels if labeled else None,
            list=settings.list,
            dataset=settings.dataset,
            draw=settings.draw,
            labeled=labeled,
        )

    def _bounds(self, folder: str) -> str | None:
        return None if self.config.outside_data_root else folder

    def read(self, task: str, split: str) -> ReadSettings:
        """How the files of a split become arrays; looks for those of a published data set, once."""
        if (task, split) not in self._read:
            self._read[task, split] = self._reading(task, split)
        return self._read[task, split]

    def _reading(self, task: str, split: str) -> ReadSettings:
        settings, of_task = self.split(task, split), self.config.tasks[task]
        read = ReadSettings(
            classes=of_task.classes,
            ignore_index=of_task.ignore_index,
            ids=None if split == "unlabeled" else settings.ids,  # whose labels, if there are any, are the truth's
            size=settings.size,
            pixels=of_task.pixels,
        )
        if settings.dataset is None or split == "unlabeled":
            return read
        from selftrain.data import datasets

        found, _ = datasets.find(settings.dataset, Path(self._root(task)), labeled=True)
        of_dataset = {
            "ids": datasets.class_ids(found.layout, settings, of_task.classes, of_task.ignore_index),
            "label_channel": found.layout.label_channel,
            "stretch_labels": datasets.load(settings.dataset).stretch_labels,
        }
        return read.model_copy(update=of_dataset)

    def split_files(self, task: str, split: str) -> list[str]:
        """The files that a split is made from: images, labels, list; none of a split that is drawn.

        They are looked for once.
        """
        from selftrain.data.listing import files_of

        if self.split(task, split).streets is not None:
            return []
        if (task, split) not in self._files:
            self._files[task, split] = files_of(self.listing(task, split))
        return self._files[task, split]

    def signature(self, task: str, *splits: str) -> str:
        """What changes with any file of the splits. As inputs, 100,000 files take Snakemake half a minute a run."""
        return signature(file for split in splits for file in self.split_files(task, split))

    def drawn_folders(self, task: str, *splits: str) -> list[str]:
        """The folders of those of the splits that are drawn, which no signature has."""
        drawn = [split for split in splits if self.split(task, split).streets is not None]
        return list(dict.fromkeys(self._drawn(task, split) for split in drawn))

    @cached_property
    def split_problems(self) -> list[str]:
        """What is wrong with the files of all splits, as far as their names tell."""
        return self._problems(lambda task, split: (self.split_files(task, split), self.read(task, split)))

    @cached_property
    def reading_problems(self) -> list[str]:
        """What keeps splits from being read, whatever files there are."""
        return self._problems(self.read)

    def readable(self, task: str, split: str) -> bool:
        """Whether nothing does."""
        return not _told(partial(self.read, task, split))

    def place(self, task: str, split: str) -> str:
        """The key of a split in the config file."""
        evaluation = "evaluation." if split in self.config.tasks[task].evaluation else ""
        return f"tasks.{task}.{evaluation}{'unlabeled' if split == 'truth' else split}"

    def _problems(self, work: Callable[[str, str], object]) -> list[str]:
        found = [(task, split) for task in self.config.tasks for split in self.splits(task)]
        return by_problem((self.place(*at), line) for at in found for line in _told(partial(work, *at)))

    def review(self, task: str) -> ReviewSettings | None:
        """A person's review of a task's unlabeled images, if there is one."""
        table = self.task(task).review
        if table is None:
            return None
        return ReviewSettings(table=str(Path(self._root(task), table)), read=self.read(task, "unlabeled"))

    @cached_property
    def review_problems(self) -> list[str]:
        """Reviews that cannot be read, or are of images that are not there; masks are read by the review stage."""
        told = ((f"tasks.{task}.review", partial(self._look_at_review, task)) for task in self.config.tasks)
        return by_problem((place, problem) for place, work in told for problem in _told(work))

    def _look_at_review(self, task: str) -> None:
        from selftrain.data.listing import list_split
        from selftrain.data.review import check_name, read_review

        settings = self.review(task)
        if settings is None:
            return
        reviewed = read_review(settings.table)
        for file in self.reviewed_files(task):
            try:
                graph_path(file)
            except ValueError as error:
                raise UserError(str(error)) from None
        if self.split(task, "unlabeled").streets is not None or not self.readable(task, "unlabeled"):
            return
        names = {item.name for item in list_split(self.listing(task, "unlabeled"))}
        for one in reviewed:
            check_name(settings.table, one.image, names)

    def reviewed_files(self, task: str) -> list[str]:
        """The table of a review and its masks, for Snakemake to watch."""
        from selftrain.data.review import read_review

        settings = self.review(task)
        if settings is None:
            raise UserError(f"tasks.{task}.review: is missing; there is nothing to check")
        return [settings.table, *(str(one.mask) for one in read_review(settings.table) if one.mask is not None)]

    def review_file(self, task: str) -> dict[str, str]:
        """The review as it was checked, by the name that stages give it."""
        return {} if self.config.tasks[task].review is None else {"review": self.task_path(task, "data", "review.csv")}

    def _root(self, task: str) -> str:
        return str(Path(self.config.data_root) / self.config.tasks[task].root)

    def _drawn(self, task: str, split: str) -> str:
        return self.task_path(task, "data", "unlabeled" if split == "truth" else split, "drawn")


def _told(work: Callable[[], object]) -> list[str]:
    """The problems that it meets."""
    try:
        work()
    except UserError as error:
        return str(error).split("\n")
    return []
