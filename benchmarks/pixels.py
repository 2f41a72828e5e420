"""Label maps of runs on some images, and by how much the class of a pixel won."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.data import open_dataset
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.evaluate.protocols import Maps
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loader
from cliptrase.model.backbones import load_networks
from cliptrase.model.load import load_clip
from cliptrase.runs.provenance import Stages
from cliptrase.segment.tiles import bilinear

LabelMaps = dict[str, NDArray[np.int16]]  # by run, (images, H, W)


@dataclass(frozen=True)
class Pixel:
    """A pixel whose class differs between two ways of computing a run. margin: of the two best
    logits there, before a vote or a refinement."""

    run: str
    image: str
    y: int
    x: int
    classes: tuple[int, int]
    margin: float


def predictor_of(runs: Mapping[str, Run], data: Path, device: torch.device) -> Predictor:
    """What predicts the images of runs that share a pass (protocol crop)."""
    first = next(iter(runs.values()))
    loader = Loader.of(open_dataset(first, data, any_code=True), runs.values(), data)
    clip = load_clip(first.model, device)
    networks = load_networks(chain(*(run.method.networks for run in runs.values())), device)
    jobs = {}
    for name, run in runs.items():
        beside = {each.key: networks[each.key] for each in run.method.networks}
        jobs[name] = Job.of(run, *text_of(run, clip, data, 1), beside)
    return Predictor(clip, loader, jobs, Stages(), first.batch_size)


def label_maps(
    predictor: Predictor, positions: Sequence[int], together: int = 1, threads: int = 1
) -> LabelMaps:
    """The classes of the images at these positions: so many computed together, or one a thread."""

    def predicted(batch: Sequence[int]) -> Maps:
        shown = [predictor.load(position).shown for position in batch]
        protocol, jobs = predictor.load.protocol, predictor.jobs
        with torch.inference_mode():
            return protocol.maps(predictor.clip, shown, jobs, together, Stages())

    batches = [positions[start : start + together] for start in range(0, len(positions), together)]
    with single_threaded_pool(threads) as pool:
        maps = list(pool.map(predicted, batches) if together == 1 else map(predicted, batches))
    return {run: np.concatenate([each[run].classes for each in maps]) for run in predictor.jobs}


def differing(
    predictor: Predictor,
    run: str,
    position: int,
    image: str,
    maps: tuple[NDArray[np.int16], NDArray[np.int16]],
) -> Iterator[Pixel]:
    """The pixels of an image whose classes (H, W) differ, with the margins that `predictor` has."""
    places = np.argwhere(maps[0] != maps[1])
    if len(places):
        won = margins(predictor, predictor.jobs[run], position)
        for y, x in places.tolist():
            classes = int(maps[0][y, x]), int(maps[1][y, x])
            yield Pixel(run, image, y, x, classes, float(won[y, x]))


def margins(predictor: Predictor, job: Job, position: int) -> NDArray[np.float32]:
    """By how much the best class's logit is above the second's, at each pixel (H, W)."""
    shown, clip = predictor.load(position).shown, predictor.clip
    beside = {"networks": job.networks, "originals": [shown.original] if shown.original else []}
    with torch.inference_mode():
        graph = Graph(clip, clip.normalise(shown.pixels[None]), shown.out_size, **beside)
        names = graph.logits(job.method, job.text, job.text_key, job.logit_scale)
        maps = bilinear(names, shown.out_size)[0]
        classes = maps.new_full((job.text.classes, *shown.out_size), -torch.inf)
        owner = job.text.owner[:, None, None].expand_as(maps)
        best = classes.scatter_reduce(0, owner, maps, "amax").topk(2, dim=0).values
        return (best[0] - best[1]).cpu().numpy()
