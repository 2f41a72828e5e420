"""Threads that each compute with one thread of their own, and results in the order of the images.

So a matrix product on the CPU has the same shape and order of sums however many threads there are.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Made = TypeVar("Made")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def single_threaded_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of `workers` threads in which torch, BLAS and OpenMP start no threads of their own.

    torch's number of threads is a setting of each thread, so every worker sets it. In the calling
    thread it holds too, until the end. Jobs that have not begun are dropped on an error.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, "image", initializer=torch.set_num_threads, initargs=(1,))
    try:
        with threadpool_limits(1):
            yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


def in_order(
    pool: Executor, function: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Generator[Made]:
    """function(item) for each item, in order, with at most `ahead` of them under way at once."""
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
