"""Predictions of the runs of a pass: one image at a time on the CPU, whole batches on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.evaluate.device import fitting, out_of_memory
from cliptrase.evaluate.flops import counted, method_key
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.evaluate.provenance import Stages
from cliptrase.evaluate.tally import ImageResult
from cliptrase.evaluate.threads import in_order
from cliptrase.evaluate.truth import Loaded, Loader, target_key
from cliptrase.model.load import Clip

log = logging.getLogger(__name__)

Maps = dict[str, NDArray[np.int16]]  # class maps (B, n, n) of a batch, (n, n) of an image, by run
Results = dict[str, ImageResult | None]  # by run; None where the image is skipped


@dataclass(frozen=True)
class Job:
    """What is asked of every image: a method and words, scored against one ground truth."""

    method: dict[str, Any]
    logit_scale: float
    target: str  # target_key of the run
    text_key: str
    text: Text

    @classmethod
    def of(cls, run: dict[str, Any], text_key: str, text: Text) -> Job:
        scale = run["protocol"]["logit_scale"]
        return cls(run["method"], scale, target_key(run), text_key, text)

    @property
    def cost_key(self) -> tuple[str, str]:
        """The same for jobs that cost the same."""
        return method_key(self.method), self.text_key

    def predict(self, graph: Graph) -> Tensor:
        """Classes (B, n, n) int64 in 0..K-1."""
        return graph.prediction(self.method, self.text, self.text_key, self.logit_scale)


@dataclass
class Predictor:
    """Streams images through the model. `batch_size` is halved when a GPU runs out of memory."""

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
                maps = {run: batch[0] for run, batch in self._maps([image]).items()}
            with self.stages("count"):
                return position, self._results(image, maps)

        return in_order(pool, one, positions, ahead)

    def batched(self, pool: Executor, positions: Iterable[int]) -> Generator[tuple[int, Results]]:
        """The same in batches of `batch_size`: decoded ahead and counted behind in the pool."""
        ahead = 2 * self.batch_size
        images = in_order(pool, self._timed_load, positions, ahead)
        behind: list[tuple[int, Future[Results]]] = []
        while batch := list(islice(images, self.batch_size)):
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
            pixels = self._pixels([self.load(position)])
            for job in self.jobs.values():
                if job.cost_key not in known:
                    known[job.cost_key] = counted(partial(self._alone, job, pixels))
        return {run: known[job.cost_key] for run, job in self.jobs.items()}

    def _one_fitting(self) -> AbstractContextManager[None]:
        """UserError where even one image does not fit into memory."""
        return fitting(f"one image of {self.load.size} pixels", self.clip.device)

    def _alone(self, job: Job, pixels: Tensor) -> Tensor:
        return job.predict(self._graph(pixels))

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
                self._halve(len(part))
                continue
            for index, image in enumerate(part):
                yield image, {run: batch_maps[index] for run, batch_maps in maps.items()}
            done += len(part)

    def _fitting(self, images: Sequence[Loaded]) -> Maps | None:
        """The maps of the images, None where several of them do not fit into memory together."""
        try:
            return self._maps(images)
        except (MemoryError, RuntimeError) as error:
            if len(images) == 1 or not out_of_memory(error):
                raise
            return None

    def _halve(self, failed: int) -> None:
        """A batch size below `failed`, with what the failed batch held given back."""
        self.batch_size = failed // 2
        log.warning("out of memory: going on with batch_size=%d", self.batch_size)
        if self.clip.device.type == "cuda":
            torch.cuda.empty_cache()

    def _maps(self, images: Sequence[Loaded]) -> Maps:
        """Class maps (B, n, n) by run, for the runs that score at least one of the images."""
        wanted = {
            run: job
            for run, job in self.jobs.items()
            if any(image.truths[job.target] is not None for image in images)
        }
        if not wanted:
            return {}
        with torch.inference_mode():
            graph = self._graph(self._pixels(images))
            maps = {
                run: job.predict(graph).to(torch.int16).cpu().numpy() for run, job in wanted.items()
            }
        self.stages.add(graph.seconds)
        return maps

    def _results(self, image: Loaded, maps: Maps) -> Results:
        results: Results = {}
        for run, job in self.jobs.items():
            truth = image.truths[job.target]
            results[run] = None if truth is None else ImageResult.of(truth, maps[run])
        return results

    def _graph(self, pixels: Tensor) -> Graph:
        return Graph(self.clip, pixels, (self.load.size, self.load.size))

    def _pixels(self, images: Sequence[Loaded]) -> Tensor:
        return self.clip.normalise(np.stack([image.pixels for image in images]))
