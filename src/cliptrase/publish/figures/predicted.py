"""Images predicted again, by the graph that passes use, so that a map is that of the run.

One image and one thread at a time. Needs torch and the model.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from cliptrase.config import Run
from cliptrase.evaluate.counting import labels_of
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.protocols import Crop, Jobs
from cliptrase.evaluate.targets import background_of, target_key
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loaded, Loader
from cliptrase.model.backbones import load_networks
from cliptrase.model.load import Clip
from cliptrase.publish.figures.attention import patch_classes, shown_patch
from cliptrase.publish.figures.label_maps import Labels, Picture
from cliptrase.publish.figures.quantities import Quantities, Words, quantities
from cliptrase.runs.provenance import Stages
from cliptrase.runs.scoring import class_names


def explained(
    clip: Clip, run: Run, loader: Loader, positions: Iterable[int], data: Path
) -> Iterator[Quantities]:
    """What the run makes of the images at some positions, on its way; the patch that is shown is
    the middle of the smallest class, if one fills enough patches."""
    jobs = jobs_of({run.name: run}, clip, data)
    words = Words(jobs[run.name].text, tuple(class_names(run)), background_of(run))
    for position in positions:
        loaded = loader(position)
        yield quantities(
            graph_of(clip, loader, loaded, jobs),
            run.method,
            loader.dataset[position].id,
            loaded.shown.pixels,
            words=words,
            logit_scale=run.protocol.logit_scale,
            patch=shown_patch(patch_classes(truth_map(loaded, run), clip.patch)),
        )


def graph_of(clip: Clip, loader: Loader, loaded: Loaded, jobs: Jobs) -> Graph:
    """What everything that is shown of an image comes from; the model sees it whole."""
    assert isinstance(loader.protocol, Crop)
    return loader.protocol.graph(clip, [loaded.shown], jobs)


def jobs_of(runs: Mapping[str, Run], clip: Clip, data: Path) -> Jobs:
    """What a pass does for the runs; they share their networks."""
    networks = load_networks(chain(*(run.method.networks for run in runs.values())), clip.device)
    return {row: Job.of(run, *text_of(run, clip, data), networks) for row, run in runs.items()}


def truth_map(loaded: Loaded, run: Run) -> Labels:
    """The ground truth (H, W) of a run, −1 where nothing is scored."""
    size = loaded.shown.out_size
    return labels_of(loaded.truths[target_key(run)], size).astype(np.int64).reshape(size)


def predicted(clip: Clip, loader: Loader, jobs: Jobs, loaded: Loaded, run: Run) -> Picture:
    """An image with the maps of all the runs, and the ground truth of one."""
    with torch.inference_mode():
        maps = loader.protocol.maps(clip, [loaded.shown], jobs, 1, Stages())
    labels = {row: each.classes[0].astype(np.int64) for row, each in maps.items()}
    return Picture(loaded.shown.pixels, truth_map(loaded, run), labels)
