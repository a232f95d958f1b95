"""The kinds of alarms: each a few lines that ask what is known of a round, with a limit, and say what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import pandas as pd

from selftrain.settings.alarms import AlarmSettings

COLUMNS = ["alarm", "class", "value", "limit", "message"]


@dataclass(frozen=True)
class Alarm:
    """One row of alarms.csv.

    `value` of a kind with a limit is what goes beyond it. Of `vanished` it is the share of the pixels that the class
    had in the round before, of `never_predicted` its share of the labeled set; these have no limit.
    """

    alarm: str
    of_class: str
    """Empty: over all classes."""
    value: float
    limit: float | None
    message: str

    def row(self) -> list[str | float | None]:
        """In the order of `COLUMNS`."""
        return [self.alarm, self.of_class, self.value, self.limit, self.message]


@dataclass(frozen=True)
class Known:
    """What the signs and the cut know of a class; shares from 0 to 1, NaN where there is nothing to count."""

    name: str
    predicted: int
    share: float
    before: float
    """Its share in the round before."""
    left: float
    """The share of its pixels in the round before that have another class now."""
    prior: float
    target: int
    """The pixels that the policy aims at."""


@dataclass(frozen=True)
class Round:
    """What is known of a round: of its classes, and over all of them."""

    classes: list[Known]
    disagreement: float
    saturated: float

    @classmethod
    def of(cls, signs: pd.DataFrame, cut: pd.DataFrame) -> Self:
        """From a row over all and one per class, as `measure` returns them, and select's row per class."""
        numbers = ["predicted", "predicted_share", "before_share", "left"]
        columns = [cut["class"], *(signs[column][1:] for column in numbers), cut.prior, cut.target]
        classes = [Known(*row) for row in zip(*(column.to_list() for column in columns), strict=True)]
        return cls(classes, float(signs.left.iloc[0]), float(signs.saturated.iloc[0]))


def raised(settings: AlarmSettings, known: Round) -> list[Alarm]:
    """What there is to tell of: the worst kind first, and of one kind what goes farthest."""
    found: list[Alarm] = []
    for kind, ask in KINDS.items():
        limit = getattr(settings, kind)
        if limit is not None and limit is not False:
            found += sorted(ask(known, limit), key=lambda alarm: -alarm.value)
    return found


def _vanished(known: Round, _: float) -> Iterator[Alarm]:
    for one in known.classes:
        if one.predicted == 0 and one.before > 0:
            said = f"{one.name} had {share(one.before)} of the pixels in the round before, and has none now"
            yield Alarm("vanished", one.name, one.before, None, said)


def _disagreement(known: Round, limit: float) -> Iterator[Alarm]:
    if known.disagreement > limit:
        moved = share(known.disagreement)
        most = max((one for one in known.classes if one.left > 0), key=lambda one: one.left * one.before)
        said = f"{moved} of the pixels have another class than in the round before (limit {share(limit)})"
        lost = f"most of these were {most.name}, which lost {share(most.left)} of its pixels"
        yield Alarm("disagreement", "", known.disagreement, limit, f"{said}; {lost}")


def _exploded(known: Round, limit: float) -> Iterator[Alarm]:
    for one in known.classes:
        # Growth of a rare class up to its prior is what the policies that know the prior aim at.
        if one.share > limit * one.before > 0 and one.share > one.prior:
            times = one.share / one.before
            said = f"{one.name} has {share(one.share)} of the pixels, {times:.3g} times as many as in the round before"
            yield Alarm(
                "exploded", one.name, times, limit, f"{said} (limit {limit:g}); its prior is {share(one.prior)}"
            )


def _dwindled(known: Round, limit: float) -> Iterator[Alarm]:
    for one in known.classes:
        if one.before > limit * one.share > 0 and one.share < one.prior:
            times = one.before / one.share
            said = f"{one.name} has {share(one.share)} of the pixels, and had {times:.3g} times as many before"
            yield Alarm(
                "dwindled", one.name, times, limit, f"{said} (limit {limit:g}); its prior is {share(one.prior)}"
            )


def _saturated(known: Round, limit: float) -> Iterator[Alarm]:
    if known.saturated > limit:
        said = f"{share(known.saturated)} of the pixels are so confident that their probability in float32 is 1"
        yield Alarm("saturated", "", known.saturated, limit, f"{said} (limit {share(limit)})")


def _never_predicted(known: Round, _: float) -> Iterator[Alarm]:
    for one in known.classes:
        if one.predicted == 0 and not one.before > 0:
            said = f"{one.name} is never predicted; it has {share(one.prior)} of the labeled set"
            yield Alarm("never_predicted", one.name, one.prior, None, said)


def _beyond(known: Round, _: float) -> Iterator[Alarm]:
    for one in known.classes:
        # Of a class without pixels another alarm has told already.
        if one.target > one.predicted > 0:
            said = f"the portion asks for {one.target:,} pixels of {one.name}, and {one.predicted:,} are predicted"
            yield Alarm("beyond", one.name, one.target / one.predicted, 1, f"{said}: all are taken")


KINDS: dict[str, Callable[[Round, float], Iterator[Alarm]]] = {
    "vanished": _vanished,
    "disagreement": _disagreement,
    "exploded": _exploded,
    "dwindled": _dwindled,
    "saturated": _saturated,
    "never_predicted": _never_predicted,
    "beyond": _beyond,
}
"""By their names in the settings, the worst first: what self-training did before what the first model lacked."""


def share(value: float) -> str:
    """A share in percent, to three digits.

    >>> share(0.0123), share(1), share(2 / 3)
    ('1.23 %', '100 %', '66.7 %')
    """
    return f"{100 * value:.3g} %"
