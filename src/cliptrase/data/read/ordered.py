"""Work on many items by a few threads, in order, and no more of them in memory than needed."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

from cliptrase import machine

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST = 4  # more threads would wait for the one that reads and writes
_most = ContextVar("_most", default=MOST)


def in_order(
    make: Callable[[Item], Made], items: Iterable[Item], workers: int | None = None
) -> Iterator[Made]:
    """`map` by several threads, results in order, a few items ahead of what is taken.

    The calling thread is one of the `workers`: where it would wait for the next result, it makes
    one that no other has begun. So no more threads are ever busy, and one worker is a plain `map`.
    """
    workers = workers or cores()
    if workers == 1:
        yield from map(make, items)
        return
    pending: deque[tuple[Item, Future[Made]]] = deque()
    with ThreadPoolExecutor(workers - 1) as pool:
        try:
            for item in items:
                pending.append((item, pool.submit(make, item)))
                if len(pending) >= workers + 3:
                    yield _next(make, pending)
            while pending:
                yield _next(make, pending)
        finally:
            for _, future in pending:
                future.cancel()


def _next(make: Callable[[Item], Made], pending: deque[tuple[Item, Future[Made]]]) -> Made:
    """The first result; while it is being made, others are made here."""
    while not pending[0][1].done():
        place = next((i for i, (_, future) in enumerate(pending) if future.cancel()), None)
        if place is None:
            break  # all have been begun
        item, made = pending[place][0], Future[Made]()
        try:
            made.set_result(make(item))
        except Exception as error:  # raised in its turn
            made.set_exception(error)
        pending[place] = (item, made)
    return pending.popleft()[1].result()


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
    """Threads that prepare a dataset: the cores of this process, 4 or `at_most` many."""
    return max(1, min(_most.get(), machine.cores()))


@contextlib.contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """No more threads than these in what is done meanwhile; None: as otherwise."""
    before = _most.set(_most.get() if threads is None else threads)
    try:
        yield
    finally:
        _most.reset(before)
