"""Seconds of things that take turns, and the ways in which a machine computes many pictures."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP

from benchmarks.scenery import Held
from cliptrase.evaluate.device import computing_on
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.evaluate.tally import Tally
from cliptrase.evaluate.threads import in_order, single_threaded_pool
from cliptrase.model.load import Clip
from cliptrase.runs.provenance import Stages

BATCH = 16  # at most, of the encoder on a CPU
GPU_BATCH = 64


def taking_turns(
    contenders: dict[str, Callable[[], float]], rounds: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each contender in each of `rounds`, after one that does not count (`warm_up`).

    A round is everyone once, and each begins with another one: what slows the machine down for a
    while slows all of them. A contender says itself how long it took.
    """
    for contender in contenders.values() if warm_up else ():
        contender()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(contenders[name]())
    return found


def spread(values: Iterable[float], digits: int = 3) -> dict[str, float]:
    """Median, least and largest."""
    found = list(values)
    some = {"median": statistics.median(found), "min": min(found), "max": max(found)}
    return {name: round(value, digits) for name, value in some.items()}


def parts_of(calls: Sequence[dict[str, float]], scale: float) -> dict[str, float]:
    """Median of each stage's seconds over the calls that count (all but the first), scaled."""
    counted = calls[1:] or calls
    return {
        stage: round(scale * statistics.median(one.get(stage, 0.0) for one in counted), 3)
        for stage in counted[0]
    }


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


@dataclass(frozen=True)
class Way:
    """How pictures are computed: `threads` at once with one image each, or all in batches."""

    threads: int
    batch: int = 0  # 0: one image a thread

    def __str__(self) -> str:
        if self.batch:
            return f"batches of {self.batch}"
        return f"one image a thread, {self.threads} threads"


def ways(device: torch.device, threads: int) -> list[Way]:
    """The encoder is given the better of these."""
    if device.type != "cpu":
        return [package_way(device, threads)]
    return [Way(threads), Way(threads, BATCH // 2), Way(threads, BATCH)]


def package_way(device: torch.device, threads: int) -> Way:
    """How a pass computes."""
    return Way(threads, 0 if device.type == "cpu" else GPU_BATCH)


def encoding(clip: Clip, encoder: CLIP, pictures: Sequence[np.ndarray], way: Way) -> float:
    """Seconds in which open_clip's encode_image has seen all of some uint8 pictures."""

    def encode(some: Sequence[np.ndarray]) -> None:
        with torch.inference_mode():
            encoder.encode_image(clip.normalise(np.stack(some)))

    size = way.batch or 1
    parts = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    if way.batch:
        with computing_on(str(clip.device)), threads_of_torch(way.threads):
            start = time.perf_counter()
            for part in parts:
                encode(part)
            wait(clip.device)
            return time.perf_counter() - start
    with single_threaded_pool(way.threads) as pool:
        warm(pool, way.threads)
        start = time.perf_counter()
        for _ in in_order(pool, encode, parts, 2 * way.threads):
            pass
        return time.perf_counter() - start


def passing(
    clip: Clip,
    held: Held,
    jobs: dict[str, Job],
    way: Way,
    calls: list[dict[str, float]] | None = None,
) -> float:
    """Seconds in which all jobs are answered on all pictures, counted, as in a pass.

    The seconds of each stage, of all threads together, are appended to `calls`.
    """
    count, stages = len(held.loaded), Stages()
    predictor = Predictor(clip, held, jobs, stages, way.batch or 1)
    tallies = {name: Tally(count, int(one.target)) for name, one in jobs.items()}
    with single_threaded_pool(way.threads) as pool, contextlib.ExitStack() as stack:
        warm(pool, way.threads)
        stack.enter_context(computing_on(str(clip.device)))
        if way.batch:
            stack.enter_context(threads_of_torch(way.threads))
        start = time.perf_counter()
        if way.batch:
            results = predictor.batched(pool, range(count))
        else:
            results = predictor.singly(pool, range(count), ahead=2 * way.threads)
        for position, found in results:
            for name, tally in tallies.items():
                tally.add(position, found[name])
        took = time.perf_counter() - start
    if calls is not None:
        calls.append(dict(stages.seconds))
    return took


@contextlib.contextmanager
def threads_of_torch(threads: int) -> Iterator[None]:
    """torch's own threads, in the calling thread, until the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def warm(pool: Any, threads: int) -> None:
    """Start all threads of a pool."""
    list(pool.map(time.sleep, [0.001] * threads))
