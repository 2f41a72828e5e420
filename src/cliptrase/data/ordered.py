"""Work on many items by a few threads, in order, and no more of them in memory than needed."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
MOST = 4  # more threads would wait for the one that reads and writes
_most = ContextVar("_most", default=MOST)


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
    """Threads that prepare a dataset: the cores of this process, 4 or `at_most` many."""
    return max(1, min(_most.get(), len(os.sched_getaffinity(0))))


@contextlib.contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """No more threads than these in what is done meanwhile; None: as otherwise."""
    before = _most.set(_most.get() if threads is None else threads)
    try:
        yield
    finally:
        _most.reset(before)
