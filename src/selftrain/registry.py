"""Names to code, imported only when chosen: a job depends on the method it uses, never on all that exist.

A new method is one file and one entry here (and its settings).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain.errors import UserError

ENCODERS = {
    "resnet38": "selftrain.models.resnet38:resnet38",
}
"""Those that timm does not bring: importing one registers it there."""
DECODERS = {
    "light": "selftrain.models.decoders.light:Light",
    "aspp": "selftrain.models.decoders.aspp:Aspp",
    "pyramid_pooling": "selftrain.models.decoders.pyramid_pooling:PyramidPooling",
    "convolutions": "selftrain.models.decoders.convolutions:Convolutions",
}
DATASETS = {
    "cityscapes": "selftrain.data.datasets.cityscapes:DATA_SET",
    "gta5": "selftrain.data.datasets.gta5:DATA_SET",
    "synthia": "selftrain.data.datasets.synthia:DATA_SET",
    "voc": "selftrain.data.datasets.voc:DATA_SET",
    "bdd100k": "selftrain.data.datasets.bdd100k:DATA_SET",
    "camvid": "selftrain.data.datasets.camvid:DATA_SET",
}
ALGORITHMS = {
    "supervised": "selftrain.train.algorithms.supervised:Supervised",
    "self_training": "selftrain.train.algorithms.self_training:SelfTraining",
    "weak_labels": "selftrain.train.algorithms.weak_labels:WeakLabels",
    "hybrid": "selftrain.train.algorithms.hybrid:Hybrid",
    "mean_teacher_mixing": "selftrain.train.algorithms.mean_teacher_mixing:MeanTeacherMixing",
    "curriculum": "selftrain.train.algorithms.curriculum:Curriculum",
}
CALIBRATORS = {
    "temperature": "selftrain.calibrate.temperature:Temperature",
    "matrix": "selftrain.calibrate.matrix:Matrix",
    "histogram_binning": "selftrain.calibrate.histogram_binning:HistogramBinning",
}
POLICIES = {
    "st": "selftrain.select.st:select",
    "cbst": "selftrain.select.cbst:select",
    "da": "selftrain.select.da:select",
    "dars": "selftrain.select.dars:select",
}


def load(registry: Mapping[str, str], name: str) -> Any:
    """The object that `registry` holds under `name` as 'package.module:attribute'."""
    if name not in registry:
        raise UserError(f"'{name}' is not known here; valid: {', '.join(registry)}")
    return load_object(registry[name])


def load_object(path: str) -> Any:
    """The object at 'package.module:attribute'; a user's own module, in the working directory too, enters this way."""
    module, _, attribute = path.partition(":")
    _see_working_directory()
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, SyntaxError, ValueError) as error:  # ValueError: an empty name
        raise UserError(f"'{path}' cannot be imported: {error}") from None
    except AttributeError:
        raise UserError(f"'{path}' cannot be imported: '{module}' has no '{attribute}'") from None


def module_of(path: str) -> str:
    """The module part of 'package.module:attribute'."""
    return path.partition(":")[0]


def file_of(path: str) -> Path:
    """The source file of a user's own 'package.module:attribute'."""
    _see_working_directory()
    try:
        found = importlib.util.find_spec(module_of(path))
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None:
        raise UserError(f"'{path}': there is no module '{module_of(path)}' here or among the installed packages")
    return Path(found.origin)


def _see_working_directory() -> None:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
