import copy
import time
from threading import get_ident

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from exact import quantize
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F

from selftrain.artifacts import digest_file
from selftrain.confidence import log_odds_of, probability_of
from selftrain.data.augmentation import to_tensor
from selftrain.data.images import batched, shard_of, working_sizes
from selftrain.data.palette import palette
from selftrain.data.reading import read_image
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.models.segmenter import Segmenter
from selftrain.predict import forward
from selftrain.predict.folder import predict_folder
from selftrain.predict.forward import Predictor, load_predictor
from selftrain.predict.stage import predict_shard
from selftrain.predict.store import Predictions, read_histograms
from selftrain.predict.writer import PredictionWriter
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import InferenceSettings, PredictionSettings, PredictStageSettings

SINGLE = PredictionSettings()
PATCHES = {"size": (16, 24), "count": 5}
SIZES = [(32, 48), (32, 48), (20, 30), (32, 48), (48, 32), (48, 32), (24, 24), (24, 24), (32, 48)]


class Bytes(torch.nn.Sequential):
    """Takes bytes and fractions, as a segmenter does."""

    def forward(self, images):
        return super().forward(images.float() / 255 if images.dtype == torch.uint8 else images)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny.save_model(path)
    return path


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Bytes(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(8, 4, 1))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return tiny.split(tmp_path_factory.mktemp("data") / "mixed", SIZES, label_files=False)


# Averaging


def brute_average(network, images, scales, flips, size):
    """Sum of the views' probabilities in float64, an image at a time."""
    total = 0.0
    for scale in scales:
        for flip in flips:
            view = images.double()
            shape = [max(1, round(side * scale)) for side in images.shape[-2:]]
            view = F.interpolate(view, shape, mode="bilinear", align_corners=False, antialias=True)
            logits = copy.deepcopy(network).double()(torch.flip(view, [3]) if flip else view)
            logits = torch.flip(logits, [3]) if flip else logits
            total += F.interpolate(logits, size, mode="bilinear", align_corners=False).softmax(1)
    return total.detach().numpy()


@pytest.mark.parametrize(
    ("scales", "flip"), [((1.0,), False), ((1.0,), True), ((0.5, 1.0, 1.7), False), ((0.75, 1.25), True)]
)
@pytest.mark.parametrize("size", [(20, 26), (33, 41)])
def test_averaging_is_the_mean_of_all_views(network, scales, flip, size):
    images = torch.randint(0, 256, (2, 3, 20, 26), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    predictor = Predictor(network, 4, InferenceSettings(scales=scales, flip=flip))
    classes, bins, _ = predictor(images, ["a", "b"], size).decided()
    sums = brute_average(network, images / 255, scales, (False, True) if flip else (False,), size)
    top = np.sort(sums, 1)
    close = top[:, -1] - top[:, -2] < 1e-5
    assert close.mean() < 0.01 and (close | (classes.numpy() == sums.argmax(1))).all()
    log_odds = np.log(top[:, -1]) - np.log(top[:, :-1].sum(1))
    assert np.abs(bins.numpy().astype(int) - quantize(log_odds)).max() <= 1
    assert classes.shape == bins.shape == (2, *size) and classes.dtype == torch.uint8


def test_a_flip_is_undone(network):
    """A network that sees only columns: the average of both views is symmetric where the image is."""
    images = torch.randint(0, 128, (1, 3, 12, 13), dtype=torch.uint8)
    symmetric = images + images.flip(-1)
    _, bins, _ = Predictor(network, 4, InferenceSettings(flip=True))(symmetric, ["a"], (12, 13)).decided()
    assert torch.equal(bins, bins.flip(-1))


# Shards


@given(count=st.integers(1, 300), batch_size=st.integers(1, 20), shards=st.integers(1, 40))
def test_shards_are_whole_batches_that_cover_all_once(count, batch_size, shards):
    parts = [shard_of(count, batch_size, shard, shards) for shard in range(shards)]
    assert [position for part in parts for position in part] == list(range(count))
    assert all(part.start % batch_size == 0 for part in parts if part)
    batches = -(-count // batch_size)
    assert max(map(len, parts)) <= -(-batches // shards) * batch_size


def test_batches_hold_images_of_one_size_in_order(mixed):
    table = pd.read_csv(mixed, keep_default_na=False)
    groups = [batch.positions for batch in batched(table, None, 4, range(len(table)))]
    assert groups == [[0, 1], [2], [3], [4, 5], [6, 7], [8]]
    for batch in batched(table, None, 4, range(4, 8)):
        for position, pixels in zip(batch.positions, batch.pixels, strict=True):
            assert torch.equal(pixels, to_tensor(read_image(table.image_file[position])))
    assert [batch.pixels.shape for batch in batched(table, (10, 12), 4, range(9))] == [
        (n, 3, 10, 12) for n in (4, 4, 1)
    ]
    assert working_sizes(table, (10, 12)) == [(10, 12)] * 9 and working_sizes(table, None) == SIZES


def predicted(folder, model, images, shards, batch_size=2, threads=1, **changes):
    written = []
    for shard in range(shards):
        settings = PredictStageSettings(
            prediction=changes.get("prediction", SINGLE),
            seed=changes.get("seed", 0),
            batch_size=batch_size,
            shard=shard,
            shards=shards,
            read=tiny.READ.model_copy(update=changes.get("read", {})),
        )
        written.append(folder / f"{shards}-{shard}.h5")
        predict_shard(settings, model, images, written[-1], threads=threads)
    found = {}
    for file in written:
        with Predictions(file, tiny.CLASSES) as shard:
            found |= {name: shard.read(position) for position, name in enumerate(shard.images)}
    return found, read_histograms(written)


@pytest.mark.parametrize(
    "prediction", [SINGLE, PredictionSettings(flip=True, scales=(1.0, 1.5)), PredictionSettings(patches=PATCHES)]
)
def test_shards_change_nothing(tmp_path, model, mixed, prediction):
    one, histogram = predicted(tmp_path, model, mixed, 1, prediction=prediction)
    assert [classes.shape for classes, _ in one.values()] == SIZES
    for shards in (3, 7):
        several, sums = predicted(tmp_path, model, mixed, shards, prediction=prediction)
        assert list(several) == list(one) and (sums == histogram).all()
        assert all((several[name][kind] == one[name][kind]).all() for name in one for kind in (0, 1))


def test_threads_that_end_in_another_order_change_no_byte(tmp_path, model, mixed, monkeypatch):
    pack, files = PredictionWriter.pack, []

    def dawdling(step):
        def packing(self, position, *planes):
            time.sleep(0.03 * (position * step % 3))
            return pack(self, position, *planes)

        return packing

    for step in (0, 1, 2):
        monkeypatch.setattr(PredictionWriter, "pack", dawdling(step))
        predicted(tmp_path, model, mixed, 1, batch_size=1, threads=4)
        files.append((tmp_path / "1-0.h5").read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_cpu_decides_beside_the_network(tmp_path, model, mixed, monkeypatch):
    decide, segment, decided, seen = forward.decide, Segmenter.forward, [], []

    def deciding(*arguments):
        decided.append(get_ident())
        return decide(*arguments)

    def segmenting(self, images, **options):
        seen.append(get_ident())
        return segment(self, images, **options)

    monkeypatch.setattr(forward, "decide", deciding)
    monkeypatch.setattr(Segmenter, "forward", segmenting)
    predicted(tmp_path, model, mixed, 1)
    assert set(seen) == {get_ident()} and decided and get_ident() not in decided


def test_a_shard_says_which_model_made_it_and_counts_its_pixels(tmp_path, model, mixed):
    found, histogram = predicted(tmp_path, model, mixed, 1, read={"size": (16, 24)})
    with Predictions(tmp_path / "1-0.h5") as shard:
        assert shard.attributes["model"] == digest_file(model) and shard.attributes["mode"] == "single"
        assert shard.images == pd.read_csv(mixed).image.to_list() and shard.canvas == (16, 24)
    for class_id in range(3):
        bins = np.concatenate([bins[classes == class_id] for classes, bins in found.values()])
        assert (histogram[class_id] == np.bincount(bins, minlength=histogram.shape[1])).all()
    network, _ = files.load(model)
    name, file = pd.read_csv(mixed).loc[4, ["image", "image_file"]]
    pixels = to_tensor(read_image(file, (16, 24)))[None]
    logits = F.interpolate(network(pixels), (16, 24), mode="bilinear").detach()
    assert (found[name][0] == logits.argmax(1)[0].numpy()).all()
    top = logits.softmax(1).amax(1)[0].numpy()
    assert np.abs(probability_of(found[name][1]) - top).max() < 1e-3


# A folder


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    for name, size in (("a.png", (20, 30)), ("b.c.jpg", (16, 24)), ("deep/er/a.bmp", (24, 16))):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (*size, 3), np.uint8)).save(images / name)
    (images / "notes.txt").write_text("not an image")
    return images


MASKS = {"a.png": "a.png", "b.c.jpg": "b.c.png", "deep/er/a.bmp": "deep/er/a.png"}


@pytest.mark.parametrize("size", [None, (16, 16)])
def test_masks_of_a_folder(tmp_path, model, folder, size):
    output = tmp_path / "masks"
    predict_folder(model, folder, output, SINGLE, size=size, confidence=True)
    confidence = {name.replace(".png", ".confidence.png") for name in MASKS.values()}
    assert {str(file.relative_to(output)) for file in output.rglob("*.png")} == {*MASKS.values(), *confidence}
    predictor = load_predictor(model, SINGLE, torch.device("cpu"))
    for image, name in MASKS.items():
        mask, own = Image.open(output / name), read_image(folder / image)
        assert mask.mode == "P" and mask.getpalette() == palette(3)
        classes, bins, _ = predictor(
            to_tensor(read_image(folder / image, size))[None], [image], own.shape[:2]
        ).decided()
        assert (np.asarray(mask) == classes[0].numpy()).all()
        gray = Image.open(output / name.replace(".png", ".confidence.png"))
        expected = 255 / (1 + np.exp(-log_odds_of(bins[0].numpy())))
        assert gray.mode == "L" and np.abs(np.asarray(gray) - expected).max() <= 0.51


def test_a_mask_of_one_image_in_the_models_colors(tmp_path, model, folder):
    network, about = files.load(model)
    colors = [(9, 8, 7), (1, 2, 3), (250, 0, 0)]
    files.save(tmp_path / "colored.safetensors", network, tiny.MODEL, tuple(about["classes"]), 1, colors)
    predict_folder(tmp_path / "colored.safetensors", folder / "b.c.jpg", tmp_path / "masks", SINGLE)
    assert [file.name for file in (tmp_path / "masks").iterdir()] == ["b.c.png"]
    assert Image.open(tmp_path / "masks/b.c.png").getpalette()[:9] == [9, 8, 7, 1, 2, 3, 250, 0, 0]
    predict_folder(tmp_path / "colored.safetensors", folder / "b.c.jpg", tmp_path / "seen", SINGLE, overlay=True)
    assert sorted(file.name for file in (tmp_path / "seen").iterdir()) == ["b.c.overlay.png", "b.c.png"]
    over, mask = (np.asarray(Image.open(tmp_path / "seen" / name)) for name in ("b.c.overlay.png", "b.c.png"))
    half = (read_image(folder / "b.c.jpg").astype(float) + np.array(colors)[mask]) / 2
    assert over.shape == half.shape and np.abs(over - half).max() <= 0.5


def test_what_is_wrong_with_a_folder_is_told(tmp_path, model, folder):
    with pytest.raises(UserError, match="no such image or folder"):
        predict_folder(model, tmp_path / "none", tmp_path / "masks", SINGLE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images \(\.bmp, .*\) in this folder"):
        predict_folder(model, tmp_path / "empty", tmp_path / "masks", SINGLE)
    with pytest.raises(UserError, match="not a readable model file"):
        predict_folder(tmp_path / "none.safetensors", folder, tmp_path / "masks", SINGLE)
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    with pytest.raises(UserError, match=r"a\.png: its mask would have the name of that of .*a\.jpg"):
        predict_folder(model, folder, tmp_path / "masks", SINGLE)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("which", ["", "a.png"])
def test_masks_do_not_take_the_place_of_the_images(model, folder, which):
    before = (folder / "a.png").read_bytes()
    with pytest.raises(UserError, match="would take the place of images"):
        predict_folder(model, folder / which, folder / "deep" / "..", SINGLE)
    assert (folder / "a.png").read_bytes() == before


def test_masks_do_not_lie_among_the_images(model, folder):
    """In a folder below, where they could have an image's name, and would be predicted, too, the next time."""
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(UserError, match="would take the place of images, or be taken for some"):
        predict_folder(model, folder, folder / "deep" / "masks", SINGLE)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert not (folder / "deep" / "masks").exists()


class Reshaping(nn.Module):
    """A network that counts on its maps lying in memory as they do in training."""

    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 3, padding=1)

    def forward(self, images):
        maps = self.layer(images)
        return maps.view(len(maps) * maps.shape[1], 1, *maps.shape[2:]).view(maps.shape)


def test_a_network_of_ones_own_finds_memory_as_in_training(tmp_path):
    settings = ModelSettings(module="test_predict:Reshaping")
    files.save(tmp_path / "model.safetensors", Segmenter(settings, 4), settings, ("a", "b", "c", "d"), 1, None)
    predictor = load_predictor(tmp_path / "model.safetensors", InferenceSettings(), torch.device("cpu"))
    found = predictor(torch.zeros(2, 3, 8, 9, dtype=torch.uint8), ["x", "y"], (8, 9)).on_host(["x", "y"])
    assert found.classes.shape == (2, 8, 9)
