"""Threads that each compute with one thread of their own, and results in the order of the images.

So a matrix product on the CPU has the same shape and order of sums however many threads there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from cliptrase.data.read.ordered import in_order_by as in_order
from cliptrase.machine import cores as cores

__all__ = ["cores", "in_order", "single_threaded_pool"]


@contextmanager
def single_threaded_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of `workers` threads in which torch, BLAS and OpenMP start no threads of their own.

    torch's number of threads is a setting of each thread, so every worker sets it. In the calling
    thread it holds too, until the end. The GPU of the calling thread is that of the others as well.
    Jobs that have not begun are dropped on an error.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    pool = ThreadPoolExecutor(workers, "image", initializer=_begin, initargs=(gpu,))
    try:
        with threadpool_limits(1):
            yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


def _begin(gpu: int | None) -> None:
    torch.set_num_threads(1)
    if gpu is not None:
        torch.cuda.set_device(gpu)
