import logging
import pickle

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from selftrain.errors import UserError
from selftrain.models import files
from selftrain.models.decoders.aspp import Aspp
from selftrain.models.segmenter import Segmenter
from selftrain.models.states import read_state
from selftrain.settings.model import AsppSettings, ModelSettings

STRIDES = {  # at output stride 16 where it can be asked for
    "mobilenetv3_small_050": (4, 16),
    "resnet18": (4, 16),
    "tf_efficientnet_lite0": (4, 16),
    "regnetx_002": (4, 16),
    "convnext_atto": (4, 16),
    "vit_tiny_patch16_224": (16, 16),
}
LIGHT = ModelSettings(decoder={"name": "light", "channels": 24})


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return Segmenter(LIGHT, 4).eval()


def images(*size, count=1):
    return torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("encoder", STRIDES)
def test_every_encoder_with_every_decoder_at_odd_sizes(encoder):
    for decoder in ("light", "aspp"):
        model = Segmenter(ModelSettings(encoder=encoder, decoder=decoder), 5).eval()
        assert model.describe()["strides"] == list(STRIDES[encoder])
        for size in ((64, 96), (50, 67)):
            with torch.inference_mode():
                fine, _, last = model.encoder(images(*size).float())
                logits = model(images(*size))
            whole = [side + -side % model.encoder.patch for side in size]
            assert [fine.shape[1], last.shape[1]] == model.describe()["channels"]
            for features, stride in zip((fine, last), STRIDES[encoder], strict=True):
                for length, side in zip(features.shape[2:], whole, strict=True):
                    assert abs(length - side / stride) < 1  # some pad, some leave out what is over
            assert logits.shape[:2] == (1, 5) and logits.dtype == torch.float32 and logits.isfinite().all()
            assert logits.shape[2:] == (fine if decoder == "light" else last).shape[2:]


@pytest.mark.parametrize("stride", [8, 32])
def test_output_stride_is_passed_on(stride):
    assert Segmenter(ModelSettings(output_stride=stride), 3).describe()["strides"] == [4, stride]


def test_unknown_encoder_names_the_nearest():
    with pytest.raises(UserError, match=r"no 'resnet8'; near: .*resnet18"):
        Segmenter(ModelSettings(encoder="resnet8"), 3)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_encoder_weights_come_from_a_file(tmp_path, segmenter, ending):
    file = tmp_path / f"weights.{ending}"
    state = segmenter.encoder.body.state_dict()
    if ending == "pth":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, file)
    else:
        save_file(state, file)
    other = Segmenter(ModelSettings(weights=str(file)), 4)
    for name, tensor in other.encoder.body.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("encoder", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_encoder_weights_that_do_not_fit_are_told(tmp_path, encoder):
    with pytest.raises(UserError, match="no such file"):
        Segmenter(ModelSettings(encoder=encoder, weights=str(tmp_path / "none.pth")), 3)
    save_file({"other": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=f"no weight in it fits '{encoder}'; it has other"):
        Segmenter(ModelSettings(encoder=encoder, weights=str(tmp_path / "weights.safetensors")), 3)


def test_encoder_weights_that_are_not_in_the_file_are_told(tmp_path, segmenter, caplog):
    state = segmenter.encoder.body.state_dict()
    del state["conv_stem.weight"]
    save_file(state, tmp_path / "weights.safetensors")
    Segmenter(ModelSettings(weights=str(tmp_path / "weights.safetensors")), 4)
    assert "weights.safetensors: new values for conv_stem.weight" in caplog.text


def test_aspp_is_the_sum_of_its_branches():
    torch.manual_seed(0)
    aspp = Aspp(AsppSettings(), (8, 16), 5)
    last = torch.randn(2, 16, 9, 11)
    expected = sum(
        torch.nn.functional.conv2d(last, branch.weight, branch.bias, padding=rate, dilation=rate)
        for branch, rate in zip(aspp.branches, (6, 12, 18, 24), strict=True)
    )
    assert len(aspp.branches) == 4
    assert torch.allclose(aspp.classify(aspp.hidden(None, last)), expected, atol=1e-6)


@pytest.mark.parametrize("decoder", ["light", "aspp"])
def test_logits_are_not_rounded_under_autocast(decoder):
    torch.manual_seed(0)
    model = Segmenter(ModelSettings(decoder=decoder), 4).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = model(images(32, 48))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_bytes_and_fractions_are_the_same_image(segmenter):
    pixels = images(32, 48)
    with torch.inference_mode():
        assert torch.equal(segmenter(pixels), segmenter(pixels.float() / 255))


def test_model_file_needs_nothing_else(tmp_path, segmenter):
    # The encoder's weights came from a file that is gone.
    settings = LIGHT.model_copy(update={"weights": str(tmp_path / "gone.safetensors")})
    file = tmp_path / "model.safetensors"
    files.save(file, segmenter, settings, ("a", "b", "c", "d"), step=7, colors=[(1, 2, 3)] * 4)
    again, about = files.load(file)
    assert (about["classes"], about["step"], about["colors"]) == (["a", "b", "c", "d"], 7, [[1, 2, 3]] * 4)
    assert about["model"]["mean"] == list(settings.mean) and not again.training
    with torch.inference_mode():
        assert torch.equal(segmenter(images(40, 50)), again(images(40, 50)))


def test_broken_model_files_are_told(tmp_path):
    file = tmp_path / "model.safetensors"
    tiny.save_model(file)
    whole = file.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[:-100])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("short", "empty", "none"):
        with pytest.raises(UserError, match="not a readable model file"):
            files.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match="not a safetensors file"):
        read_state(tmp_path / "short.safetensors")
    save_file(load_file(file), tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="without selftrain's metadata"):
        files.load(tmp_path / "bare.safetensors")


def test_start_from_replaces_a_head_of_other_classes_and_says_so(tmp_path, segmenter, caplog):
    file = tmp_path / "model.safetensors"
    files.save(file, segmenter, LIGHT, ("a", "b", "c", "d"), step=0)
    other = Segmenter(LIGHT, 3)
    head = other.decoder.classifier.weight.clone()
    with caplog.at_level(logging.WARNING):
        files.start_from(other, file)
    assert "new values for decoder.classifier.bias, decoder.classifier.weight" in caplog.text
    assert torch.equal(other.decoder.classifier.weight, head)
    for name, tensor in other.state_dict().items():
        assert "classifier" in name or torch.equal(tensor, segmenter.state_dict()[name]), name


@pytest.mark.parametrize("nested", [None, "state_dict", "model", "model_state"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("part", ["segmenter", "network"])
def test_start_from_a_users_checkpoint(tmp_path, caplog, nested, prefix, part):
    theirs, ours = Segmenter(tiny.MODEL, 3), Segmenter(tiny.MODEL, 3)
    state = (theirs if part == "segmenter" else theirs.encoder.network).state_dict()
    state = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({nested: state, "epoch": 3} if nested else state, tmp_path / "theirs.pth")
    files.start_from(ours, tmp_path / "theirs.pth")
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert not caplog.text  # all fits, so there is nothing to tell


def test_start_from_an_encoder_of_timm(tmp_path, segmenter):
    save_file(segmenter.encoder.body.state_dict(), tmp_path / "backbone.safetensors")
    other = Segmenter(LIGHT, 4)
    files.start_from(other, tmp_path / "backbone.safetensors")
    for name, tensor in other.encoder.state_dict().items():
        assert torch.equal(tensor, segmenter.encoder.state_dict()[name])


UNET = """
from torch import nn
class Unet(nn.Module):
    def __init__(self, classes, width=4):
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, classes, 1)
        self.tied = self.decoder
    def forward(self, images):
        return self.decoder(self.encoder(images))
def broken(classes):
    return nn.Conv2d(3, classes + 1, 1)
def nothing(classes):
    return None
"""


def test_a_users_module_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "own_unet.py").write_text(UNET)
    monkeypatch.chdir(tmp_path)
    settings = ModelSettings(module="own_unet:Unet", arguments={"width": 5})
    model = Segmenter(settings, 4).eval()
    pixels = images(17, 19, count=2)
    assert model(pixels).shape == (2, 4, 17, 19)
    files.save(tmp_path / "model.safetensors", model, settings, tuple("abcd"), step=1)
    again, _ = files.load(tmp_path / "model.safetensors")
    assert torch.equal(model(pixels), again(pixels))
    # Its parts have the names of ours, and still go where it is kept.
    torch.save(model.encoder.network.state_dict(), tmp_path / "unet.pt")
    other = Segmenter(settings, 4).eval()
    files.start_from(other, tmp_path / "unet.pt")
    assert torch.equal(model(pixels), other(pixels))
    with pytest.raises(UserError, match=r"output is \(2, 5, 17, 19\); logits \(B, 4, h, w\) are needed"):
        Segmenter(ModelSettings(module="own_unet:broken"), 4)(pixels)
    with pytest.raises(UserError, match=r"returned no torch\.nn\.Module"):
        Segmenter(ModelSettings(module="own_unet:nothing"), 4)
    for path in ("own_unet:Missing", "no_such_file:Unet"):
        with pytest.raises(UserError, match=f"'{path}' cannot be imported"):
            Segmenter(ModelSettings(module=path), 4)


class Code:
    def __reduce__(self):
        return print, ("code from a checkpoint runs",)


def test_code_in_a_checkpoint_is_refused(tmp_path, capsys):
    torch.save({"state_dict": Code()}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"state_dict": Code()}))
    torch.save(tiny.network(3), tmp_path / "module.pth")
    for name in ("new", "old", "module"):
        with pytest.raises(UserError, match="not a safetensors file or a state dict") as caught:
            files.start_from(Segmenter(tiny.MODEL, 3), tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)
    assert "runs" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [{}, {"epoch": 1}, [torch.zeros(1)], torch.zeros(1), 5])
def test_files_without_named_tensors_are_told(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="no tensors by name"):
        read_state(tmp_path / "odd.pth")


def test_start_from_a_file_that_does_not_fit(tmp_path):
    torch.save({"other.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"no weight fits the model; it has other\.weight, the model has encoder"):
        files.start_from(Segmenter(tiny.MODEL, 3), tmp_path / "other.pth")
    with pytest.raises(UserError, match="no such file"):
        files.start_from(Segmenter(tiny.MODEL, 3), tmp_path / "none.pth")


def test_a_truncated_checkpoint_is_told_wherever_it_ends(tmp_path):
    file = tmp_path / "cut.pth"
    for zipped in (True, False):
        torch.save(tiny.network(3).state_dict(), file, _use_new_zipfile_serialization=zipped)
        whole = file.read_bytes()
        for end in range(0, len(whole) - 1, len(whole) // 23):
            file.write_bytes(whole[:end])
            with pytest.raises(UserError, match="not a safetensors file or a state dict"):
                read_state(file)
