"""Streams of images and the batches drawn from them; batch number `step` is a pure function of `step`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from selftrain import randomness
from selftrain.data.augmentation import augment, fill_color, to_tensor
from selftrain.data.reading import read_image, read_label
from selftrain.data.tables import read_images, working_sizes
from selftrain.errors import UserError
from selftrain.settings.data import ReadSettings, Size
from selftrain.settings.training import AugmentationSettings

LabelReader = Callable[[int], np.ndarray]
"""From an image's position in its table to its label, uint8 (H, W) with 255 for ignore, at the working size."""

Turns = dict[str, npt.NDArray[np.bool_]]
"""Per stream at which steps it gives its images, (steps,) each."""


@dataclass(frozen=True)
class Batch:
    """Images (B, channels, h, w) and labels uint8 (B, h, w) with 255 for ignore, and the images' names.

    Images are uint8, or float32 from 0 to 1 where files have 16 bits.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        images, labels = (tensor.to(device, non_blocking=True) for tensor in (self.images, self.labels))
        return Batch(images, labels, self.names)

    def pin_memory(self) -> Batch:
        """Called by the loader, so that copies to a GPU overlap its work."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.names)


class Stream:
    """The images of one split with their labels, wherever these come from.

    Args:
        table: images.csv of the split.
        read: how its files become arrays.
        labels: reads the label of an image; none: the table's label files.
    """

    def __init__(self, table: Path, read: ReadSettings, labels: LabelReader | None = None) -> None:
        rows = read_images(table)
        self.names = rows.image.to_list()
        self.image_files, self.label_files = rows.image_file.to_list(), rows.label_file.to_list()
        self.sizes = working_sizes(rows, read.size)
        self.shapes: set[Size] = set(self.sizes)
        self.read = read
        self.labels = labels or self._label_file

    def __len__(self) -> int:
        return len(self.names)

    def item(self, position: int) -> tuple[Tensor, Tensor]:
        """An image and its label before augmentation."""
        image = read_image(self.image_files[position], self.sizes[position], self.read.pixels)
        return to_tensor(image), torch.from_numpy(self.labels(position).copy())

    def _label_file(self, position: int) -> np.ndarray:
        return read_label(self.label_files[position], self.read, self.sizes[position])


class Unlabeled(Stream):
    """The images of a split without labels: 0 stands for all that is image, 255 for what augmentation adds to it."""

    def item(self, position: int) -> tuple[Tensor, Tensor]:
        """An image and a blank label before augmentation."""
        image = to_tensor(read_image(self.image_files[position], self.sizes[position], self.read.pixels))
        return image, torch.zeros(image.shape[-2:], dtype=torch.uint8)


class Batches(Dataset["dict[str, Batch] | UserError"]):
    """Step numbers to one batch per stream; every epoch of a stream has an order of its own.

    A file that cannot be read is returned as the error, for the loop to raise: raised in a loader's worker, it would
    reach the user as that worker's traceback.

    Args:
        streams: by name.
        sizes: images a step, per stream.
        augmentation: what is drawn for every image.
        mean: of the inputs from 0 to 1, the color of padding.
        place: what all draws depend on beside step and item, for example (seed, round).
        turns: per stream, at which steps it gives its images, (steps,) each; none: at every step.
        one_size: whether the streams' images must fit together, not each stream's alone.
        part: number and count of the equal parts that batches are cut into; only this one is read.

    Raises:
        UserError: without a crop, images of several sizes; a crop that no image fills; batches that cannot be cut so.
    """

    def __init__(
        self,
        streams: dict[str, Stream],
        sizes: dict[str, int],
        augmentation: AugmentationSettings,
        mean: tuple[float, ...],
        place: tuple[int, ...],
        turns: Turns | None = None,
        *,
        one_size: bool = True,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.streams, self.sizes, self.augmentation, self.place = streams, sizes, augmentation, place
        self.turns = turns
        # How many batches of a stream were drawn before each step.
        self.before = {name: np.cumsum(turn) - turn for name, turn in turns.items()} if turns else {}
        self.orders = {name: Shuffled(len(one), (*place, "order", name)) for name, one in streams.items()}
        number, parts = part
        if uneven := [f"{size} of '{name}'" for name, size in sizes.items() if size % parts]:
            raise UserError(
                f"train.batch_size: a step's images, {', '.join(uneven)}, cannot be shared by {parts} processes; "
                f"let each be a multiple of {parts}"
            )
        each = {name: size // parts for name, size in sizes.items()}
        self.items = {name: range(number * size, (number + 1) * size) for name, size in each.items()}
        bits = next(iter(streams.values())).read.pixels.bits  # of all alike: they are of one task
        self.fill = fill_color(mean, bits)
        of_streams = [stream.shapes for stream in streams.values()]
        _refuse_crop(augmentation, set().union(*of_streams))
        for shapes in [] if augmentation.crop else [set().union(*of_streams)] if one_size else of_streams:
            if len(shapes) > 1:
                told = ", ".join(f"{height}×{width}" for height, width in sorted(shapes)[:4])
                raise UserError(
                    f"images of {len(shapes)} sizes ({told}, ...) do not fit in one batch; "
                    "set train.augmentation.crop, or a working size for the split"
                )

    def __getitem__(self, step: int) -> dict[str, Batch] | UserError:
        try:
            return {name: self._batch(name, step) for name in self.streams if self._has_turn(name, step)}
        except UserError as error:
            return error

    def _has_turn(self, name: str, step: int) -> bool:
        return self.turns is None or bool(self.turns[name][step])

    def _batch(self, name: str, step: int) -> Batch:
        stream, size, items = self.streams[name], self.sizes[name], self.items[name]
        drawn = (int(self.before[name][step]) if self.before else step) * size
        positions = [self.orders[name](drawn + item) for item in items]
        pairs = [self._augmented(stream, name, step, item, at) for item, at in zip(items, positions, strict=True)]
        names = tuple(stream.names[at] for at in positions)
        return Batch(torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs]), names)

    def _augmented(self, stream: Stream, name: str, step: int, item: int, position: int) -> tuple[Tensor, Tensor]:
        draw = randomness.generator(*self.place, "augment", name, step, item)
        return augment(*stream.item(position), self.augmentation, draw, self.fill)


def _refuse_crop(augmentation: AugmentationSettings, shapes: set[Size]) -> None:
    """A crop that is higher, or wider, than every image at its largest scale: each would have a border of nothing."""
    for side, crop in enumerate(augmentation.crop or ()):
        largest = math.ceil(max(shape[side] for shape in shapes) * augmentation.scale[1])
        if crop > largest:
            told = f"{crop} is more than any image is {('high', 'wide')[side]}, {largest} at the largest scale"
            raise UserError(f"train.augmentation.crop: {told}; give a smaller crop, or a larger scale")


@dataclass(frozen=True)
class Shuffled:
    """Epochs, each an order of its own of so many images; `place` is what their draws depend on."""

    images: int
    place: tuple[int | str, ...]

    def __call__(self, drawn: int) -> int:
        """The position of the image that is drawn after so many."""
        epoch, number = divmod(drawn, self.images)
        return int(shuffled(self.images, *self.place, epoch)[number])


@lru_cache(maxsize=16)
def shuffled(images: int, *place: int | str) -> npt.NDArray[np.int64]:
    """The positions of so many images in a random order."""
    return randomness.generator(*place).permutation(images)


def unbatched(loaded: dict[str, Batch] | UserError) -> dict[str, Batch] | UserError:
    """What the loader does to a batch that is one already: nothing."""
    return loaded
