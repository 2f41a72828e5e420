"""How much of what a GPU predicts a CPU predicts otherwise: counted at the start of every pass.

Products are added up in another order there, so that a pixel between two classes may fall to the
other one. A few images say whether it is a few pixels.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from cliptrase.config.schema import Model
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.model.backbones import load_networks
from cliptrase.model.load import load_clip
from cliptrase.runs.provenance import Stages

log = logging.getLogger(__name__)

TOLERATED = 1e-5  # of the pixels
FEW = 4  # runs up to which a second image costs little


def needed(device: torch.device) -> bool:
    """Whether what is predicted on `device` may differ from a CPU at all."""
    return device.type != "cpu"


def with_cpu(predictor: Predictor, model: Model, positions: Sequence[int]) -> dict[str, int]:
    """Predict the first of the images at `positions` again on the CPU, as a pass there does (two of
    them where there are few runs), and say how many pixels differ: in the log, as a warning where
    they are more than one in 100,000, and for provenance.json.

    `model` is that of the runs. The others of the images' batch are predicted with them.
    """
    count = 2 if len(predictor.jobs) <= FEW else 1
    images, ours = predictor.first(positions, count)
    compared = {  # regions without names are numbered by their order, which one pixel may shift
        run: job for run, job in predictor.jobs.items() if job.method.unsupervised is None
    }
    clip, jobs = load_clip(model, "cpu"), on_cpu(compared)
    protocol = predictor.load.protocol
    with torch.inference_mode():
        singly = [protocol.maps(clip, [image.shown], jobs, 1, Stages()) for image in images]
    theirs = {run: np.concatenate([maps[run].classes for maps in singly]) for run in singly[0]}
    differing = sum(
        int(np.count_nonzero(ours[run].classes != classes)) for run, classes in theirs.items()
    )
    pixels = sum(classes.size for classes in theirs.values())
    message = "%d of %d pixels differ from the CPU (images: %d, runs: %d)"
    expected = enough(differing, pixels) or clip.precision != "fp32"
    level = logging.INFO if expected else logging.WARNING
    log.log(level, message, differing, pixels, len(images), len(theirs))
    return {"pixels": pixels, "differing": differing, "images": len(images), "runs": len(theirs)}


def enough(differing: int, pixels: int) -> bool:
    """Whether so few pixels are of another class on a CPU that they are rounding."""
    return differing <= TOLERATED * pixels


def on_cpu(jobs: dict[str, Job]) -> dict[str, Job]:
    """The same jobs; those that shared their words or a network still do."""
    needed = {run: job.method.networks for run, job in jobs.items()}
    networks = load_networks(itertools.chain(*needed.values()), "cpu")
    texts = {job.text_key: job.text for job in jobs.values()}
    texts = {
        key: replace(text, features=text.features.cpu(), owner=text.owner.cpu())
        for key, text in texts.items()
    }
    return {
        run: replace(
            job, text=texts[job.text_key], networks={key: networks[key] for key in job.networks}
        )
        for run, job in jobs.items()
    }
