"""Work on many items by a few threads: results in order, only a few items in memory at once."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

from cliptrase import machine

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST = 4  # more threads would only wait for the one that reads and writes
_most = ContextVar("_most", default=MOST)


def in_order(
    make: Callable[[Item], Made], items: Iterable[Item], workers: int | None = None
) -> Iterator[Made]:
    """`map` by several threads, a few items ahead of what is taken; one worker is a plain `map`."""
    workers = workers or cores()
    if workers == 1:
        yield from map(make, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from in_order_by(pool, make, items, workers + 3)


def in_order_by(
    pool: Executor, make: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Generator[Made]:
    """make(item) for each item, in order, with at most `ahead` of them under way at once."""
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def cores() -> int:
    """The threads that prepare a dataset: one a core of this process, MOST or `at_most` many."""
    return max(1, min(_most.get(), machine.cores()))


@contextlib.contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """Limit `cores` in the block; None keeps the limit that holds outside."""
    before = _most.set(_most.get() if threads is None else threads)
    try:
        yield
    finally:
        _most.reset(before)
