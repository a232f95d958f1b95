"""From settings to a policy's cut. The registry imports the chosen policy only, so a run depends on no other."""

from __future__ import annotations

import math

from selftrain import registry
from selftrain.errors import UserError
from selftrain.select.cut import Counts, Cut, Shares
from selftrain.settings.selection import SelectSettings, StSettings


def decide(settings: SelectSettings, histograms: Counts, prior: Shares) -> Cut:
    """The cut of the policy and portion in `settings`.

    Args:
        settings: with a portion, unless ST has a fixed threshold.
        histograms: valid pixels by class and bin, int64 (C, BINS).
        prior: the share of each class in the labeled set, (C,).
    """
    policy, portion = settings.policy, settings.portion
    if portion is None and not has_fixed_threshold(settings):
        raise UserError(f"policy '{policy.name}' needs a portion, a number from 0 to 1")
    select = registry.load(registry.POLICIES, policy.name)
    return select(histograms, prior, policy, math.nan if portion is None else portion)


def has_fixed_threshold(settings: SelectSettings) -> bool:
    """Whether the policy takes no portion."""
    return isinstance(settings.policy, StSettings) and settings.policy.threshold is not None
