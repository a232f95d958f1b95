"""The papers' networks, layer by layer, on the meta device: no weights, no arithmetic, real sizes.

Kernels, channels, units and strides of maps are the papers'. What differs is how timm dilates: the first convolution
of a stage that lost its stride keeps the dilation of the stage before it, since it still sees that grid (so weights
trained with the stride see what they saw). The authors of DeepLabv2, PSPNet and the curriculum dilate it as the rest;
those of ResNet-38 do as timm does. timm also puts a bottleneck's stride at its 3×3 convolution.
"""

from contextlib import nullcontext

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from selftrain.models import resnet38
from selftrain.models.auxiliary import auxiliary
from selftrain.models.decoders.convolutions import Convolutions
from selftrain.models.decoders.pyramid_pooling import PyramidPooling, grid_means
from selftrain.models.segmenter import AUXILIARY, Segmenter
from selftrain.settings.model import ConvolutionsSettings, ModelSettings, PyramidPoolingSettings
from selftrain.train.losses import cross_entropy, of_outputs

torch.set_num_threads(1)

CLASSES = 19
SIZE = (64, 96)


@pytest.fixture
def meta(monkeypatch):
    """Builds a network without weights, with its auxiliary classifier if it has one."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which the meta device does not know

    def build(**settings):
        told = ModelSettings(**settings)
        with torch.device("meta"):
            network = Segmenter(told, CLASSES)
            network.heads.update(auxiliary(network, told, CLASSES))
        return network

    return build


def images(count=2, size=SIZE, device="meta"):
    return torch.zeros(count, 3, *size, device=device)


def shape_of(maps, size=SIZE):
    """Channels, and what part of the image's sides the map's are."""
    ratios = {side // length for side, length in zip(size, maps.shape[2:], strict=True)}
    assert len(ratios) == 1 and all(side % length == 0 for side, length in zip(size, maps.shape[2:], strict=True))
    return maps.shape[1], ratios.pop()


def of(convolution):
    """(kernel, inputs, outputs, stride, dilation), padded so that stride alone changes the size."""
    assert isinstance(convolution, nn.Conv2d) and convolution.groups == 1
    kernel, stride, rate = (getattr(convolution, name) for name in ("kernel_size", "stride", "dilation"))
    assert kernel[0] == kernel[1] and stride[0] == stride[1] and rate[0] == rate[1]
    assert convolution.padding == (rate[0] * (kernel[0] // 2),) * 2
    dilation = rate[0] if kernel[0] > 1 else 1
    return kernel[0], convolution.in_channels, convolution.out_channels, stride[0], dilation


def in_order(module):
    return [of(one) for one in module.modules() if isinstance(one, nn.Conv2d)]


# DeepLabv2 and PSPNet: bottlenecks

RESNETS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def check_bottlenecks(body, units):
    """Blocks 2 to 5 of thesis Table 3.1 at stride 8: 1×1, 3×3, 1×1, of a width and four times that."""
    stem = body["conv1"]
    assert (stem.kernel_size, stem.in_channels, stem.out_channels, stem.stride) == ((7, 7), 3, 64, (2, 2))
    pool = body["maxpool"]
    assert isinstance(pool, nn.MaxPool2d) and (pool.kernel_size, pool.stride) == (3, 2)
    before = 64
    strides, dilations = (1, 2, 1, 1), (1, 1, 2, 4)
    for at, (count, width, stride, rate) in enumerate(zip(units, (64, 128, 256, 512), strides, dilations, strict=True)):
        layer = body[f"layer{at + 1}"]
        assert len(layer) == count
        for number, unit in enumerate(layer):
            first = number == 0
            kept = max(1, rate // 2) if first else rate  # timm's; the papers': rate
            assert [of(unit.conv1), of(unit.conv2), of(unit.conv3)] == [
                (1, before, width, 1, 1),
                (3, width, width, stride if first else 1, kept),
                (1, width, 4 * width, 1, 1),
            ]
            assert all(isinstance(getattr(unit, name), nn.BatchNorm2d) for name in ("bn1", "bn2", "bn3"))
            assert (unit.downsample is not None) == first
            before = 4 * width


def test_deeplabv2_with_resnet_101(meta):
    """Thesis Table 3.1; exact but for the first 3×3 convolutions of blocks 4 and 5, dilated by 1 and 2, not 2 and 4."""
    network = meta(encoder="resnet101", decoder="aspp", output_stride=8)
    check_bottlenecks(network.encoder.body, RESNETS["resnet101"])
    maps = network.encoder.body(images())
    # timm tells the stem before its pooling, which makes it 1/4.
    assert [shape_of(one) for one in maps] == [(64, 2), (256, 4), (512, 8), (1024, 8), (2048, 8)]
    assert in_order(network.decoder) == [(3, 2048, CLASSES, 1, rate) for rate in (6, 12, 18, 24)]
    assert all(branch.bias is not None for branch in network.decoder.branches)
    assert shape_of(network(images())) == (CLASSES, 8)
    assert sum(p.numel() for p in network.encoder.parameters()) == 42_500_160  # ResNet-101 without its classifier


def test_pspnet_50_with_its_auxiliary_loss(meta):
    """PSPNet sections 3.2 and 4, but for the first 3×3 convolutions of the last two stages, and the stem: ImageNet's,
    one 7×7 convolution, where the authors' code has three of 3×3 (timm's resnet50c)."""
    decoder = {"name": "pyramid_pooling", "bins": (1, 2, 3, 6), "channels": 512, "dropout": 0.1}
    network = meta(encoder="resnet50", decoder=decoder, output_stride=8, auxiliary=True)
    check_bottlenecks(network.encoder.body, RESNETS["resnet50"])
    assert network.decoder.bins == (1, 2, 3, 6)
    thinned, joined = [(1, 2048, 512, 1, 1)] * 4, [(3, 2048 + 4 * 512, 512, 1, 1)]
    assert in_order(network.decoder) == [*thinned, *joined, (1, 512, CLASSES, 1, 1)]
    kinds = [type(layer) for layer in network.decoder.joined]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] and network.decoder.dropout.p == 0.1
    head = network.heads[AUXILIARY]
    assert in_order(head) == [(3, 1024, 256, 1, 1), (1, 256, CLASSES, 1, 1)]
    assert [type(layer) for layer in head.hidden] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout2d]
    assert head.hidden[3].p == 0.1
    outputs = network(images(), apart=True)
    assert shape_of(outputs.logits) == shape_of(outputs.heads[AUXILIARY]) == (CLASSES, 8)
    assert outputs.auxiliary_weight == 0.4
    maps = network.encoder(images())
    assert [shape_of(one) for one in maps] == [(256, 4), (1024, 8), (2048, 8)]


def test_the_curriculums_dilated_resnet_18(meta):
    """Strategic curriculum section 4.2: dilations 2 and 4 in the last two stages (timm: but for their first
    convolutions), four grids, each thinned to a quarter of the channels, a 1×1 classifier, all of it twice."""
    network = meta(encoder="resnet18", decoder="pyramid_pooling", output_stride=8, branches=2)
    before = 64
    for at, (width, stride, rate) in enumerate(zip((64, 128, 256, 512), (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
        found = [of(conv) for unit in network.encoder.body[f"layer{at + 1}"] for conv in (unit.conv1, unit.conv2)]
        first = (3, before, width, stride, max(1, rate // 2))
        assert found == [first, *[(3, width, width, 1, rate)] * 3]
        before = width
    assert len(network.branches) == 2
    for branch in network.branches:
        assert branch.bins == (6, 3, 2, 1)
        assert in_order(branch) == [(1, 512, 128, 1, 1)] * 4 + [(1, 1024, CLASSES, 1, 1)]
        assert [type(layer) for layer in branch.thinned[0]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    one, other = network(images(), apart=True).branches
    assert shape_of(one) == shape_of(other) == (CLASSES, 8)


# MLSL: ResNet-38

UNITS = {2: 3, 3: 3, 4: 6, 5: 3, 6: 1, 7: 1}
PLAIN = {2: (128, 128), 3: (256, 256), 4: (512, 512), 5: (512, 1024)}
BOTTLENECKS = {6: (512, 1024, 2048), 7: (1024, 2048, 4096)}
DILATIONS = {8: {5: 2, 6: 4, 7: 4}, 16: {6: 2, 7: 2}, 32: {}}
"""By output stride, of the blocks that are dilated."""


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_resnet_38_and_two_convolutions(meta, output_stride):
    """'Wider or Deeper', Table 1, A1, and MLSL section 4.1.2. Exact: the authors' code, too, strides and projects at a
    unit's first convolution, which keeps the dilation of the block before."""
    network = meta(encoder="resnet38", decoder="convolutions", output_stride=output_stride)
    body = network.encoder.body
    assert of(body["block1"]) == (3, 3, 64, 1, 1)
    before, former, reached = 64, 1, 1
    for block, count in UNITS.items():
        widths = PLAIN.get(block) or BOTTLENECKS[block]
        kernels = (3, 3) if block in PLAIN else (1, 3, 1)
        rate = DILATIONS[output_stride].get(block, 1)
        stride = 2 if block < 7 and reached < output_stride else 1
        reached *= stride
        assert len(body[f"block{block}"]) == count
        for number, unit in enumerate(body[f"block{block}"]):
            first = number == 0
            step, kept = (stride, former) if first else (1, rate)
            expected = [(kernels[0], before, widths[0], step, kept if kernels[0] > 1 else 1)]
            for one, other, kernel in zip(widths, widths[1:], kernels[1:], strict=False):
                expected.append((kernel, one, other, 1, rate if kernel > 1 else 1))
            assert in_order(unit.first) + in_order(unit.rest) == expected
            assert (unit.shortcut is not None) == first
            assert not first or of(unit.shortcut) == (1, before, widths[-1], step, 1)
            kinds = [type(layer).__name__ for layer in unit.rest]
            between = ["BatchNormAct2d", "Conv2d"] * (len(widths) - 2)
            assert kinds == [*between, "BatchNormAct2d", "Dropout", "Conv2d"]
            assert unit.rest[-2].p == {6: 0.3, 7: 0.5}.get(block, 0)
            before = widths[-1]
        former = rate
    strides = [1, 2, 4, *(min(stride, output_stride) for stride in (8, 16, 32, 32))]
    channels = [64, 128, 256, 512, 1024, 2048, 4096]
    assert [shape_of(one) for one in body(images())] == list(zip(channels, strides, strict=True))
    assert body.feature_info.reduction() == strides and body.feature_info.channels() == channels
    assert in_order(network.decoder) == [(3, 4096, 512, 1, 1), (3, 512, CLASSES, 1, 1)]
    assert shape_of(network(images())) == (CLASSES, output_stride)


def test_resnet_38_classifies_images():
    with torch.device("meta"):
        network = timm.create_model("resnet38", num_classes=7, in_chans=1)
        seen = torch.zeros(2, 1, 224, 224)
        assert network.forward_features(seen).shape == (2, 4096, 7, 7)
        assert network(seen).shape == (2, 7) and network.get_classifier().out_features == 7
        network.reset_classifier(3)
        assert network(seen).shape == (2, 3)
        network.reset_classifier(0)
        assert network(seen).shape == network.forward_head(torch.zeros(2, 4096, 7, 7), pre_logits=True).shape


@pytest.fixture
def narrow(monkeypatch):
    """ResNet-38 with a 64th of its channels after the first."""
    blocks = tuple((tuple(width // 64 for width in widths), *rest) for widths, *rest in resnet38.BLOCKS)
    monkeypatch.setattr(resnet38, "BLOCKS", blocks)
    return ModelSettings(encoder="resnet38", decoder={"name": "convolutions", "channels": 4}, output_stride=8)


def randomized(network):
    """With statistics of normalization that are not 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


def test_dilation_sees_what_the_stride_saw(narrow):
    """À trous: of the maps at stride 8 every fourth place is the map at stride 32, to the borders."""
    torch.manual_seed(0)
    coarse = randomized(timm.create_model("resnet38", num_classes=0)).double().eval()
    fine = timm.create_model("resnet38", num_classes=0, output_stride=8).double().eval()
    fine.load_state_dict(coarse.state_dict())
    with torch.inference_mode():
        seen = torch.randn(1, 3, 96, 64, dtype=torch.double)
        there, here = coarse.forward_features(seen), fine.forward_features(seen)
    assert there.shape[2:] == (3, 2) and here.shape[2:] == (12, 8)
    torch.testing.assert_close(here[..., ::4, ::4], there)


def test_a_unit_is_preactivated(narrow):
    torch.manual_seed(0)
    network = randomized(timm.create_model("resnet38", num_classes=0)).eval()
    unit, features = network.block6[0], torch.randn(1, 16, 6, 6)
    norms = [unit.norm, unit.rest[0], unit.rest[2]]

    def activated(norm, maps):
        return F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()

    start = activated(norms[0], features)
    inner = F.conv2d(start, unit.first.weight, stride=2)
    inner = F.conv2d(activated(norms[1], inner), unit.rest[1].weight, padding=1)
    inner = F.conv2d(activated(norms[2], inner), unit.rest[4].weight)
    expected = inner + F.conv2d(start, unit.shortcut.weight, stride=2)
    torch.testing.assert_close(unit(features), expected)
    features = torch.randn(1, 8, 6, 6)
    unit = network.block4[1]
    inner = F.conv2d(activated(unit.norm, features), unit.first.weight, padding=1)
    expected = features + F.conv2d(activated(unit.rest[0], inner), unit.rest[2].weight, padding=1)
    torch.testing.assert_close(unit(features), expected)


def test_resnet_38_takes_weights_of_a_file(narrow, tmp_path):
    """A classifier's, as it would be trained on ImageNet, and an encoder's."""
    torch.manual_seed(0)
    whole = randomized(timm.create_model("resnet38", num_classes=1000))
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    of_file = narrow.model_copy(update={"weights": str(tmp_path / "whole.safetensors")})
    network = Segmenter(of_file, 3)
    found = network.encoder.body.state_dict()
    assert {name for name in whole.state_dict() if not name.startswith("head.")} == found.keys()
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in found.items())
    step_and_predict(network)


# Decoders


def test_two_convolutions_are_what_the_paper_says():
    torch.manual_seed(0)
    last = torch.randn(2, 6, 9, 11)
    for rate in (1, 12):
        decoder = Convolutions(ConvolutionsSettings(channels=5, dilation=rate), (4, 6), 3)
        expected = last
        for layer in (decoder.first, decoder.classifier):
            expected = F.conv2d(expected, layer.weight, layer.bias, padding=rate, dilation=rate)
            expected = expected.relu() if layer is decoder.first else expected
        torch.testing.assert_close(decoder.classify(decoder.hidden(None, last)), expected)


def test_pspnets_pyramid_is_the_curriculums_and_a_convolution():
    torch.manual_seed(0)
    settings = PyramidPoolingSettings(bins=(1, 2), channels=5, dropout=0.5)
    decoder, last = PyramidPooling(settings, (4, 6), 3).eval(), torch.randn(2, 6, 4, 6)
    grids = [thin(grid_means(last, bins)) for bins, thin in zip((1, 2), decoder.thinned, strict=True)]
    grown = [F.interpolate(grid, size=(4, 6), mode="bilinear") for grid in grids]
    scale = 1 / (1 + decoder.joined[1].eps) ** 0.5  # new statistics: mean 0, variance 1
    joined = (F.conv2d(torch.cat([last, *grown], 1), decoder.joined[0].weight, padding=1) * scale).relu()
    hidden = decoder.hidden(None, last)
    torch.testing.assert_close(hidden, joined)
    torch.testing.assert_close(
        decoder.classify(hidden), F.conv2d(joined, decoder.classifier.weight, decoder.classifier.bias)
    )
    dropped = (decoder.train().hidden(None, last) == 0).all((2, 3))
    assert dropped.any() and not dropped.all()


# Others


def step_and_predict(network, size=(50, 67)):
    """A step of SGD moves every part; then the network predicts, another size too."""
    draw = torch.Generator().manual_seed(0)
    shown = torch.randint(0, 256, (2, 3, *size), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, 3, (2, *size), generator=draw, dtype=torch.uint8)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = of_outputs(lambda logits: cross_entropy(logits, labels), network.train()(shown, apart=True))
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    for part in {name.partition(".")[0] for name in before}:
        moved = [not torch.equal(p, before[name]) for name, p in network.named_parameters() if name.startswith(part)]
        assert sum(moved) > len(moved) / 2, part
    with torch.inference_mode():
        for side in (size, (64, 56)):
            logits = network.eval()(torch.zeros(1, 3, *side, dtype=torch.uint8))
            assert logits.shape[:2] == (1, 3) and logits.isfinite().all()


@pytest.mark.parametrize(("encoder", "strides"), [("convnext_atto", [4, 16]), ("vit_small_patch14_dinov2", [14, 14])])
@pytest.mark.parametrize("decoder", ["light", "pyramid_pooling"])
def test_other_kinds_of_encoders_learn_and_predict(encoder, strides, decoder):
    """Of sizes that are no multiples of a stride or a patch, with an auxiliary classifier on the last map but one."""
    torch.manual_seed(0)
    told = ModelSettings(encoder=encoder, decoder=decoder, auxiliary={"channels": 8})
    network = Segmenter(told, 3)
    network.heads.update(auxiliary(network, told, 3))
    assert network.describe()["strides"] == strides
    fine, second_last, last = network.encoder.places
    assert fine < second_last == last - 1
    step_and_predict(network)
