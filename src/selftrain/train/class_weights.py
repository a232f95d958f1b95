"""The weights of the cross-entropy's classes, from settings that may name some of them or a rule."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from selftrain.errors import UserError
from selftrain.settings.base import nearest
from selftrain.settings.training import ClassWeightRuleSettings, ClassWeights


def class_weights(
    told: ClassWeights, classes: Sequence[str], statistics: pd.DataFrame | None = None, images: int = 0
) -> list[float]:
    """One weight per class.

    Args:
        told: a list, a mapping of those that are not 1, or a rule.
        classes: names.
        statistics: classes.csv of the labels that are learned; needed by a rule.
        images: how many these labels are.

    Raises:
        UserError: another number of weights, another class, or a rule without statistics.
    """
    if isinstance(told, ClassWeightRuleSettings):
        if statistics is None:
            raise UserError(f"class_weights: '{told.name}' needs the classes.csv of the labeled split")
        heavy = small_and_frequent(told, statistics, images)
        return [told.factor if weigh else 1.0 for weigh in heavy]
    if isinstance(told, dict):
        unknown = [nearest(name, list(classes), "class") for name in told if name not in classes]
        if unknown:
            raise UserError(f"class_weights: {'; '.join(unknown)}")
        return [told.get(name, 1.0) for name in classes]
    if len(told) != len(classes):
        raise UserError(f"class_weights: {len(told)} for {len(classes)} classes")
    return list(told)


def small_and_frequent(told: ClassWeightRuleSettings, statistics: pd.DataFrame, images: int) -> list[bool]:
    """Per class whether it takes few of the labeled pixels and is yet shown by many of the labeled images."""
    small, frequent = statistics.share <= told.share, statistics.images / max(1, images) >= told.images
    return (small & frequent).to_list()
