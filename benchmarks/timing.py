"""Seconds of contenders that take turns, and the ways in which a machine computes many pictures."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from open_clip.model import CLIP

from benchmarks.scenery import Patchworks
from cliptrase.data.read.ordered import in_order_by
from cliptrase.evaluate.device import computing_on, single_threaded_pool
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.evaluate.tally import Tally
from cliptrase.model.load import Clip
from cliptrase.runs.provenance import Stages

Spread = dict[str, float]  # median, min, max
Calls = list[dict[str, float]]  # the seconds of each stage, by call
BATCH = 16  # at most, of the encoder on a CPU
GPU_BATCH = 64


def taking_turns(
    contenders: dict[str, Callable[[], float]], rounds: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each contender in each of `rounds`, after one that does not count (`warm_up`).

    In a round everyone runs once, and each round begins with another contender: what slows the
    machine down for a while slows all of them. A contender returns how long it took.
    """
    for contender in contenders.values() if warm_up else ():
        contender()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(contenders[name]())
    return seconds


def spread(values: Iterable[float], scale: float = 1, digits: int = 3) -> Spread:
    """Median, least and largest, each times `scale`."""
    scaled = [scale * value for value in values]
    figures = {"median": statistics.median(scaled), "min": min(scaled), "max": max(scaled)}
    return {name: round(value, digits) for name, value in figures.items()}


def stage_medians(calls: Calls, scale: float) -> dict[str, float]:
    """Median of each stage's seconds over the calls that count (all but the first), scaled."""
    counted = calls[1:] or calls
    return {
        stage: round(scale * statistics.median(call.get(stage, 0.0) for call in counted), 3)
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
    """The way of a pass, and then others that may suit a bare encoder better."""
    if device.type != "cpu":
        return [Way(threads, GPU_BATCH)]
    return [Way(threads), Way(threads, BATCH // 2), Way(threads, BATCH)]


def encoding(clip: Clip, encoder: CLIP, pictures: Sequence[np.ndarray], way: Way) -> float:
    """Seconds in which open_clip's encode_image has seen all of some uint8 pictures."""

    def encode(batch: Sequence[np.ndarray]) -> None:
        with torch.inference_mode():
            encoder.encode_image(clip.normalise(np.stack(batch)))

    size = way.batch or 1
    batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    with computing(clip, way) as pool:
        start = time.perf_counter()
        encoded = in_order_by(pool, encode, batches, 2 * way.threads)
        for _ in map(encode, batches) if way.batch else encoded:
            pass
        wait(clip.device)
        return time.perf_counter() - start


def passing(
    clip: Clip, pictures: Patchworks, jobs: dict[str, Job], way: Way, calls: Calls | None = None
) -> float:
    """Seconds in which all jobs are answered on all pictures, and counted, as in a pass.

    The seconds of each stage, of all threads together, are appended to `calls`.
    """
    count, stages = len(pictures.loaded), Stages()
    predictor = Predictor(clip, pictures, jobs, stages, way.batch or 1)
    tallies = {name: Tally(count, int(job.target)) for name, job in jobs.items()}
    with computing(clip, way) as pool:
        start = time.perf_counter()
        if way.batch:
            results = predictor.batched(pool, range(count))
        else:
            results = predictor.singly(pool, range(count), ahead=2 * way.threads)
        for position, by_run in results:
            for name, tally in tallies.items():
                tally.add(position, by_run[name])
        seconds = time.perf_counter() - start
    if calls is not None:
        calls.append(dict(stages.seconds))
    return seconds


@contextlib.contextmanager
def computing(clip: Clip, way: Way) -> Iterator[Executor]:
    """The threads of a pass, started; in batches the calling thread computes with all of them."""
    with single_threaded_pool(way.threads) as pool, computing_on(str(clip.device)):
        list(pool.map(time.sleep, [0.001] * way.threads))
        with torch_threads(way.threads if way.batch else 1):
            yield pool


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
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
