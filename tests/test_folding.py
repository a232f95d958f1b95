"""A folded network says what the network says; and memory that is kept is not cleared anew."""

import platform
import subprocess
import sys

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from selftrain.models.folding import folded
from selftrain.models.segmenter import Segmenter
from selftrain.settings.model import ModelSettings

torch.set_num_threads(1)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def trained(network):
    """With statistics and scales that matter, as after a training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


@torch.no_grad()
def largest_difference(network, light):
    said = network(IMAGES)
    return ((light(IMAGES) - said).abs().max() / said.abs().max()).item()


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [("test_resnet", "light"), ("mobilenetv3_small_050", "aspp"), ("efficientnet_lite0", "pyramid_pooling")],
)
def test_no_batch_norm_is_left_and_the_network_says_the_same(encoder, decoder):
    network = trained(Segmenter(ModelSettings(encoder=encoder, decoder=decoder), 5))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    light = folded(network, torch.rand(1, 3, 224, 224))
    assert not [module for module in light.modules() if isinstance(module, NORMS)]
    assert largest_difference(network, light) < 1e-5
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


class Watched(nn.Module):
    """Something else than the batch-norm looks at the convolution."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images):
        seen = self.convolution(images)
        return self.norm(seen) + seen


class Twice(Watched):
    """One convolution before two batch-norms."""

    def __init__(self):
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def forward(self, images):
        return self.norm(self.convolution(images)) + self.other(self.convolution(images))


@pytest.mark.parametrize("kind", [Watched, Twice])
def test_a_network_that_cannot_be_folded_stays_as_it_is(kind):
    network = trained(kind())
    assert folded(network, IMAGES) is network


def test_what_is_not_between_a_convolution_and_its_norm_is_left():
    network = trained(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))
    light = folded(network, IMAGES)
    assert sum(isinstance(module, NORMS) for module in light.modules()) == 2
    assert largest_difference(network, light) == 0


FAULTS = """
import resource, sys, numpy
from selftrain.memory import keep_freed_memory
if sys.argv[1] == "keep": keep_freed_memory()
for turn in range(60):
    if turn == 10: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large = numpy.ones(64 * 2**20, numpy.uint8)
    del large
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keep_freed_memory is for glibc")
def test_kept_memory_is_not_cleared_anew():
    def faults(kept):
        return int(subprocess.run([sys.executable, "-c", FAULTS, kept], capture_output=True, check=True).stdout)

    assert faults("keep") < 1000 < 50 * 100 < faults("give back")
