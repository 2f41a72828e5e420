"""Predictions of the runs of a pass: one image or window at a time on the CPU, batches on a GPU."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.data.read.ordered import in_order_by
from cliptrase.evaluate.counting import (
    Counted,
    CountedErrors,
    CountedRegions,
    arrival,
    labels_of,
    result_of,
)
from cliptrase.evaluate.device import fitting, out_of_memory
from cliptrase.evaluate.jobs import Job, operations
from cliptrase.evaluate.protocols import Maps, Predicted, Prediction
from cliptrase.evaluate.tally import AnyResult, RegionResult
from cliptrase.evaluate.truth import Loaded, Loader
from cliptrase.model import vision
from cliptrase.model.load import Clip, uploaded
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.ledger import Outline
from cliptrase.runs.provenance import Stages

log = logging.getLogger(__name__)

T = TypeVar("T")
Results = dict[str, AnyResult | None]  # by run; None where the image is skipped
AnyCounted = Counted | CountedErrors | CountedRegions


@dataclass(frozen=True)
class Ready:
    """An image with its ground truths as a device counts them, and as ledgers need
    them, by target."""

    image: Loaded
    labels: dict[str, NDArray[np.int16]]
    outlines: dict[str, Outline]


@dataclass
class Predictor:
    """Streams images through the model.

    `batch_size` counts images, or windows of one image; it is halved when a GPU runs out of memory.
    """

    clip: Clip
    load: Loader
    jobs: dict[str, Job]
    stages: Stages
    batch_size: int

    def singly(
        self, pool: Executor, positions: Iterable[int], ahead: int
    ) -> Generator[tuple[int, Results]]:
        """Position and results of each image in order, one image a thread: what a CPU does.

        The shape of every product is then the same whatever the number of threads.
        """

        def predicted(position: int) -> tuple[int, Results]:
            image = self._timed_load(position)
            jobs, protocol = self._wanted([image]), self.load.protocol
            with self._one_fitting(), torch.inference_mode():
                maps = protocol.maps(self.clip, [image.shown], jobs, 1, self.stages)
            with self.stages("count"):
                return position, self._results(image, maps)

        return in_order_by(pool, predicted, positions, ahead)

    def batched(self, pool: Executor, positions: Iterable[int]) -> Generator[tuple[int, Results]]:
        """The same in batches of `batch_size`: decoded ahead in the pool, counted on the device,
        and the counts unpacked behind, while it is at the next batch."""
        images = in_order_by(pool, self._timed_ready, positions, 2 * self.batch_size)
        behind: list[Future[list[tuple[int, Results]]]] = []
        while batch := list(islice(images, self.load.protocol.together(self.batch_size))):
            unpacking = [pool.submit(unpack) for unpack in self._halving(batch, self._counted)]
            for earlier in behind:
                yield from earlier.result()
            behind = unpacking
        for earlier in behind:
            yield from earlier.result()

    def first(self, positions: Sequence[int], count: int) -> tuple[list[Loaded], Maps]:
        """The first `count` images, where there are so many in a batch, and what is predicted of
        them together with the rest of the batch, without descriptors."""

        def maps(batch: Sequence[Ready]) -> tuple[list[Loaded], Maps]:
            images = [ready.image for ready in batch]
            shown, size = [image.shown for image in images], self.batch_size
            predictions = self.load.protocol.predictions(
                self.clip, shown, self.jobs, size, Stages()
            )
            first: Maps = {}
            for runs, classes, *_ in predictions:
                here = Predicted(classes[:count].to(torch.int16).cpu().numpy())
                first |= dict.fromkeys(runs, here)
            return images[:count], first

        together = positions[: self.load.protocol.together(self.batch_size)]
        return next(self._halving([self._timed_ready(one) for one in together], maps))

    def flops(self, position: int) -> dict[str, int]:
        """Floating-point operations of each run alone on the image at `position`."""
        different = {job.cost_key: job for job in self.jobs.values()}
        # Where torch counts, it resizes positions in another order: those are made anew.
        beside = [network for job in self.jobs.values() for network in job.networks.values()]
        tables = [getattr(network, "positions", {}) for network in (self.clip, *beside)]
        before = [dict(table) for table in tables]
        with self._one_fitting():
            count = partial(self.load.protocol.count, self.clip, self.load(position).shown)
            counted = {key: operations(partial(count, job)) for key, job in different.items()}
        grids = self.clip.positions.keys() - before[0].keys()
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)
        for grid in grids:
            vision.position_embedding(self.clip, *grid)
        return {run: counted[job.cost_key] for run, job in self.jobs.items()}

    def _one_fitting(self) -> AbstractContextManager[None]:
        """UserError where even one image, or one window of it, does not fit into memory."""
        protocol = self.load.protocol
        return fitting(f"one {protocol.unit} of {protocol.size} pixels", self.clip.device)

    def _timed_load(self, position: int) -> Loaded:
        with self.stages("decode"), self._one_fitting():
            return self.load(position)

    def _timed_ready(self, position: int) -> Ready:
        image = self._timed_load(position)
        with self.stages("count"):
            size = image.shown.out_size
            labels = {key: labels_of(truth, size) for key, truth in image.truths.items()}
            return Ready(image, labels, self._outlines(image))

    def _halving(self, batch: Sequence[Ready], make: Callable[[Sequence[Ready]], T]) -> Iterator[T]:
        """What `make` makes of the batch; where it does not fit into memory, of its halves."""
        done = 0
        while done < len(batch):
            some = batch[done : done + self.batch_size]
            units = self.load.protocol.units([ready.image.shown for ready in some])
            together = min(self.batch_size, units)  # in memory
            made = None
            with self._one_fitting():
                try:
                    with torch.inference_mode():
                        made = make(some)
                except (MemoryError, RuntimeError) as error:
                    if together == 1 or not out_of_memory(error):
                        raise
            if made is not None:
                yield made
                done += len(some)
                continue
            self.batch_size = together // 2
            log.warning("out of memory: going on with batch_size=%d", self.batch_size)
            if self.clip.device.type == "cuda":  # what the failed batch held
                torch.cuda.empty_cache()

    def _counted(self, batch: Sequence[Ready]) -> Callable[[], list[tuple[int, Results]]]:
        """Count all runs on the device. What is returned waits for the counts, and gives the
        position and the results of each image."""
        images, device = [ready.image for ready in batch], self.clip.device
        jobs = self._wanted(images)
        labels = {
            target: uploaded(np.stack([ready.labels[target] for ready in batch]), device)
            for target in {job.target for job in jobs.values()}
        }
        shown, size = [image.shown for image in images], self.batch_size
        predictions = self.load.protocol.predictions(self.clip, shown, jobs, size, self.stages)
        counts: dict[str, AnyCounted] = {}  # by run

        def count(job: Job, each: Prediction) -> AnyCounted:
            target = job.target
            truths = [image.truths[target] for image in images]
            if each.descriptors is not None:
                return CountedRegions.of(truths, each.classes, each.descriptors)
            if job.ledger:
                outlines = [ready.outlines.get(target) for ready in batch]
                return CountedErrors.of(truths, outlines, each.classes, each.certainty)
            k = next(truth.classes for truth in truths if truth is not None)
            return Counted.of(labels[target], each.classes, k, job.surplus)

        for each in predictions:
            counted: dict[tuple[str, int, bool], AnyCounted] = {}
            with self.stages("count"):
                for run in each.runs:
                    job = jobs[run]
                    if job.count_key not in counted:
                        counted[job.count_key] = count(job, each)
                    counts[run] = counted[job.count_key]
        arrived = arrival(device)

        def unpack() -> list[tuple[int, Results]]:
            arrived()
            with self.stages("count"):
                unpacked = {id(counted): counted.results() for counted in counts.values()}
                results: list[tuple[int, Results]] = []
                for index, image in enumerate(images):
                    scored = {run for run in counts if image.truths[jobs[run].target] is not None}
                    of_run = {run: unpacked[id(counts[run])][index] for run in scored}
                    results.append((image.position, {run: of_run.get(run) for run in self.jobs}))
                return results

        return unpack

    def _wanted(self, images: Sequence[Loaded]) -> dict[str, Job]:
        """The runs that score at least one of the images."""
        return {
            run: job
            for run, job in self.jobs.items()
            if any(image.truths[job.target] is not None for image in images)
        }

    def _results(self, image: Loaded, maps: Maps) -> Results:
        """Runs that share a map and a ground truth are counted once."""
        results: Results = {}
        counted: dict[tuple[int, tuple[str, int, bool]], AnyResult | None] = {}
        outlines = self._outlines(image)
        for run, job in self.jobs.items():
            truth = image.truths[job.target]
            key = id(maps.get(run)), job.count_key
            if key not in counted:
                counted[key] = None if truth is None else _result(truth, maps[run], job, outlines)
            results[run] = counted[key]
        return results

    def _outlines(self, image: Loaded) -> dict[str, Outline]:
        """What ledgers need of the ground truth of an image, by target."""
        wanted = {job.target for job in self.jobs.values() if job.ledger}
        half, size = self.clip.patch / 2, image.shown.out_size
        return self.load.outlines(image.truths, wanted, size, half)


def _result(
    truth: GroundTruth, predicted: Predicted, job: Job, outlines: Mapping[str, Outline]
) -> AnyResult:
    """Of a single image."""
    if predicted.descriptors is None:
        outline = outlines.get(job.target) if job.ledger else None
        return result_of(truth, predicted.classes[0], job.surplus, outline, predicted.certainty)
    return RegionResult.of(truth, predicted.classes[0], predicted.descriptors[0])
