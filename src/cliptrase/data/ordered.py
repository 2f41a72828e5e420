"""Work on many items by a few threads, in order, and no more of them in memory than needed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def in_order(
    make: Callable[[_Item], _Made], items: Iterable[_Item], workers: int | None = None
) -> Iterator[_Made]:
    """`map` by several threads, results in order, a few items ahead of what is taken."""
    workers = workers or cores()
    ahead: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(make, item))
                if len(ahead) > workers + 2:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for left in ahead:
                left.cancel()


def cores() -> int:
    """Threads that prepare a dataset: the cores of this process, 4 at most."""
    return max(1, min(4, len(os.sched_getaffinity(0))))
