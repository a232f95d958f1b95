"""Images of 16 bits and of any number of channels, from augmentation to pictures."""

import logging

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from pixel_files import values, write
from safetensors.torch import load_file, save_file

from selftrain import randomness
from selftrain.data.augmentation import augment, fill_color, recolor, to_tensor
from selftrain.data.check import check
from selftrain.data.tables import read_images, write_images, write_statistics
from selftrain.errors import UserError
from selftrain.evaluate.stage import evaluate
from selftrain.graph import Graph
from selftrain.models import files
from selftrain.models.segmenter import Segmenter
from selftrain.predict.folder import predict_folder
from selftrain.predict.stage import predict_shard
from selftrain.predict.store import Predictions
from selftrain.settings.config_file import parse
from selftrain.settings.data import CheckSettings, ListSettings, PixelSettings
from selftrain.settings.model import ModelSettings
from selftrain.settings.prediction import EvaluateStageSettings, InferenceSettings, PredictStageSettings
from selftrain.settings.training import AugmentationSettings
from selftrain.show import show
from selftrain.train import examples
from selftrain.train.stage import train

# Augmentation


def drawn(seed=0):
    return randomness.generator(seed, "test")


MOVES = AugmentationSettings(
    crop=(30, 44), scale=(0.5, 2), flip=0.5, rotation=20, rotation_probability=0.5, blur_probability=0.5
)


def test_geometry_treats_any_channels_as_it_treats_color():
    color, label = torch.from_numpy(values(3, 8, (40, 50)).transpose(2, 0, 1)), torch.zeros(40, 50, dtype=torch.uint8)
    index = [0, 1, 2, 2, 0]
    for seed in range(12):
        expected, where = augment(color, label, MOVES, drawn(seed), (120, 110, 100))
        five, there = augment(color[index], label, MOVES, drawn(seed), (120, 110, 100, 100, 120))
        assert torch.equal(five, expected[index]) and torch.equal(there, where)
        fill = fill_color([120 / 255, 110 / 255, 100 / 255, 100 / 255, 120 / 255], bits=16)
        floats, there = augment(color[index].float() / 255, label, MOVES, drawn(seed), fill)
        assert floats.dtype == torch.float32 and torch.equal(there, where)
        assert (255 * floats - expected[index]).abs().max() <= 2  # bytes are rounded after each change


def test_padding_is_zero_after_normalization():
    mean = (0.2, 0.4, 0.6, 0.8)
    image, label = torch.ones(4, 10, 10), torch.zeros(10, 10, dtype=torch.uint8)
    padded, where = augment(image, label, AugmentationSettings(flip=0, crop=(14, 14)), drawn(), fill_color(mean, 16))
    assert torch.allclose(padded[:, where == 255], torch.tensor(mean)[:, None])
    assert fill_color(mean) == (51, 102, 153, 204)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("bits", [8, 16])
def test_jitter_by_its_definition(channels, bits):
    array = values(channels, bits, (6, 7)).transpose(2, 0, 1)
    image = torch.from_numpy(array if bits == 8 else (array / 65535).astype(np.float32))
    top = 255 if bits == 8 else 1
    options = AugmentationSettings(jitter=0.6, jitter_probability=1, blur_probability=0)
    for seed in range(8):
        draw, again = drawn(seed), drawn(seed)
        changed = recolor(torch.stack([image, image * 0]), options, draw)
        again.random(2)  # whether to blur and to jitter
        brightness, contrast, _, _ = [*again.uniform(0.4, 1.6, 3), again.uniform(-0.15, 0.15)]
        order = again.permutation(4)
        assert draw.random() == again.random()  # the draws do not depend on the channels
        assert changed.dtype == image.dtype and (changed[1] == 0).all()
        if channels == 3:
            continue
        expected = image.numpy().astype(np.float64)
        for change in order:
            if change == 0:
                expected = expected * brightness
            elif change == 1:
                expected = contrast * expected + (1 - contrast) * expected.mean()
            expected = np.clip(expected if bits == 16 else np.floor(expected.clip(0) + 1e-4), 0, top)
        assert np.abs(changed[0].numpy() - expected).max() <= (1 if bits == 8 else 1e-5)


# Training, predictions, pictures

FOUR = PixelSettings(channels=4, bits=16)
READ = tiny.READ.model_copy(update={"pixels": FOUR})
MODEL = ModelSettings(
    module="tiny:network", arguments={"channels": 4}, mean=(0.5, 0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25, 0.2)
)


def split(folder, count=5, seed=0, ending="tif"):
    """Four channels of 16 bits, of which the last alone tells the classes apart."""
    for number in range(count):
        ids = tiny.blocks(tiny.SIZE, seed * 1000 + number)
        array = values(4, 16, tiny.SIZE, seed * 1000 + number)
        array[..., 3] = np.array([*[3000, 30000, 60000], *[15000] * 253])[ids]
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        write(folder / "images" / f"{folder.name}-{number}.{ending}", array)
        Image.fromarray(ids).save(folder / "labels" / f"{folder.name}-{number}.png")
    root = str(folder)
    listed = ListSettings(
        root=root, data_root=root, images=("images/*",), labels=("labels/*",), list=None, labeled=True
    )
    write_images(listed, folder / "images.csv")
    return folder / "images.csv", listed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of mixed images of four channels, and the tables of its splits."""
    folder = tmp_path_factory.mktemp("four")
    labeled, listed = split(folder / "labeled")
    unlabeled, _ = split(folder / "unlabeled", seed=1, ending="npy")
    check(CheckSettings(task="four", splits={"labeled": {"list": listed, "read": READ}}))
    told = tiny.stage("mean_teacher_mixing", model=MODEL, steps=60, teacher={}, optimizer={"lr": 0.1})
    told = told.model_copy(update={"labeled": READ, "unlabeled": READ})
    paths = tiny.outputs(folder / "run", labeled, unlabeled=unlabeled, examples=folder / "run/examples.h5")
    train(told, paths, tiny.NOW)
    return folder, paths


def test_four_channels_are_trained_predicted_and_scored(trained):
    folder, paths = trained
    of = {"seed": 0, "batch_size": 2}
    patches = InferenceSettings(patches={"size": (40, 40), "count": 5}, flip=True, scales=(0.5, 1))
    for number, inference in enumerate((InferenceSettings(), patches)):
        told = EvaluateStageSettings(evaluation=inference, splits={"labeled": {"read": READ}}, **of)
        confusion, metrics = folder / "confusion.csv", folder / f"metrics-{number}.csv"
        write_statistics(READ, paths.labeled, folder / "classes.csv", folder / "statistics.h5")
        tables = folder / "classes.csv", confusion, metrics, folder / "sizes.csv"
        evaluate(told, paths.model, {"labeled": paths.labeled}, *tables)
        assert pd.read_csv(metrics).set_index("metric").value["pixel_accuracy"] > 0.6
    shard = {"shard": 0, "shards": 1, "prediction": {"scales": (1.0, 1.5)}}
    predict_shard(PredictStageSettings(read=READ, **shard, **of), paths.model, paths.unlabeled, folder / "p.h5")
    with Predictions(folder / "p.h5") as predictions:
        assert predictions.images == read_images(paths.unlabeled).image.to_list()


def test_examples_and_shown_images_are_pictures(trained):
    folder, paths = trained
    for pictures in examples.read(paths.examples).values():
        assert pictures["mixed"].dtype == np.uint8 and pictures["mixed"].shape[-1] == 3
        assert pictures["mixed"].max() > 100
    show(paths.model, folder / "shown.png", image=str(folder / "unlabeled/images/unlabeled-0.npy"))
    assert (folder / "shown.png").is_file()


def test_a_model_file_knows_what_images_it_is_for(trained):
    folder, paths = trained
    assert files.pixels_of(files.read_about(paths.model)) == FOUR
    predict_folder(paths.model, folder / "unlabeled/images", folder / "masks", InferenceSettings())
    mask, ids = np.asarray(Image.open(folder / "masks/unlabeled-0.png")), tiny.blocks(tiny.SIZE, 1000)
    assert (mask == ids)[ids != 255].mean() > 0.6
    with pytest.raises(UserError, match="image of 1 channel of 8 bits; 'pixels' say 4 channels of 16 bits"):
        predict_folder(paths.model, folder / "unlabeled/labels", folder / "others", InferenceSettings())


def test_an_old_model_file_is_for_8_bit_color(tmp_path):
    tiny.save_model(tmp_path / "model.safetensors")
    about = files.read_about(tmp_path / "model.safetensors")
    assert files.pixels_of(about) == PixelSettings() == files.pixels_of({})
    (tmp_path / "images").mkdir()
    write(tmp_path / "images/a.npy", values(3, 8))
    with pytest.raises(UserError, match="no images"):
        predict_folder(tmp_path / "model.safetensors", tmp_path / "images", tmp_path / "masks", InferenceSettings())


@pytest.mark.parametrize("encoder", ["mobilenetv3_small_050", "resnet18"])
def test_weights_of_color_are_adapted_as_timm_does(tmp_path, caplog, encoder):
    torch.manual_seed(0)
    first = {"mobilenetv3_small_050": "conv_stem.weight", "resnet18": "conv1.weight"}[encoder]
    file = tmp_path / "weights.safetensors"
    save_file(Segmenter(ModelSettings(encoder=encoder), 3).encoder.body.state_dict(), file)
    color = load_file(file)
    for channels in (1, 4, 5):
        of = {"encoder": encoder, "mean": (0.5,) * channels, "std": (0.2,) * channels}
        caplog.clear()
        with caplog.at_level(logging.INFO):
            body = Segmenter(ModelSettings(weights=str(file), **of), 3).encoder.body
        state, rgb = body.state_dict(), color[first]
        expected = rgb.sum(1, keepdim=True) if channels == 1 else rgb[:, [0, 1, 2, 0, 1][:channels]] * 3 / channels
        assert torch.allclose(state[first], expected, atol=1e-6)
        assert all(torch.equal(state[name], color[name]) for name in color.keys() - {first})
        assert f"adapted from 3 channels to {channels}: {first}" in caplog.text and "new values" not in caplog.text
        own = tmp_path / f"{channels}.safetensors"
        save_file({name: tensor.clone() for name, tensor in state.items()}, own)
        caplog.clear()
        again = Segmenter(ModelSettings(weights=str(own), **of), 3)
        assert torch.equal(again.encoder.body.state_dict()[first], state[first]) and not caplog.text
        with torch.inference_mode():
            assert again.eval()(torch.rand(1, channels, 64, 64)).shape[:2] == (1, 3)


# Settings


def test_channels_of_model_and_task_must_fit(folder_task):
    task = folder_task["tasks"]["tiny"]
    task["pixels"] = {"channels": 4, "bits": 16}
    with pytest.raises(UserError) as error:
        parse(folder_task)
    told = "3 values for images of 4 channels (task 'tiny'); give one per channel"
    assert str(error.value) == f"config: model.mean: {told}"
    folder_task["pretrain"]["base"]["model"] = {"mean": [0.5] * 2, "std": [0.2] * 3}
    with pytest.raises(
        UserError, match=r"pretrain\.base\.model\.std: 3 values, and 'mean' has 2; give one per channel"
    ):
        parse(folder_task)
    folder_task["pretrain"]["base"]["model"] = {"mean": [0.5] * 2, "std": [0.2] * 2}
    with pytest.raises(UserError, match=r"pretrain\.base\.model\.mean: 2 values for images of 4 channels"):
        parse(folder_task)
    folder_task["pretrain"]["base"]["model"] = {"mean": [0.5] * 4, "std": [0.2] * 4}
    graph = Graph(parse(folder_task))
    assert graph.read("tiny", "val").pixels == FOUR


def test_drawn_images_are_8_bit_color(folder_task):
    task = folder_task["tasks"]["tiny"] | {"pixels": {"bits": 16}, "classes": "camvid"}
    task["unlabeled"] = {"streets": {"domain": "real", "count": 2}}
    with pytest.raises(UserError, match=r"^config: tasks\.tiny\.unlabeled\.streets: are 8-bit RGB images; the task's"):
        parse(folder_task | {"tasks": {"tiny": task}})
    assert to_tensor(values(5, 16, (2, 3)).astype(np.float32)).shape == (5, 2, 3)
