"""A picture of what is known of one image: the photo, its classes, their confidence, and where branches disagree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from selftrain import artifacts
from selftrain.confidence import log_odds_of
from selftrain.data.decoding import DEFAULT, image_size, refuse_large
from selftrain.data.palette import palette
from selftrain.data.reading import read_image, read_photo
from selftrain.data.tables import read_images
from selftrain.errors import UserError
from selftrain.label import pseudo_labels
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.predict import store
from selftrain.predict.store import Predictions
from selftrain.settings.base import nearest
from selftrain.settings.data import IGNORE, PixelSettings

KNOWN = "show draws images of pseudo_labels.h5, of a shard of predictions, or of a model.safetensors"
ENDINGS = ("jpg", "pdf", "png", "svg", "tif", "webp")
WIDTH = 4.2
"""Of a panel, in inches."""
DISAGREE = "#ff00c8"
AGREEMENT = LinearSegmentedColormap.from_list("agreement", [DISAGREE, "white"])


@dataclass(frozen=True, eq=False)
class Shown:
    """What there is to draw of an image.

    Attributes:
        name: of the image.
        kind: what `classes` are.
        classes: ids (h, w), 255 where there is none.
        log_odds: of the predicted class (h, w).
        names: of the classes.
        colors: 768 values of a palette.
        share: of the branches that name the most frequent class (h, w), from 1 / `branches` to 1.
        branches: how many; 1: there is nothing to agree.
        photo_file: where it was found.
    """

    name: str
    kind: str
    classes: np.ndarray
    log_odds: np.ndarray
    names: list[str]
    colors: list[int]
    share: np.ndarray
    branches: int
    photo_file: Path | None

    @property
    def photo(self) -> np.ndarray | None:
        """At the size of the classes, uint8 (h, w, 3)."""
        height, width = self.classes.shape
        return None if self.photo_file is None else read_photo(self.photo_file, (height, width))


def show(
    file: Path,
    output: Path,
    *,
    image: str | None = None,
    table: Path | None = None,
    limit: int = DEFAULT.limit,
    own_code: str | bool = True,
) -> None:
    """Draw image, label, confidence and agreement side by side.

    Args:
        file: pseudo_labels.h5, a shard of predictions, or a model file.
        output: the picture; its ending says of which kind.
        image: which one by name (the first unless said), or, of a model, the image file.
        table: images.csv that says where the photos are; none: that of the task that `file` is in, if it is in one.
        limit: million pixels that a photo may have.
        own_code: see `models.files.load`.

    Raises:
        UserError: another file, an image that is not in it, or an output that is one of the inputs.
    """
    ending = output.suffix.removeprefix(".").lower()
    if ending not in ENDINGS or output.is_dir():
        raise UserError(f"{output}: name a picture that ends in one of {', '.join(f'.{one}' for one in ENDINGS)}")
    shown = _shown(file, image, table, own_code)
    if output.resolve() in {path.resolve() for path in (file, table, shown.photo_file) if path is not None}:
        raise UserError(f"{output}: the picture would take the place of what it shows; give it another name")
    if shown.photo_file is not None:
        refuse_large(shown.photo_file, image_size(shown.photo_file), PixelSettings(limit=limit))
    figure = draw(shown)
    with artifacts.writing(output) as temporary:
        figure.savefig(temporary, format=ending, dpi=110)


def draw(shown: Shown) -> Figure:
    """The panels, as a figure for a file or a notebook."""
    (height, width), photo = shown.classes.shape, shown.photo
    count = 2 + (photo is not None) + (shown.branches > 1)
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "text.parse_math": False}):
        size = (WIDTH * count, WIDTH * height / width + 0.9)
        figure = Figure(figsize=size, layout="constrained")
        panels = iter(figure.subplots(1, count, squeeze=False)[0])
        if photo is not None:
            axes = next(panels)
            axes.imshow(photo)
            axes.set_title("image")
        _draw_classes(next(panels), shown, photo)
        _draw_map(next(panels), shown.log_odds, "confidence (log-odds)", "viridis", (-8.0, 24.0))
        if shown.branches > 1:
            agree = (shown.share == 1).mean()
            title = f"branches that agree ({agree:.0%} of the pixels: all {shown.branches})"
            scale = _draw_map(next(panels), shown.share, title, AGREEMENT, (1 / shown.branches, 1))
            numbers = range(1, shown.branches + 1)
            scale.set_ticks([one / shown.branches for one in numbers], labels=[str(one) for one in numbers])
        for axes in figure.axes[:count]:
            axes.set_xticks([])
            axes.set_yticks([])
        figure.suptitle(shown.name)
        present = [index for index in range(len(shown.names)) if (shown.classes == index).any()]
        colors = np.reshape(shown.colors, (256, 3)) / 255
        patches = [Patch(facecolor=tuple(colors[index]), label=shown.names[index]) for index in present]
        figure.legend(handles=patches, loc="outside lower left", ncols=8, frameon=False, handlelength=1)
        return figure


def _draw_classes(axes: Axes, shown: Shown, photo: np.ndarray | None) -> None:
    """Classes over the photo; what has none lies in the dark."""
    colors = np.reshape(shown.colors, (256, 3))[shown.classes]
    known = (shown.classes != IGNORE)[..., None]
    below, strength = (0, 1.0) if photo is None else (photo, 0.65)
    axes.imshow(np.where(known, strength * colors + (1 - strength) * below, 0.3 * np.asarray(below)).astype(np.uint8))
    share = known.mean()
    axes.set_title(shown.kind if share == 1 else f"{shown.kind} ({share:.0%} of the pixels)")


def _draw_map(axes: Axes, values: np.ndarray, title: str, colors: object, limits: tuple[float, float]) -> Colorbar:
    drawn = axes.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1], interpolation="nearest")  # type: ignore[arg-type]
    axes.set_title(title)
    return axes.get_figure().colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)  # type: ignore[union-attr]


def _shown(file: Path, image: str | None, table: Path | None, own_code: str | bool = True) -> Shown:
    """What a file says of an image; files are told by their content."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if not h5py.is_hdf5(file):
        return _of_model(file, image, own_code)
    try:
        with h5py.File(file, "r") as opened:
            kind = opened.attrs.get("format")
    except OSError as error:
        raise UserError(f"{file}: not a whole HDF5 file ({error})") from None
    if kind == pseudo_labels.FORMAT.name:
        return _of_pseudo_labels(file, image, table)
    if kind == store.FORMAT.name:
        return _of_predictions(file, image, table)
    raise UserError(f"{file}: {KNOWN}; this is none of them")


def _of_pseudo_labels(file: Path, image: str | None, table: Path | None) -> Shown:
    labels = PseudoLabels(file)
    name = _named(file, image, labels.names)
    label = labels.label(name)
    return Shown(
        name,
        f"pseudo-labels of round {labels.attributes['round']}",
        label,
        labels.confidence(name),
        labels.class_names,
        _colors(labels.attributes, len(labels.class_names)),
        labels.agreement(name) / labels.branches,
        labels.branches,
        _photo(file, name, table),
    )


def _of_predictions(file: Path, image: str | None, table: Path | None) -> Shown:
    with Predictions(file) as shard:
        name = _named(file, image, shard.images)
        position = shard.images.index(name)
        classes, bins = shard.read(position)
        return Shown(
            name,
            "prediction",
            classes,
            log_odds_of(bins),
            list(shard.classes),
            _colors(shard.attributes, len(shard.classes)),
            shard.agreement(position) / shard.branches,
            shard.branches,
            _photo(file, name, table),
        )


def _of_model(file: Path, image: str | None, own_code: str | bool) -> Shown:
    """What a model says of an image file, now."""
    import torch  # not above: drawing what is in a file needs no network

    from selftrain.data.augmentation import to_tensor
    from selftrain.models.files import pixels_of, read_about
    from selftrain.predict.forward import load_predictor
    from selftrain.settings.prediction import InferenceSettings

    if file.suffix != ".safetensors":
        raise UserError(f"{file}: {KNOWN}; this is none of them")
    if image is None:
        raise UserError(f"{file}: is a model; give the image file that it is to predict with --image")
    cpu = torch.device("cpu")
    predictor = load_predictor(file, InferenceSettings(), cpu, count_agreement=True, own_code=own_code)
    about = read_about(file)
    pixels = read_image(image, pixels=pixels_of(about))
    size = (pixels.shape[0], pixels.shape[1])
    planes = predictor(to_tensor(pixels)[None], [image], size).on_host([image])
    agreeing = np.ones((1, *size)) if planes.agreement is None else planes.agreement / predictor.branches
    return Shown(
        Path(image).name,
        "prediction",
        planes.classes[0],
        log_odds_of(planes.bins[0]),
        list(about["classes"]),
        palette(predictor.classes, about["colors"]),
        agreeing[0],
        predictor.branches,
        Path(image),
    )


def _named(file: Path, image: str | None, names: list[str]) -> str:
    if image is None and names:
        return names[0]
    if image not in names:
        raise UserError(f"{file}: {nearest(str(image), names, 'image')} (`selftrain inspect --images` lists all)")
    return image


def _colors(attributes: dict[str, object], classes: int) -> list[int]:
    return palette(classes, json.loads(str(attributes.get("colors", "null"))))


def _photo(file: Path, name: str, table: Path | None) -> Path | None:
    """The photo, from the table of its split; nothing where neither is found."""
    beside = (folder / "data" / "unlabeled" / "images.csv" for folder in file.resolve().parents)
    found = table or next((path for path in beside if path.is_file()), None)
    if found is None:
        return None
    try:
        files = read_images(found).set_index("image").image_file
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{found}: not a table of images ({error})") from None
    if name not in files.index or not Path(files[name]).is_file():
        if table is not None:
            raise UserError(f"{table}: names no photo of '{name}' that is there")
        return None
    return Path(files[name])
