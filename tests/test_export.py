"""ONNX files say what the models say, at any size, and carry what is needed to use them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F

from selftrain.cli import app
from selftrain.errors import UserError
from selftrain.models import export, files
from selftrain.models.segmenter import Segmenter
from selftrain.settings.data import PixelSettings
from selftrain.settings.model import ModelSettings

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


def saved(path, model, pixels=PixelSettings(), **told):  # noqa: B008 (frozen)
    torch.manual_seed(0)
    segmenter = Segmenter(model, len(tiny.CLASSES)).eval()
    with torch.no_grad():
        for module in segmenter.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    files.save(path, segmenter, model, tiny.CLASSES, 7, pixels=pixels, **told)
    return segmenter


@pytest.mark.parametrize(
    ("model", "pixels"),
    [
        (ModelSettings(encoder="mobilenetv3_small_050"), PixelSettings()),
        (
            ModelSettings(encoder="test_resnet", branches=2, mean=[0.5] * 5, std=[0.2] * 5),
            PixelSettings(channels=5, bits=16),
        ),
        (tiny.MODEL, PixelSettings()),
    ],
    ids=["timm", "two branches, five channels", "own"],
)
def test_it_says_what_the_model_says_for_images_of_any_number_and_size(tmp_path, model, pixels):
    network = saved(tmp_path / "model.safetensors", model, pixels)
    command = ["export", str(tmp_path / "model.safetensors"), "-o", str(tmp_path / "m.onnx")]
    app([*command, "--own-code", "tiny:network"], standalone_mode=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for count, size in ((1, (64, 96)), (3, (70, 45))):
        images = export.random_images(pixels, size)[:1].repeat(count, 1, 1, 1)
        logits, classes = session.run(["logits", "classes"], {"images": images.numpy()})
        with torch.no_grad():
            said = F.interpolate(network(images), size=size, mode="bilinear", align_corners=False)
        np.testing.assert_allclose(logits, said.numpy(), rtol=1e-3, atol=1e-4 * said.abs().max().item())
        assert classes.dtype == np.uint8 and np.array_equal(classes, logits.argmax(1))
    told = {one.key: one.value for one in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(told["selftrain"])["classes"] == list(tiny.CLASSES)


def test_of_one_size_only(tmp_path):
    saved(tmp_path / "model.safetensors", tiny.MODEL)
    export.export_onnx(tmp_path / "model.safetensors", tmp_path / "m.onnx", size=(32, 48))
    (images,) = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).get_inputs()
    assert images.shape[1:] == [3, 32, 48] and images.type == "tensor(uint8)"


@pytest.mark.slow
def test_a_terminal_gets_one_line_and_not_what_converters_tell(tmp_path):
    saved(tmp_path / "model.safetensors", ModelSettings(encoder="mobilenetv3_small_050"))
    command = [sys.executable, "-m", "selftrain", "export", "model.safetensors", "-o", "m.onnx", "--size", "32", "48"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("info: m.onnx: checked on ")


def test_an_export_that_says_something_else_is_not_written(tmp_path, monkeypatch):
    saved(tmp_path / "model.safetensors", tiny.MODEL)
    monkeypatch.setattr(
        export.Whole, "forward", lambda whole, images: (one := whole.network(images) * 1.01, one.argmax(1))
    )
    with pytest.raises(UserError, match="it is not written"):
        export.export_onnx(tmp_path / "model.safetensors", tmp_path / "m.onnx", size=(32, 48))
    assert not (tmp_path / "m.onnx").exists()


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"export needs no_such_package: pip install 'selftrain\[onnx\]'"):
        export.export_onnx(tmp_path / "model.safetensors", tmp_path / "m.onnx")
