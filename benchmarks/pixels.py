"""Label maps of runs on some images, and by how much the class of a pixel won."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.data import open_dataset
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
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


def label_maps(predictor: Predictor, positions: Sequence[int], together: int) -> LabelMaps:
    """The classes of the images at these positions, so many computed at once."""
    protocol, maps = predictor.load.protocol, []
    for start in range(0, len(positions), together):
        shown = [predictor.load(at).shown for at in positions[start : start + together]]
        with torch.inference_mode():
            maps.append(protocol.maps(predictor.clip, shown, predictor.jobs, together, Stages()))
    return {run: np.concatenate([each[run].classes for each in maps]) for run in predictor.jobs}


def differing(
    predictor: Predictor, run: str, position: int, one: NDArray[np.int16], other: NDArray[np.int16]
) -> Iterable[Pixel]:
    """The pixels of an image whose class (H, W) is another in `other`, with the margins that
    `predictor` gives them."""
    places = np.argwhere(one != other)
    if not len(places):
        return
    image = str(predictor.load.dataset.ids[position])
    won = margins(predictor, predictor.jobs[run], position)
    for y, x in places.tolist():
        classes = int(one[y, x]), int(other[y, x])
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
