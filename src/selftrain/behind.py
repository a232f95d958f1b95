"""Work that a loop leaves behind: other threads do it while the loop goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

WAITING = 2
"""Calls that may wait beside those at work, so that what they hold does not pile up."""


class Behind:
    """Calls functions in threads of its own, at most a few calls behind; with one thread, in order.

    What must be in order with several threads, too, goes into `then`: the loop's thread calls it with what `work` gave,
    one call after the other.

    What a call raises is raised by one of the next, at the latest where the block ends, unless the loop fails itself.

    >>> told = []
    >>> with Behind() as behind:
    ...     for number in range(5):
    ...         behind(told.append, number)
    >>> told
    [0, 1, 2, 3, 4]
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads, self._most = ThreadPoolExecutor(threads), WAITING + threads - 1
        self._calls: deque[tuple[Future[Any], Callable[[Any], object] | None]] = deque()

    def __call__(
        self, work: Callable[..., Any], *arguments: object, then: Callable[[Any], object] | None = None
    ) -> None:
        """Have `work` called with the arguments, and `then` with its result."""
        self._calls.append((self._threads.submit(work, *arguments), then))
        if len(self._calls) > self._most:
            self._end_first()

    def _end_first(self) -> None:
        call, then = self._calls.popleft()
        result = call.result()
        if then is not None:
            then(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._calls:
                self._end_first()
        finally:
            self._threads.shutdown(cancel_futures=True)
