"""Settings of data: what a task is made of, and where its files are."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from selftrain.settings.base import Problem, Settings, one_or_many, refuse

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Length = Annotated[int, Field(ge=1)]
Size = tuple[Length, Length]
Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]
LabelId = Annotated[int, Field(ge=0, le=65535)]
Patterns = Annotated[
    tuple[str, ...], BeforeValidator(one_or_many, json_schema_input_type=str | list[str]), Field(min_length=1)
]

IGNORE = 255
"""The ignore index inside the pipeline, whatever the label files use."""


class StreetsSettings(Settings):
    """Images drawn by the built-in renderer, written as ordinary files."""

    domain: Literal["synthetic", "real"]
    count: Annotated[int, Field(ge=1)]
    seed: int = 0
    size: Size = (96, 192)
    """Height and width, in pixels."""


class SplitSettings(Settings):
    """One set of images, with or without labels: by globs, by a list file, or drawn."""

    images: Patterns | None = None
    """Globs below the task's root."""
    labels: Patterns | None = None
    """Globs below the task's root; a label belongs to the image of the same stem."""
    list: str | None = None
    """A file below the task's root: an image, or an image and its label, per line, below the root as well."""
    streets: StreetsSettings | None = None
    size: Size | None = None
    """Working height and width; none: each image's own. Scores are always taken at the label's own size."""
    ids: dict[LabelId, int] | None = None
    """Label id in the files to class index (or the ignore index); none: ids are class indices."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = [key for key in ("images", "list", "streets") if getattr(self, key) is not None]
        if len(sources) != 1:
            given = " and ".join(f"'{key}'" for key in sources) or "none"
            raise ValueError(f"give exactly one of 'images', 'list' and 'streets', not {given}")
        if self.labels is not None and self.images is None:
            refuse([(("labels",), "goes with 'images'; a list file names the label after the image")])
        return self


class PixelSettings(Settings):
    """What a task's image files hold; those of another kind are refused."""

    channels: Annotated[int, Field(ge=1)] = 3
    """Per pixel, alpha included. Gray files do for 3 channels as well as for 1; TIFF and .npy files have any number."""
    bits: Literal[8, 16] = 8
    """Per value. JPEG has 8; 16 are of PNG, TIFF or .npy files."""


class TaskSettings(Settings):
    """Labels in one place, images in another, and where the result is measured."""

    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=255)]
    """Class names, in the order of their indices."""
    colors: tuple[Color, ...] | None = None
    """One per class, for masks and pictures; none: a palette is made."""
    ignore_index: LabelId = IGNORE
    """The id in the label files that means no class."""
    root: str = ""
    """A folder below data_root that all paths of the task start from."""
    pixels: PixelSettings = PixelSettings()
    """Of the images of all splits."""
    labeled: SplitSettings
    unlabeled: SplitSettings
    truth: bool = False
    """The unlabeled split has hidden labels, used for scoring pseudo-labels and nothing else."""
    evaluation: dict[Name, SplitSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse([*self._class_problems(), *self._split_problems()])
        return self

    def _class_problems(self) -> Iterator[Problem]:
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice:
            yield ("classes",), f"{', '.join(twice)} named twice"
        if self.colors is not None and len(self.colors) != len(self.classes):
            yield ("colors",), f"{len(self.colors)} for {len(self.classes)} classes; give one per class"
        if self.ignore_index < len(self.classes):
            name = self.classes[self.ignore_index]
            yield ("ignore_index",), f"{self.ignore_index} is the class '{name}'; use an id that is no class"

    def _split_problems(self) -> Iterator[Problem]:
        for name in {"labeled", "unlabeled", "truth"} & set(self.evaluation):
            yield ("evaluation", name), "the name of another split; choose another name"
        splits: dict[tuple[str, ...], SplitSettings] = {("labeled",): self.labeled, ("unlabeled",): self.unlabeled}
        splits |= {("evaluation", name): split for name, split in self.evaluation.items()}
        for where, split in splits.items():
            if split.streets is not None and self.pixels != PixelSettings():
                yield (*where, "streets"), "are 8-bit RGB images; the task's 'pixels' say otherwise"
            if where == ("unlabeled",) and not self.truth:
                continue
            if split.images is not None and split.labels is None:
                yield (*where, "labels"), "is missing" + (", and 'truth' needs it" if where == ("unlabeled",) else "")
            yield from self._id_problems((*where, "ids"), split.ids or {})

    def _id_problems(self, where: tuple[str, ...], ids: dict[int, int]) -> Iterator[Problem]:
        known = f"neither a class (0 to {len(self.classes) - 1}) nor the ignore index ({self.ignore_index})"
        for raw, index in ids.items():
            if not (0 <= index < len(self.classes) or index == self.ignore_index):
                yield (*where, str(raw)), f"maps to {index}, which is {known}"


class ListSettings(Settings):
    """All that listing one split depends on; paths are below `root`."""

    root: str
    data_root: str
    images: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    list: str | None
    labeled: bool
    """Whether label files are needed (and read at all)."""


class ReadSettings(Settings):
    """How the files of one split become arrays."""

    classes: tuple[str, ...]
    ignore_index: int
    ids: dict[LabelId, int] | None = None
    size: Size | None = None
    pixels: PixelSettings = PixelSettings()


class CheckedSplit(Settings):
    """One split to be verified."""

    list: ListSettings
    read: ReadSettings


class CheckSettings(Settings):
    """All splits of a task, verified together."""

    task: str
    splits: dict[str, CheckedSplit]
