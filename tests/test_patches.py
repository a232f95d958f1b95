import dataclasses
import math

import numpy as np
import pytest
import tiny
import torch
from exact import mean_over_patches, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from selftrain import randomness
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.predict.forward import Predictor, load_predictor
from selftrain.predict.patches import coverage, place
from selftrain.predict.stage import predict_shard
from selftrain.predict.store import Predictions
from selftrain.settings.prediction import InferenceSettings, PatchSettings, PredictionSettings, PredictStageSettings

FILL = (9, 128, 250)


def sizes(most):
    return st.tuples(st.integers(1, most), st.integers(1, most))


# Where the patches lie


@settings(max_examples=200, deadline=None)
@given(image=sizes(60), patch=sizes(80), count=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_patches_cover_the_image_as_far_as_their_number_allows(image, patch, count, seed):
    corners = place(image, patch, count, randomness.generator(seed, "patches", "a"))
    assert corners.shape == (count, 2)
    assert corners.tolist() == sorted(corners.tolist())
    for side in (0, 1):
        room = image[side] - patch[side]
        assert (corners[:, side] >= min(0, room)).all() and (corners[:, side] <= max(0, room)).all()
    counts = np.zeros(image, int)
    for top, left in corners.tolist():
        for row in range(max(0, top), min(image[0], top + patch[0])):
            for column in range(max(0, left), min(image[1], left + patch[1])):
                counts[row, column] += 1
    assert (coverage(image, patch, corners) == counts).all()
    if count >= math.prod(math.ceil(whole / part) for whole, part in zip(image, patch, strict=True)):
        assert counts.min() >= 1
    else:
        assert len({tuple(corner) for corner in corners.tolist()}) == count


def test_a_name_and_a_seed_have_places_of_their_own():
    def corners(*where):
        return place((60, 80), (24, 32), 12, randomness.generator(*where)).tolist()

    assert corners(3, "patches", "a") == corners(3, "patches", "a")
    assert corners(3, "patches", "a") != corners(3, "patches", "b") != corners(4, "patches", "b")


def test_every_place_is_drawn():
    """The corners, where a patch holds what no other can, too."""
    drawn = {tuple(at) for seed in range(60) for at in place((5, 3), (3, 4), 6, randomness.generator(seed)).tolist()}
    assert drawn == {(top, left) for top in (0, 1, 2) for left in (-1, 0)}


# Networks whose answers are known


class Constant(nn.Module):
    """The same logits for whatever it sees."""

    LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.0])

    def forward(self, views):
        return self.LOGITS[:, None, None].expand(len(views), -1, *views.shape[-2:])


class Content(nn.Module):
    """A class for each red value, whatever stands around it."""

    def forward(self, views):
        return torch.stack([(views[:, 0] == 20 * number).float() * (1 + number) for number in range(5)], 1)


class Place(nn.Module):
    """Logits that tell the row and the column of a pixel within the view, and what the view holds altogether."""

    def forward(self, views):
        views = views.float()
        height, width = views.shape[-2:]
        rows = 0.37 * torch.arange(height)[:, None].expand(len(views), height, width)
        columns = 0.411 * torch.arange(width).expand(len(views), height, width)
        return torch.stack([rows, columns, views.mean((1, 2, 3))[:, None, None] / 100 + views[:, 1] / 120], 1)


class PlusOne(nn.Module):
    """Its input, and 1."""

    def forward(self, views):
        return views.float() / 40 + 1


class Conv(nn.Module):
    """A convolution of bytes, or of fractions."""

    def __init__(self, convolution):
        super().__init__()
        self.convolution = convolution

    def forward(self, views):
        return self.convolution(views / 255 if views.dtype == torch.uint8 else views)


class Recorder(nn.Module):
    """A network that remembers what it was given."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, views):
        self.seen.append(views)
        return self.network(views)


def noise(size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, *size), np.uint8))


def predictor(network, classes, patches=None, **inference):
    return Predictor(network.eval(), classes, InferenceSettings(patches=patches, **inference), seed=3, fill=FILL)


def means_of(network, image, patches, classes, name="a", **inference):
    """Probabilities (C, H, W) in the way of `Predictor`, before they are decided."""
    views = predictor(network, classes, **inference)
    draw = randomness.generator(3, "patches", name)
    with torch.inference_mode():
        return mean_over_patches(
            lambda windows: views._probabilities(windows, tuple(windows.shape[-2:])),
            image,
            patches,
            draw,
            classes=classes,
            fill=FILL,
        )


def brute_softmax(network, view, flip):
    """Float64 (C, h, w) of one view (3, h, w)."""
    views = [network(view[None])[0].double().softmax(0)]
    if flip:
        views.append(network(view.flip(-1)[None])[0].double().softmax(0).flip(-1))
    return (sum(views) / len(views)).numpy()


def brute_mean(network, image, patches, name="a", flip=False):
    """The definition: each patch is cut out, predicted and counted on its own, pixel by pixel."""

    def decided(softmax):
        top = softmax.argmax(0)
        one_hot = np.arange(len(softmax))[:, None, None] == top
        return one_hot.astype(float) if patches.combine == "decisions" else softmax

    size, patch = tuple(image.shape[1:]), patches.size
    whole = decided(brute_softmax(network, image, flip))
    sums, counts = np.zeros_like(whole), np.zeros(size)
    for top, left in place(size, patch, patches.count, randomness.generator(3, "patches", name)).tolist():
        view = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].repeat(1, *patch)
        inside = [
            (row, column)
            for row in range(patch[0])
            for column in range(patch[1])
            if 0 <= top + row < size[0] and 0 <= left + column < size[1]
        ]
        for row, column in inside:
            view[:, row, column] = image[:, top + row, left + column]
        part = decided(brute_softmax(network, view, flip))
        for row, column in inside:
            sums[:, top + row, left + column] += part[:, row, column]
            counts[top + row, left + column] += 1
    for row in range(size[0]):
        for column in range(size[1]):
            if patches.whole_image or counts[row, column] == 0:
                sums[:, row, column] += whole[:, row, column]
                counts[row, column] += 1
    return sums / counts


def bins_of(means):
    """Bins of the top class of probabilities (C, H, W)."""
    top = np.sort(means, 0)
    with np.errstate(divide="ignore"):
        return quantize(np.log(top[-1]) - np.log(top[:-1].sum(0))).astype(int)


# The mean


@settings(max_examples=40, deadline=None)
@given(
    image=sizes(14), patch=sizes(18), count=st.integers(1, 9), whole=st.booleans(), flip=st.booleans(),
    scales=st.sampled_from([(1.0,), (0.5,), (0.75, 1.0, 1.5)]),
)  # fmt: skip
def test_the_mean_of_equals_is_what_they_say(image, patch, count, whole, flip, scales):
    patches = PatchSettings(size=patch, count=count, whole_image=whole)
    expected = Constant.LOGITS.softmax(0)[:, None, None].expand(4, *image)
    mean = means_of(Constant(), noise(image), patches, 4, flip=flip, scales=scales)
    torch.testing.assert_close(mean, expected, atol=1e-6, rtol=0)
    classes, bins, _ = predictor(Constant(), 4, patches, flip=flip, scales=scales)(
        noise(image)[None], ["a"], image
    ).decided()
    assert classes.shape == bins.shape == (1, *image) and (classes == 2).all()
    assert np.abs(bins.numpy() - bins_of(expected.double().numpy())).max() <= 1


@settings(max_examples=60, deadline=None)
@given(image=sizes(20), patch=sizes(30), count=st.integers(1, 12), seed=st.integers(0, 99), whole=st.booleans())
def test_patches_that_agree_predict_as_one_view(image, patch, count, seed, whole):
    pixels = noise(image, seed)
    pixels[0] = pixels[0] // 43 * 20  # 0 to 100: the last is of no class
    patches = PatchSettings(size=patch, count=count, whole_image=whole)
    one, several = (predictor(Content(), 5, how)(pixels[None], ["a"], image).decided() for how in (None, patches))
    assert (one[0] == pixels[0] // 20 * (pixels[0] < 100)).all()
    assert torch.equal(one[0], several[0])
    assert (one[1] - several[1]).abs().max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    image=sizes(11), patch=sizes(14), count=st.integers(1, 10), seed=st.integers(0, 99), whole=st.booleans(),
    combine=st.sampled_from(["probabilities", "decisions"]), flip=st.booleans(),
)  # fmt: skip
def test_the_mean_is_that_of_patches_predicted_on_their_own(image, patch, count, seed, whole, combine, flip):
    pixels = noise(image, seed)
    patches = PatchSettings(size=patch, count=count, whole_image=whole, combine=combine)
    expected = brute_mean(Place(), pixels, patches, flip=flip)
    mean = means_of(Place(), pixels, patches, 3, flip=flip)
    np.testing.assert_allclose(mean, expected, atol=2e-6)
    classes, bins, _ = predictor(Place(), 3, patches, flip=flip)(pixels[None], ["a"], image).decided()
    top = np.sort(expected, 0)
    sure = top[-1] - top[-2] > 1e-5
    assert (classes[0].numpy() == expected.argmax(0))[sure].all()
    assert np.abs(bins[0].numpy() - bins_of(expected)).max() <= 1


@pytest.mark.parametrize("combine", ["probabilities", "decisions"])
def test_what_one_patch_leaves_out_comes_from_the_whole_image(combine):
    pixels, patches = noise((9, 12)), PatchSettings(size=(5, 6), count=1, combine=combine)
    ((top, left),) = place((9, 12), (5, 6), 1, randomness.generator(3, "patches", "a"))
    whole = means_of(Place(), pixels, PatchSettings(size=(9, 12), count=1, combine=combine), 3)
    own = means_of(Place(), pixels[:, top : top + 5, left : left + 6], patches.model_copy(update={"size": (5, 6)}), 3)
    expected = whole.clone()
    expected[:, top : top + 5, left : left + 6] = own
    mean = means_of(Place(), pixels, patches, 3)
    assert torch.equal(mean, expected) and not torch.equal(mean, whole)


def test_a_mirrored_view_is_turned_back():
    """Each pixel speaks for itself, so a view turned back wrongly would be another picture."""
    pixels = noise((13, 17))
    expected = (pixels.double() / 40 + 1).softmax(0)
    for how in ({"flip": True}, {"flip": True, "patches": PatchSettings(size=(6, 7), count=20, whole_image=True)}):
        classes, bins, _ = predictor(PlusOne(), 3, **how)(pixels[None], ["a"], (13, 17)).decided()
        assert (classes[0] == expected.argmax(0)).all()
        assert np.abs(bins[0].numpy() - bins_of(expected.numpy())).max() <= 1


def test_scales_are_averaged_within_each_patch():
    """Columns of a view that is twice as large, and halved again: between the columns of the view itself."""
    image, patches = noise((8, 8)), PatchSettings(size=(8, 8), count=1)
    mean = means_of(Place(), image, patches, 3, scales=(1.0, 2.0))
    doubled = F.interpolate(image[None].float() / 255, (16, 16), mode="bilinear", align_corners=False, antialias=True)
    back = F.interpolate(Place()(doubled), (8, 8), mode="bilinear", align_corners=False)[0]
    expected = (Place()(image[None])[0].softmax(0) + back.softmax(0)) / 2
    torch.testing.assert_close(mean, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(20, 31), (9, 7)])
def test_scores_of_another_size(size):
    pixels, patches = noise((12, 15)), PatchSettings(size=(6, 6), count=9)
    means = torch.from_numpy(brute_mean(Place(), pixels, patches))
    expected = F.interpolate(means[None], size, mode="bilinear", align_corners=False)[0].numpy()
    classes, bins, _ = predictor(Place(), 3, patches)(pixels[None], ["a"], size).decided()
    top = np.sort(expected, 0)
    assert (classes[0].numpy() == expected.argmax(0))[top[-1] - top[-2] > 1e-5].all()
    assert np.abs(bins[0].numpy() - bins_of(expected)).max() <= 1


# Memory, padding, names


def memory_for(together, patches, classes):
    """MiB for three planes of float32 class scores a patch."""
    return math.ceil(together * 3 * 4 * classes * math.prod(patches.size) / 2**20)


@pytest.mark.parametrize(("scales", "passes"), [((1.0,), {1: [1] * 8, 3: [3, 3, 2], 8: [8]}), ((2.0,), {8: [2] * 4})])
def test_memory_decides_how_many_patches_pass_together_and_nothing_else(scales, passes):
    torch.manual_seed(0)
    network, pixels = nn.Conv2d(3, 64, 5, padding=2), noise((60, 90))
    every = PatchSettings(size=(48, 48), count=8)
    small, large = every.model_copy(update={"memory": 1}), every
    assert 4 * 64 * 60 * 90 > 2**20  # the sums of the smallest setting are those that exceed it
    expected = means_of(Conv(network), pixels, large, 64, scales=scales)
    torch.testing.assert_close(means_of(Conv(network), pixels, small, 64, scales=scales), expected, atol=1e-6, rtol=0)
    one = predictor(Conv(network), 64, large, scales=scales)(pixels[None], ["a"], (60, 90)).decided()
    for together, batches in passes.items():
        recorder = Recorder(Conv(network))
        patches = every.model_copy(update={"memory": memory_for(together, every, 64)})
        classes, bins, _ = predictor(recorder, 64, patches, scales=scales)(pixels[None], ["a"], (60, 90)).decided()
        assert [len(views) for views in recorder.seen] == batches
        assert torch.equal(classes, one[0]) and (bins - one[1]).abs().max() <= 1


def test_a_segmenter_says_the_same_whatever_passes_together(tmp_path):
    tiny.save_model(tmp_path / "model.safetensors")
    network, _ = files.load(tmp_path / "model.safetensors")
    found = []
    for memory in (1, 512):
        recorder = Recorder(network)
        patches = PatchSettings(size=(96, 160), count=5, memory=memory)
        found.append(predictor(recorder, 3, patches)(noise((130, 190))[None], ["a"], (130, 190)).decided())
        assert [len(views) for views in recorder.seen] == ([1] * 5 if memory == 1 else [5])
    (classes, bins, *_), (others, other_bins, *_) = found
    assert torch.equal(classes, others) and (bins - other_bins).abs().max() <= 1


def test_what_lies_around_an_image_has_the_mean_color_of_the_model(tmp_path):
    model = tiny.MODEL.model_copy(update={"mean": (0.1, 0.5, 0.9)})
    tiny.save_model(tmp_path / "model.safetensors", model)
    patches = PatchSettings(size=(9, 10), count=6)
    loaded = load_predictor(tmp_path / "model.safetensors", InferenceSettings(patches=patches), torch.device("cpu"))
    recorder, image = Recorder(Place()), noise((4, 12))
    dataclasses.replace(loaded, model=recorder)(image[None], ["a"], (4, 12))
    corners = place((4, 12), (9, 10), 6, randomness.generator(0, "patches", "a"))
    (seen,) = recorder.seen
    assert len(np.unique(corners, axis=0)) > 1
    for view, (top, left) in zip(seen, corners, strict=True):
        assert torch.equal(view[:, -top : 4 - top], image[:, :, left : left + 10])
        around = torch.cat([view[:, :-top], view[:, 4 - top :]], 1).flatten(1)
        assert around.shape == (3, 50) and around.unique(dim=1).flatten().tolist() == [26, 128, 230]


@pytest.mark.parametrize("combine", ["probabilities", "decisions"])
@pytest.mark.parametrize("count", [1, 30])
def test_an_image_whose_logits_are_nan_is_named(combine, count):
    class Broken(nn.Module):
        """NaN for a pixel that is white."""

        def forward(self, views):
            return torch.where((views == 255).all(1, keepdim=True), torch.nan, Place()(views))

    images = torch.stack([noise((12, 16), seed) for seed in range(3)])
    how = predictor(Broken(), 3, PatchSettings(size=(5, 6), count=count, combine=combine))
    how(images, ["a", "b", "c"], (12, 16))
    images[1, :, 11, 15] = 255
    with pytest.raises(UserError, match="logits for b;"):
        how(images, ["a", "b", "c"], (12, 16)).on_host(["a", "b", "c"])


def test_the_places_are_those_of_the_image_and_the_seed_whatever_is_beside_it():
    images = torch.stack([noise((12, 16))] * 3)
    how = predictor(Place(), 3, PatchSettings(size=(5, 6), count=8))
    classes, bins, _ = how(images, ["a", "b", "c"], (12, 16)).decided()
    for position, name in enumerate("abc"):
        alone = how(images[position : position + 1], [name], (12, 16)).decided()
        assert torch.equal(alone[0][0], classes[position]) and torch.equal(alone[1][0], bins[position])
    assert not torch.equal(bins[0], bins[1])
    assert not torch.equal(dataclasses.replace(how, seed=4)(images, ["a", "b", "c"], (12, 16)).decided()[1], bins)


def read_all(paths):
    found = {}
    for path in paths:
        with Predictions(path, tiny.CLASSES) as shard:
            found |= {name: tuple(map(bytes, shard.read(at))) for at, name in enumerate(shard.images)}
    return found


@pytest.mark.parametrize("whole", [False, True])
def test_shards_and_batches_change_nothing(tmp_path, whole):
    images = tiny.split(tmp_path / "mixed", [(32, 48), (32, 48), (16, 30), (32, 48), (32, 48), (26, 20), (26, 20)])
    tiny.save_model(tmp_path / "model.safetensors")
    prediction = PredictionSettings(patches=PatchSettings(size=(20, 24), count=9, whole_image=whole))

    def predicted(shards, batch_size, **changes):
        written = [tmp_path / f"{shards}-{batch_size}-{shard}.h5" for shard in range(shards)]
        for shard, path in enumerate(written):
            told = {"prediction": prediction, "seed": 5, "read": tiny.READ} | changes
            told = PredictStageSettings(batch_size=batch_size, shard=shard, shards=shards, **told)
            predict_shard(told, tmp_path / "model.safetensors", images, path)
        return read_all(written)

    one = predicted(1, 2)
    assert len(one) == 7
    assert predicted(3, 2) == one and predicted(3, 1) == one and predicted(1, 7) == one
    other = predicted(1, 2, seed=6)
    assert all(other[name][1] != one[name][1] for name in one)
