"""Settings of calibrate: how a model's probabilities are corrected on held-out labels, to mean what they say."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from selftrain.settings.base import NotNegative, Settings, by_name, shortest
from selftrain.settings.data import ReadSettings


class TemperatureSettings(Settings):
    """One temperature T for all classes: z / T (Guo et al. 2017, section 4.2)."""

    name: Literal["temperature"] = "temperature"

    @property
    def mode(self) -> str:
        """The name of the folder of such a calibrator, and part of that of predictions."""
        return "temperature"


class MatrixSettings(Settings):
    """A matrix and a bias: W z + b (Guo et al. 2017, section 4.2), which has many parameters and so overfits easily."""

    name: Literal["matrix"] = "matrix"
    regularization: NotNegative = 0.01
    """Of the mean square of what is off W's diagonal, and of the bias, added to the loss (Kull et al. 2019). It keeps
    classes that the held-out labels hardly show from running away; the default is weak."""

    @property
    def mode(self) -> str:
        """The name of the folder of such a calibrator, and part of that of predictions."""
        default = MatrixSettings.model_fields["regularization"].default
        return "matrix" if self.regularization == default else f"matrix-{shortest(self.regularization)}"


class HistogramBinningSettings(Settings):
    """Each class's probability becomes the share of pixels of that probability which are the class."""

    name: Literal["histogram_binning"] = "histogram_binning"
    bins: Annotated[int, Field(ge=1)] = 15
    """Of equal width, from 0 to 1."""

    @property
    def mode(self) -> str:
        """The name of the folder of such a calibrator, and part of that of predictions."""
        return f"binning-{self.bins}"


CalibrationName = Literal["temperature", "matrix", "histogram_binning"]
AnyCalibration = Annotated[TemperatureSettings | MatrixSettings | HistogramBinningSettings, Field(discriminator="name")]
Calibration = Annotated[
    AnyCalibration, BeforeValidator(by_name, json_schema_input_type=AnyCalibration | CalibrationName)
]


class CalibrateSettings(Settings):
    """All that fitting a calibrator depends on, beside its input files."""

    calibration: Calibration
    seed: int
    """Of the pixels that are drawn."""
    batch_size: int
    read: ReadSettings
    """Of the calibration split."""
