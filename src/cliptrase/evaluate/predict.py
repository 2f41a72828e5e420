"""Predictions of the runs of a pass: one image or window at a time on the CPU, batches on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch

from cliptrase.evaluate.device import fitting, out_of_memory
from cliptrase.evaluate.flops import counted
from cliptrase.evaluate.jobs import Job as Job
from cliptrase.evaluate.protocols import Maps
from cliptrase.evaluate.provenance import Stages
from cliptrase.evaluate.tally import ImageResult
from cliptrase.evaluate.threads import in_order
from cliptrase.evaluate.truth import Loaded, Loader
from cliptrase.model.load import Clip

log = logging.getLogger(__name__)

Results = dict[str, ImageResult | None]  # by run; None where the image is skipped


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

        def one(position: int) -> tuple[int, Results]:
            image = self._timed_load(position)
            with self._one_fitting():
                maps = {run: batch[0] for run, batch in self._maps([image], 1).items()}
            with self.stages("count"):
                return position, self._results(image, maps)

        return in_order(pool, one, positions, ahead)

    def batched(self, pool: Executor, positions: Iterable[int]) -> Generator[tuple[int, Results]]:
        """The same in batches of `batch_size`: decoded ahead and counted behind in the pool."""
        ahead = 2 * self.batch_size
        images = in_order(pool, self._timed_load, positions, ahead)
        behind: list[tuple[int, Future[Results]]] = []
        while batch := list(islice(images, self.load.protocol.together(self.batch_size))):
            parts = list(self._halving(batch))
            counting = [
                (image.position, pool.submit(self._timed_results, image, maps))
                for image, maps in parts
            ]
            yield from ((position, future.result()) for position, future in behind)
            behind = counting
        yield from ((position, future.result()) for position, future in behind)

    def flops(self, position: int) -> dict[str, int]:
        """Floating-point operations of each run alone on the image at `position`."""
        known: dict[tuple[str, str], int] = {}
        with self._one_fitting():
            count, shown = self.load.protocol.count, self.load(position).shown
            for job in self.jobs.values():
                if job.cost_key not in known:
                    known[job.cost_key] = counted(partial(count, self.clip, shown, job))
        return {run: known[job.cost_key] for run, job in self.jobs.items()}

    def _one_fitting(self) -> AbstractContextManager[None]:
        """UserError where even one image, or one window of it, does not fit into memory."""
        protocol = self.load.protocol
        return fitting(f"one {protocol.unit} of {protocol.size} pixels", self.clip.device)

    def _timed_load(self, position: int) -> Loaded:
        with self.stages("decode"), self._one_fitting():
            return self.load(position)

    def _timed_results(self, image: Loaded, maps: Maps) -> Results:
        with self.stages("count"):
            return self._results(image, maps)

    def _halving(self, batch: Sequence[Loaded]) -> Iterator[tuple[Loaded, Maps]]:
        """Each image with its maps; a batch that does not fit is tried again in halves."""
        done = 0
        while done < len(batch):
            part = batch[done : done + self.batch_size]
            with self._one_fitting():
                maps = self._fitting(part)
            if maps is None:
                self._halve(self._at_once(part))
                continue
            for index, image in enumerate(part):
                yield image, {run: batch_maps[index] for run, batch_maps in maps.items()}
            done += len(part)

    def _fitting(self, images: Sequence[Loaded]) -> Maps | None:
        """The maps of the images, None where so many at once do not fit into memory."""
        try:
            return self._maps(images, self.batch_size)
        except (MemoryError, RuntimeError) as error:
            if self._at_once(images) == 1 or not out_of_memory(error):
                raise
            return None

    def _at_once(self, images: Sequence[Loaded]) -> int:
        """Images or windows that are in memory together when the images are predicted."""
        units = self.load.protocol.units([image.shown for image in images])
        return min(self.batch_size, units)

    def _halve(self, failed: int) -> None:
        """A batch size below `failed`, with what the failed batch held given back."""
        self.batch_size = failed // 2
        log.warning("out of memory: going on with batch_size=%d", self.batch_size)
        if self.clip.device.type == "cuda":
            torch.cuda.empty_cache()

    def _maps(self, images: Sequence[Loaded], batch_size: int) -> Maps:
        """Class maps (B, H, W) by run, for the runs that score at least one of the images."""
        wanted = {
            run: job
            for run, job in self.jobs.items()
            if any(image.truths[job.target] is not None for image in images)
        }
        if not wanted:
            return {}
        shown = [image.shown for image in images]
        with torch.inference_mode():
            return self.load.protocol.maps(self.clip, shown, wanted, batch_size, self.stages)

    def _results(self, image: Loaded, maps: Maps) -> Results:
        results: Results = {}
        for run, job in self.jobs.items():
            truth = image.truths[job.target]
            results[run] = None if truth is None else ImageResult.of(truth, maps[run])
        return results
