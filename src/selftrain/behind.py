"""Work that a loop leaves behind: one thread does it in order while the loop goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

WAITING = 2
"""Calls that may wait, so that what they hold does not pile up."""


class Behind:
    """Calls functions in a thread of its own, in order, at most a few calls behind.

    What a call raises is raised by one of the next, at the latest where the block ends, unless the loop fails itself.

    >>> told = []
    >>> with Behind() as behind:
    ...     for number in range(5):
    ...         behind(told.append, number)
    >>> told
    [0, 1, 2, 3, 4]
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._calls: deque[Future[None]] = deque()

    def __call__(self, work: Callable[..., None], *arguments: object) -> None:
        """Have `work` called with the arguments."""
        self._calls.append(self._thread.submit(work, *arguments))
        if len(self._calls) > WAITING:
            self._calls.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        while kind is None and self._calls:
            self._calls.popleft().result()
