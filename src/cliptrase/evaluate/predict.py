"""Predictions of the runs of a pass: one image or window at a time on the CPU, batches on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.data.read.ordered import in_order_by
from cliptrase.evaluate.counting import Counted, arrival, labels_of
from cliptrase.evaluate.device import fitting, out_of_memory
from cliptrase.evaluate.jobs import Job as Job
from cliptrase.evaluate.jobs import operations
from cliptrase.evaluate.protocols import Maps
from cliptrase.evaluate.tally import ImageResult
from cliptrase.evaluate.truth import Loaded, Loader
from cliptrase.model.load import Clip
from cliptrase.model.upload import uploaded
from cliptrase.runs.provenance import Stages

log = logging.getLogger(__name__)

T = TypeVar("T")
Results = dict[str, ImageResult | None]  # by run; None where the image is skipped


@dataclass(frozen=True)
class Ready:
    """An image with its ground truths as a device counts them, by target."""

    image: Loaded
    labels: dict[str, NDArray[np.int16]]


@dataclass(frozen=True)
class Batch:
    """Images that were predicted together, and the counts of the runs that score any of them."""

    images: list[Loaded]
    counts: dict[str, Counted]
    arrived: Callable[[], None]  # waits until the counts are there

    def unpack(self, jobs: dict[str, Job]) -> list[tuple[int, Results]]:
        """Position and results of each image."""
        unpacked = {id(counted): counted.results() for counted in self.counts.values()}
        results = {run: unpacked[id(counted)] for run, counted in self.counts.items()}
        return [
            (
                image.position,
                {
                    run: None if image.truths[job.target] is None else results[run][index]
                    for run, job in jobs.items()
                },
            )
            for index, image in enumerate(self.images)
        ]


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
            with self._one_fitting(), torch.inference_mode():
                maps = self._maps(image)
            with self.stages("count"):
                return position, self._results(image, maps)

        return in_order_by(pool, predicted, positions, ahead)

    def batched(self, pool: Executor, positions: Iterable[int]) -> Generator[tuple[int, Results]]:
        """The same in batches of `batch_size`: decoded ahead in the pool, counted on the device,
        and the counts unpacked behind, while it is at the next batch."""
        images = in_order_by(pool, self._timed_ready, positions, 2 * self.batch_size)
        behind: list[Future[list[tuple[int, Results]]]] = []
        while batch := list(islice(images, self.load.protocol.together(self.batch_size))):
            counted = self._halving(batch, self._counted)
            unpacking = [pool.submit(self._timed_unpack, images) for images in counted]
            for earlier in behind:
                yield from earlier.result()
            behind = unpacking
        for earlier in behind:
            yield from earlier.result()

    def first(self, positions: Sequence[int], count: int) -> tuple[list[Loaded], Maps]:
        """The first `count` images, where there are so many in a batch, and their class maps
        (B, H, W) by run, as they are predicted together with the rest of the batch."""

        def maps(batch: Sequence[Ready]) -> tuple[list[Loaded], Maps]:
            images = [ready.image for ready in batch]
            shown, size = [image.shown for image in images], self.batch_size
            predictions = self.load.protocol.predictions(
                self.clip, shown, self.jobs, size, Stages()
            )
            first: Maps = {}
            for runs, classes in predictions:
                first |= dict.fromkeys(runs, classes[:count].to(torch.int16).cpu().numpy())
            return images[:count], first

        together = positions[: self.load.protocol.together(self.batch_size)]
        return next(self._halving([self._timed_ready(one) for one in together], maps))

    def flops(self, position: int) -> dict[str, int]:
        """Floating-point operations of each run alone on the image at `position`."""
        counted: dict[tuple[str, str], int] = {}
        with self._one_fitting():
            count, shown = self.load.protocol.count, self.load(position).shown
            for job in self.jobs.values():
                if job.cost_key not in counted:
                    counted[job.cost_key] = operations(partial(count, self.clip, shown, job))
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
            size = image.out_size
            return Ready(
                image, {key: labels_of(truth, size) for key, truth in image.truths.items()}
            )

    def _timed_unpack(self, batch: Batch) -> list[tuple[int, Results]]:
        batch.arrived()
        with self.stages("count"):
            return batch.unpack(self.jobs)

    def _halving(self, batch: Sequence[Ready], make: Callable[[Sequence[Ready]], T]) -> Iterator[T]:
        """What `make` makes of the batch; where it does not fit into memory, of its halves."""
        done = 0
        while done < len(batch):
            some = batch[done : done + self.batch_size]
            with self._one_fitting():
                made = self._fitting(some, make)
            if made is None:
                self._halve(self._at_once(some))
                continue
            yield made
            done += len(some)

    def _fitting(self, batch: Sequence[Ready], make: Callable[[Sequence[Ready]], T]) -> T | None:
        """What is made of the batch, None where so many at once do not fit into memory."""
        try:
            with torch.inference_mode():
                return make(batch)
        except (MemoryError, RuntimeError) as error:
            if self._at_once(batch) == 1 or not out_of_memory(error):
                raise
            return None

    def _at_once(self, batch: Sequence[Ready]) -> int:
        """Images or windows that are in memory together when the images are predicted."""
        units = self.load.protocol.units([ready.image.shown for ready in batch])
        return min(self.batch_size, units)

    def _halve(self, failed: int) -> None:
        """A batch size below `failed`, with what the failed batch held given back."""
        self.batch_size = failed // 2
        log.warning("out of memory: going on with batch_size=%d", self.batch_size)
        if self.clip.device.type == "cuda":
            torch.cuda.empty_cache()

    def _counted(self, batch: Sequence[Ready]) -> Batch:
        """The counts of all runs, on their way from the device."""
        images, device = [ready.image for ready in batch], self.clip.device
        jobs = self._wanted(images)
        counted = Batch(images, {}, lambda: None)
        if not jobs:
            return counted
        labels = {
            target: uploaded(np.stack([ready.labels[target] for ready in batch]), device)
            for target in {job.target for job in jobs.values()}
        }
        shown, size = [image.shown for image in images], self.batch_size
        predictions = self.load.protocol.predictions(self.clip, shown, jobs, size, self.stages)
        for runs, classes in predictions:
            counts: dict[str, Counted] = {}  # by target
            with self.stages("count"):
                for run in runs:
                    target = jobs[run].target
                    if target not in counts:
                        truths = (image.truths[target] for image in images)
                        k = next(truth.classes for truth in truths if truth is not None)
                        counts[target] = Counted.of(labels[target], classes, k)
                    counted.counts[run] = counts[target]
        return replace(counted, arrived=arrival(device))

    def _maps(self, image: Loaded) -> Maps:
        """Class maps (1, H, W) of an image by run, for the runs that score it."""
        jobs = self._wanted([image])
        if not jobs:
            return {}
        return self.load.protocol.maps(self.clip, [image.shown], jobs, 1, self.stages)

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
        counted: dict[tuple[int, str], ImageResult] = {}
        for run, job in self.jobs.items():
            truth = image.truths[job.target]
            if truth is None:
                results[run] = None
                continue
            key = id(maps[run]), job.target
            if key not in counted:
                counted[key] = ImageResult.of(truth, maps[run][0])
            results[run] = counted[key]
        return results
