"""ResNet-38, model A1 of 'Wider or Deeper' (Wu, Shen, van den Hengel), as an encoder of timm's.

MLSL trains it, and CBST before it. Wide and shallow: seven blocks, the last two with one unit each.
"""

from __future__ import annotations

from typing import Any

from timm.layers import BatchNormAct2d, ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

BLOCKS = (
    ((128, 128), 3, 2),
    ((256, 256), 3, 2),
    ((512, 512), 6, 2),
    ((512, 1024), 3, 2),
    ((512, 1024, 2048), 1, 2),
    ((1024, 2048, 4096), 1, 1),
)
"""Blocks 2 to 7: channels of a unit's convolutions, units, and the stride of the first one (Table 1, A1)."""
KERNELS = {2: (3, 3), 3: (1, 3, 1)}
"""Of a unit's convolutions, by their number."""


class Unit(nn.Module):
    """A pre-activated residual unit; where its size changes, the shortcut is a projection of the activated input.

    Args:
        inputs: channels of its input.
        channels: of its convolutions.
        stride: of the first convolution and of the shortcut.
        dilations: of the first convolution, and of those after it. They differ where a dilation stands for a stride:
            what comes before it still sees the grid that it was made for.
        dropout: before the last convolution.
    """

    def __init__(
        self, inputs: int, channels: tuple[int, ...], stride: int, dilations: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        kernels = KERNELS[len(channels)]
        changes = stride > 1 or inputs != channels[-1]
        self.norm = BatchNormAct2d(inputs)
        self.shortcut = _convolution(inputs, channels[-1], 1, stride) if changes else None
        self.first = _convolution(inputs, channels[0], kernels[0], stride, dilations[0])
        rest: list[nn.Module] = []
        for before, after, kernel in zip(channels[:-1], channels[1:], kernels[1:], strict=True):
            rest += [BatchNormAct2d(before), _convolution(before, after, kernel, dilation=dilations[1])]
        rest.insert(-1, nn.Dropout(dropout))
        self.rest = nn.Sequential(*rest)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels[-1], h / stride, w / stride) of (B, inputs, h, w)."""
        activated = self.norm(features)
        kept = features if self.shortcut is None else self.shortcut(activated)
        return kept + self.rest(self.first(activated))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


class ResNet38(nn.Module):
    """Blocks 1 to 7, a last normalization, and a classifier of whole images.

    Args:
        num_classes: 0 for none.
        in_chans: of the images.
        output_stride: 32 for images of one class; below it, dilation stands for the strides of the last blocks. 8, as
            the paper segments with: 2 in block 5 and 4 in blocks 6 and 7.
        global_pool: before the classifier.
        drop_rate: before the classifier.
        drop_units: before the last convolution of block 6 and of block 7.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        output_stride: int = 32,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_units: tuple[float, float] = (0.3, 0.5),
    ) -> None:
        super().__init__()
        assert output_stride in (8, 16, 32), "the strides that timm's networks have"
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.block1 = _convolution(in_chans, 64, 3)
        self.feature_info = [{"num_chs": 64, "reduction": 1, "module": "block1"}]
        inputs, reached, dilation = 64, 1, 1
        dropouts = (0.0,) * (len(BLOCKS) - len(drop_units)) + drop_units
        for number, ((channels, units, stride), dropout) in enumerate(zip(BLOCKS, dropouts, strict=True), start=2):
            former = dilation
            if reached * stride > output_stride:
                stride, dilation = 1, dilation * stride
            block = nn.Sequential(Unit(inputs, channels, stride, (former, dilation), dropout))
            inputs, reached = channels[-1], reached * stride
            block.extend(Unit(inputs, channels, 1, (dilation, dilation), dropout) for _ in range(1, units))
            self.add_module(f"block{number}", block)
            self.feature_info.append({"num_chs": inputs, "reduction": reached, "module": f"block{number}"})
        self.norm = BatchNormAct2d(inputs)
        self.feature_info[-1]["module"] = "norm"  # features end where the network does
        self.num_features = self.head_hidden_size = inputs
        self.head = ClassifierHead(inputs, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Classify other classes."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 4096, h, w) of (B, in_chans, H, W)."""
        features = self.block1(images)
        for number in range(2, len(BLOCKS) + 2):
            features = self.get_submodule(f"block{number}")(features)
        return self.norm(features)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_classes); before the classifier (B, 4096)."""
        return self.head(features, pre_logits=pre_logits)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) of (B, in_chans, H, W)."""
        return self.forward_head(self.forward_features(images))


default_cfgs = generate_default_cfgs(
    {
        "resnet38.untrained": {
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "num_classes": 1000,
            "first_conv": "block1",
            "classifier": "head.fc",
        }
    }
)


@register_model
def resnet38(pretrained: bool = False, **options: Any) -> ResNet38:
    """Without weights of its own; those of a file are named as the layers here."""
    features = {"out_indices": tuple(range(len(BLOCKS) + 1))}
    return build_model_with_cfg(ResNet38, "resnet38", pretrained, feature_cfg=features, **options)
