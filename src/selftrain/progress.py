"""How far a long stage is: a bar at a terminal, a line every so often where output goes to a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

EVERY = 30.0
"""Seconds between two lines of a log."""
LONG = 0.2
"""The share of all time that is worth a word where it passed waiting for items."""

log = logging.getLogger(__name__)


class Progress:
    """What `following` yields: it is told of each step, and tells of some.

    Attributes:
        waited: seconds that passed until items of `each` were there.
    """

    def __init__(self, what: str, total: int, unit: str, done: int, bar: tqdm | None, remedy: str | None) -> None:
        self._what, self._total, self._unit, self._bar, self._remedy = what, total, unit, bar, remedy
        self.waited = 0.0
        self._first = self._done = done
        self._facts = ""
        self._started = self._told = time.monotonic()

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, counting how long they are waited for."""
        asked = time.monotonic()
        for item in items:
            self.waited += time.monotonic() - asked
            yield item
            asked = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._told >= EVERY and self._done < self._total:
            self._told = time.monotonic()
            left = (self._total - self._done) / max(self._rate(), 1e-9)
            log.info("%s, %s left", self._line(), timedelta(seconds=round(left)), extra={"goes_on": True})

    def tell(self, facts: str) -> None:
        """What is worth knowing beside the number, such as the loss; until there is something newer."""
        self._facts = facts
        if self._bar is not None:
            self._bar.set_postfix_str(facts, refresh=False)

    def end(self) -> None:
        """All is done."""
        if self._bar is None:
            seconds = time.monotonic() - self._started
            log.info("%s, took %s%s", self._line(), timedelta(seconds=round(seconds)), self._waiting(seconds))

    def _waiting(self, seconds: float) -> str:
        """How much of so many seconds passed waiting, where that is much and something helps."""
        share = self.waited / max(seconds, 1e-9)
        return "" if self._remedy is None or share < LONG else f", {share:.0%} of it waiting: {self._remedy}"

    def _line(self) -> str:
        share = f"{self._done / max(1, self._total):.0%}"
        facts = [self._facts] if self._facts else [f"{self._rate():.3g} {self._unit}s/s"]
        return ", ".join([f"{self._what}: {self._done} of {self._total} {self._unit}s ({share})", *facts])

    def _rate(self) -> float:
        return (self._done - self._first) / max(time.monotonic() - self._started, 1e-9)


@contextmanager
def following(
    what: str, total: int, *, unit: str = "image", done: int = 0, silent: bool = False, remedy: str | None = None
) -> Iterator[Progress]:
    """Tell how far the block is.

    Args:
        what: is done; the line's first word.
        total: how many there are in the end.
        unit: of what, in the singular.
        done: before the block.
        silent: tell nothing, as one of several processes that do the same.
        remedy: against long waiting for the items of `each`.
    """
    at_terminal = sys.stderr.isatty() and not silent
    with tqdm(initial=done, total=total, desc=what, unit=unit, disable=not at_terminal) as bar:
        progress = Progress(what, total, unit, done, bar if at_terminal or silent else None, remedy)
        yield progress
        progress.end()


def followed(
    items: Iterable[Item],
    what: str,
    total: int,
    *,
    unit: str = "image",
    size: Callable[[Item], int] | None = None,
    remedy: str | None = None,
) -> Iterator[Item]:
    """The items, telling how far their use is; `size` says how many units an item counts for, 1 unless given."""
    with following(what, total, unit=unit, remedy=remedy) as progress:
        for item in progress.each(items):
            yield item
            progress.advance(1 if size is None else size(item))
