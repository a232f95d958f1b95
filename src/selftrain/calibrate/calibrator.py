"""What a calibrator is, and its file: readable JSON that says which model it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from selftrain import registry
from selftrain.errors import UserError
from selftrain.settings.calibration import Calibration
from selftrain.written import read_json

FORMAT = "selftrain-calibrator"
VERSION = 1
AGAIN = "run calibrate again to make it"


class Calibrator:
    """Changes logits, or the probabilities that follow from them; this one leaves both as they are.

    What is done to logits is linear, so it is the same before and after they are brought to another size.
    """

    of_probabilities = False
    """Whether it is the probabilities that it changes."""

    def logits(self, logits: Tensor) -> Tensor:
        """Calibrated logits, float32 (B, C, h, w)."""
        return logits

    def probabilities(self, probabilities: Tensor) -> Tensor:
        """Calibrated probabilities, float32 (B, C, h, w)."""
        return probabilities

    def parameters(self) -> dict[str, Any]:
        """What its file holds, as JSON has it, and its constructor takes."""
        return {}


NONE = Calibrator()


def read_calibrator(path: Path, wanted: Calibration, model: str, classes: Sequence[str]) -> Calibrator:
    """The calibrator in a file that the calibrate stage wrote.

    Args:
        path: calibrator.json.
        wanted: what it must be.
        model: the digest of the model file that it is used with.
        classes: names.

    Raises:
        UserError: it is no such file, another calibrator, of another model, or of other classes.
    """
    told = read_about(path)
    settings = wanted.model_dump(mode="json")
    if told["settings"] != settings:
        raise UserError(f"{path}: made by {told['settings']}, not {settings}; {AGAIN}")
    if told["classes"] != list(classes):
        raise UserError(f"{path}: made for the classes {told['classes']}, not {list(classes)}")
    if told["model"] != model:
        raise UserError(f"{path}: was fitted to another model ({told['model']}, not {model}); {AGAIN}")
    try:
        return registry.load(registry.CALIBRATORS, wanted.name)(**told["parameters"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: broken inside ({error}); {AGAIN}") from error


def read_about(path: Path) -> dict[str, Any]:
    """All that a calibrator's file says."""
    told = read_json(path, ("format", "version", "settings", "classes", "model", "parameters"), AGAIN)
    if (told["format"], told["version"]) != (FORMAT, VERSION):
        raise UserError(f"{path}: not a calibrator of version {VERSION}; {AGAIN}")
    return told
