"""When the jobs of a start are done: each waits for others, and takes cores for its threads."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A process that Snakemake starts.

    alone: seconds that one thread takes while its others wait. shared: seconds of one thread that
    its threads share. gpu: whether it needs one of the GPUs. needs: jobs that come before.
    """

    name: str
    alone: float
    shared: float = 0.0
    threads: int = 1
    gpu: bool = False
    needs: frozenset[str] = frozenset()

    @property
    def seconds(self) -> float:
        """From its start to its end, with all its threads."""
        return self.alone + self.shared / self.threads

    @property
    def work(self) -> float:
        """Seconds of one core."""
        return self.alone + self.shared


def finished(jobs: Iterable[Job], cores: int, gpus: int = 0) -> float:
    """Seconds until all are done, where each starts as soon as it can, the first ones first.

    A job takes its threads, but never more than there are cores; GPU jobs also one of the `gpus`.
    """
    waiting = list(jobs)
    known = {job.name for job in waiting}
    done: set[str] = set()
    running: list[tuple[float, int, Job]] = []
    free, cards, now, number = cores, gpus, 0.0, 0
    while waiting or running:
        for job in list(waiting):
            threads = min(job.threads, cores)
            ready = not (job.needs & known) - done
            if ready and threads <= free and (not job.gpu or cards > 0 or not gpus):
                waiting.remove(job)
                free, cards, number = free - threads, cards - job.gpu, number + 1
                heapq.heappush(running, (now + job.seconds, number, job))
        if not running:
            raise ValueError(f"nothing can start: {sorted(job.name for job in waiting)}")
        now, _, job = heapq.heappop(running)
        done.add(job.name)
        free, cards = free + min(job.threads, cores), cards + job.gpu
    return now
