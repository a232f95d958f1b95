"""Settings of data: what a task is made of, and where its files are."""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from selftrain.names import writable
from selftrain.settings.base import GraphPath, Problem, Settings, by_name, nearest, one_or_many, refuse
from selftrain.settings.classes import TABLES, ClassTable

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Length = Annotated[int, Field(ge=1, strict=True)]
Size = tuple[Length, Length]


def _size(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | list | tuple):
        raise ValueError(f"should be a height such as 720, or height and width such as [720, 1280], not {value!r}")
    return value


WorkingSize = Annotated[
    Annotated[Size, Tag("[both]")] | Annotated[Length, Tag("[height]")],
    Discriminator(lambda value: "[height]" if isinstance(value, int) else "[both]"),
    BeforeValidator(_size, json_schema_input_type=Size | Length),
]
"""Height and width, or height alone, the width following from an image's shape."""
Byte = Annotated[int, Field(ge=0, le=255, strict=True)]
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
    """How many are drawn."""
    seed: int = 0
    """Other images with another one."""
    size: Size = (96, 192)
    """Height and width, in pixels."""


DatasetName = Literal["cityscapes", "gta5", "synthia", "voc", "bdd100k", "camvid"]


class DatasetSettings(Settings):
    """Images of a published data set, found in its usual folders; class names tell which label ids are meant."""

    name: DatasetName
    split: str | None = None
    """Such as `train`, or what the data set calls it; none: its first one."""
    folder: str | None = None
    """Below the task's root; none: the data set's name."""


def _count(value: Any) -> int | str:
    """A number of images, or the text of a share of them."""
    try:
        whole = isinstance(value, int) and not isinstance(value, bool)
        right = value >= 1 if whole else isinstance(value, str | float) and 0 < Fraction(str(value)) < 1
    except (ValueError, ZeroDivisionError):
        right = False
    if not right:
        given = "empty" if value is None else repr(value)
        raise ValueError(f"should be a number of images, or a share of them such as 1/8, not {given}")
    return value if isinstance(value, int) else str(value)


class DrawSettings(Settings):
    """Some of the images, drawn at random; those of a smaller count are among those of a larger one."""

    count: Annotated[int | str, BeforeValidator(_count)]
    """Images, or a share of all such as 1/8, rounded up."""
    seed: int = 0
    """Other images with another one."""
    rest: bool = False
    """Those that are not drawn: the unlabeled images beside a labeled part of one set."""

    def of(self, images: int) -> int:
        """How many of so many images are drawn."""
        return -int(-images * Fraction(self.count) // 1) if isinstance(self.count, str) else self.count


class SplitSettings(Settings):
    """One set of images, with or without labels: by globs, by a list file, of a published data set, or drawn."""

    images: Patterns | None = None
    """Globs below the task's root."""
    labels: Patterns | None = None
    """Globs below the task's root; a label belongs to the image of the same stem."""
    list: str | None = None
    """A file below the task's root: an image, or an image and its label, per line, below the root as well."""
    dataset: Annotated[
        DatasetSettings | None,
        BeforeValidator(by_name, json_schema_input_type=DatasetSettings | DatasetName | None),
    ] = None
    streets: StreetsSettings | None = None
    draw: DrawSettings | None = None
    """Only a part of these images."""
    size: WorkingSize | None = None
    """Working height and width, or height alone, the width following; none: each image's own."""
    score_size: Size | None = None
    """Of an evaluation split, the height and width that scores are taken at; none: the label's own, as it should be
    (papers that score at half size are compared with by this)."""
    ids: dict[LabelId, int] | None = None
    """Label id in the files to class index (or the ignore index); none: ids are class indices, and those of a data set
    follow from the names of the classes."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        keys = ("images", "list", "dataset", "streets")
        sources = [key for key in keys if getattr(self, key) is not None]
        if len(sources) != 1:
            given = " and ".join(f"'{key}'" for key in sources) or "none"
            raise ValueError(f"give exactly one of 'images', 'list', 'dataset' and 'streets', not {given}")
        if self.streets is not None and self.draw is not None and self.draw.of(self.streets.count) > self.streets.count:
            refuse([(("draw", "count"), f"{self.draw.count} of the {self.streets.count} images of 'streets'")])
        if self.labels is not None and self.images is None:
            refuse([(("labels",), "goes with 'images'; a list file names the label after the image")])
        return self


class PixelSettings(Settings):
    """What a task's image files hold; those of another kind are refused."""

    channels: Length = 3
    """Per pixel, alpha included. Gray files do for 3 channels as well as for 1; TIFF and .npy files have any number."""
    bits: Literal[8, 16] = 8
    """Per value. JPEG has 8; 16 are of PNG, TIFF or .npy files."""
    limit: Length = 200
    """Million pixels that an image or a label may have. A small file can hold a picture that fills the memory, so a
    larger one is refused before it is decoded."""

    @property
    def plain(self) -> bool:
        """Whether they are 8-bit RGB."""
        return (self.channels, self.bits) == (3, 8)


def _classes(value: Any) -> Any:
    """The names in a table, for its name."""
    if isinstance(value, str) and value not in TABLES:
        raise ValueError(nearest(value, list(TABLES), "table of classes"))
    return tuple(TABLES[value]) if isinstance(value, str) else value


ClassNames = Annotated[tuple[str, ...], BeforeValidator(_classes, json_schema_input_type=list[str] | ClassTable)]


class SubsetSettings(Settings):
    """Some of the classes, over which a mean IoU is taken beside that over all."""

    classes: Annotated[ClassNames, Field(min_length=1)]
    """Their names."""
    others: Literal["counted", "ignored"] = "counted"
    """Pixels whose true class is another: they count for the union of what they are taken for, or not at all."""


class GroupSettings(Settings):
    """Classes by how often they appear and how large they are (DARS section 4.4), over each of which a mean IoU is
    taken: `frequent_large`, `frequent_small`, `rare_large`, `rare_small`."""

    frequency: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A class is frequent that more than this share of the labeled images shows."""
    size: Annotated[float, Field(ge=0, le=1)] = 0.1
    """A class is large that takes, on average where it is present, more than this share of the image."""


class TaskSettings(Settings):
    """Labels in one place, images in another, and where the result is measured."""

    classes: Annotated[ClassNames, Field(min_length=2, max_length=255)]
    """Class names, in the order of their indices; or the name of a table of them, with colors."""
    colors: tuple[Color, ...] | None = None
    """One per class, for masks and pictures; none: those of the table, or a palette that is made."""
    subsets: dict[Name, SubsetSettings] = Field(default_factory=dict)
    """Further means of IoU, by name."""
    groups: GroupSettings = GroupSettings()
    """How classes are told apart by frequency and size, for further means of IoU."""
    ignore_index: LabelId = IGNORE
    """The id in the label files that means no class."""
    root: str = ""
    """A folder below data_root that all paths of the task start from."""
    pixels: PixelSettings = PixelSettings()
    """Of the images of all splits."""
    labeled: SplitSettings
    """Images with labels, to learn from."""
    unlabeled: SplitSettings
    """Images to learn from without labels."""
    review: GraphPath | None = None
    """Images whose pseudo-labels a person leaves out or replaces, in every round: CSV with the columns image,
    exclude (yes or no), mask (a PNG of class ids, its path seen from the table's folder), reason."""
    transductive: bool = False
    """An evaluation split may have the very images of the unlabeled one, so that scores are of images that were learned
    from, without their labels."""
    truth: bool = False
    """The unlabeled split has hidden labels: pseudo-labels are scored against them, the report shows them, and
    only what is called an oracle learns from them."""
    calibration: SplitSettings | None = None
    """Held-out labels that calibrators are fitted on and nothing is trained on; needed where predictions ask for it."""
    evaluation: dict[Name, SplitSettings] = Field(min_length=1)
    """Splits with labels that every model is scored on, by names of your own."""

    @model_validator(mode="before")
    @classmethod
    def _colors_of_the_table(cls, value: Any) -> Any:
        table = value.get("classes") if isinstance(value, dict) else None
        if isinstance(table, str) and table in TABLES and value.get("colors") is None:
            return value | {"colors": tuple(TABLES[table].values())}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse([*self._class_problems(), *self._draw_problems(), *self._split_problems()])
        return self

    def _class_problems(self) -> Iterator[Problem]:
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice:
            yield ("classes",), f"{', '.join(twice)} named twice"
        if odd := [name for name in self.classes if not name.strip() or not writable(name)]:
            yield ("classes",), f"{odd[0]!r} cannot stand in a table; give a name on one line"
        if self.colors is not None and len(self.colors) != len(self.classes):
            yield ("colors",), f"{len(self.colors)} for {len(self.classes)} classes; give one per class"
        if self.ignore_index < len(self.classes):
            name = self.classes[self.ignore_index]
            yield ("ignore_index",), f"{self.ignore_index} is the class '{name}'; use an id that is no class"
        for subset, settings in self.subsets.items():
            for one in settings.classes:
                if one not in self.classes:
                    yield ("subsets", subset, "classes"), nearest(one, list(self.classes), "class")

    def _draw_problems(self) -> Iterator[Problem]:
        """A rest that is not that of the labeled part."""
        sources = [(one.images, one.list, one.dataset, one.streets) for one in (self.labeled, self.unlabeled)]
        drawn, left = self.labeled.draw, self.unlabeled.draw
        if drawn is None or left is None or not left.rest or sources[0] != sources[1]:
            return
        for key in ("count", "seed"):
            if getattr(drawn, key) != getattr(left, key):
                reason = f"{getattr(left, key)} is not that of 'labeled' ({getattr(drawn, key)}), whose rest this is"
                yield ("unlabeled", "draw", key), reason

    def _split_problems(self) -> Iterator[Problem]:
        for name in {"labeled", "unlabeled", "truth", "calibration"} & set(self.evaluation):
            yield ("evaluation", name), "the name of another split; choose another name"
        splits: dict[tuple[str, ...], SplitSettings] = {("labeled",): self.labeled, ("unlabeled",): self.unlabeled}
        splits |= {} if self.calibration is None else {("calibration",): self.calibration}
        splits |= {("evaluation", name): split for name, split in self.evaluation.items()}
        for where, split in splits.items():
            if split.score_size is not None and where[0] != "evaluation":
                yield (*where, "score_size"), "is for evaluation splits; this one is not scored"
            if split.streets is not None and split.ids is None and self.classes != tuple(TABLES["camvid"]):
                yield (
                    (*where, "streets"),
                    "have the classes of the table 'camvid', in its order; write `classes: camvid`",
                )
            if split.streets is not None and not self.pixels.plain:
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
    data_root: str | None
    """None: list files may name files outside of it."""
    images: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    list: str | None
    dataset: DatasetSettings | None = None
    draw: DrawSettings | None = None
    labeled: bool
    """Whether label files are needed (and read at all)."""


class ReadSettings(Settings):
    """How the files of one split become arrays."""

    classes: tuple[str, ...]
    ignore_index: int
    ids: dict[LabelId, int] | None = None
    size: WorkingSize | None = None
    pixels: PixelSettings = PixelSettings()
    label_channel: int | None = None
    """Of label files with several channels of 16 bits, the one that holds class ids."""
    stretch_labels: bool = False
    """Labels of another size than their image are known, and stretched to it; else they are refused."""


class ReviewSettings(Settings):
    """All that checking a review depends on, beside its masks and the images."""

    table: str
    read: ReadSettings
    """How the unlabeled images become arrays."""


class CheckedSplit(Settings):
    """One split to be verified."""

    list: ListSettings
    read: ReadSettings


class CheckSettings(Settings):
    """All splits of a task, verified together."""

    task: str
    splits: dict[str, CheckedSplit]
    transductive: bool = False
