"""Work on many items in threads, a few of them ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 8
"""Items per thread."""


def mapped(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int | None = None
) -> Iterator[Result]:
    """As `map`, in threads. Unlike an executor's, it does not hold what is to be done and what is done of all items.

    Args:
        work: what is done to an item.
        items: in the order of the results.
        threads: that work.
        ahead: items that are begun, or done, before their result is asked for; AHEAD per thread unless given.

    >>> list(mapped(abs, [-1, 2, -3], threads=2))
    [1, 2, 3]
    """
    most = threads * AHEAD if ahead is None else ahead
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(begun) == most:
                    yield begun.popleft().result()
                begun.append(pool.submit(work, item))
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
