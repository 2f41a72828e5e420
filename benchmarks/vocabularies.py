"""What 50 vocabularies cost in one pass, against one: `python -m benchmarks.vocabularies [SIZE]`.

ViT-B/16 with random weights on patchworks; CPU seconds of one thread, medians of rounds in which
both take turns. Words are random directions, which drop fewer names than real ones. Text features
are encoded once a name, whatever the number of images, and are left out.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import numpy as np
import torch

from benchmarks.scenery import Eps, Models, Patchworks, models, words
from cliptrase import config
from cliptrase.config.method import Method
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.model.load import Clip
from cliptrase.runs.provenance import Stages

VOCABULARIES = 50
POOL = 1000  # names that lists and distractors are drawn from
KINDS = {  # names that all vocabularies share, others of a class each, distractors
    "lists of 20 names": (0, 20, 0),
    "53 names (VOC21's and its background's) and 50 distractors": (53, 0, 50),
}
METHODS = ("clip", "cliptrase")


def main(size: int = 224, pictures: int = 3, rounds: int = 5, loaded: Models | None = None) -> None:
    """Print a line for each method and kind of vocabularies."""
    torch.set_num_threads(1)
    loaded = loaded or models(False, sizes=(size,))
    eps = Eps(loaded.clip, size, pictures)
    for name in METHODS:
        shown = ["benchmark=ade150", "model=vit_b16", f"image_size={size}", f"method={name}"]
        method = eps.fitted(config.resolve(shown).method)
        for kind, counts in KINDS.items():
            jobs = drawn(method, loaded.clip, *counts)
            classes = counts[0] + counts[1]
            pass_of = Patchworks.draw(size, range(pictures), {str(classes): classes})
            taken = [
                [seconds(loaded.clip, pass_of, some) for some in (dict([*jobs.items()][:1]), jobs)]
                for _ in range(rounds + 1)
            ]
            ratios = sorted(many / one for one, many in taken[1:])
            one, many = (1000 * median(both) / pictures for both in zip(*taken[1:], strict=True))
            print(
                f"{name}, {size} px, {kind}: {one:.0f} ms an image with one, {many:.0f} with "
                f"{VOCABULARIES}: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


def drawn(method: Method, clip: Clip, shared: int, own: int, distractors: int) -> dict[str, Job]:
    """A job for each of VOCABULARIES."""
    features, random = words(shared + POOL, clip.embed_dim, "cpu"), np.random.default_rng(0)
    classes = shared + own
    owner = torch.tensor([*range(classes), *[classes] * distractors])
    jobs = {}
    for number in range(VOCABULARIES):
        others = shared + random.choice(POOL, own + distractors, replace=False)
        text = Text(features[[*range(shared), *others]], owner)
        key = f"vocabulary {number}"
        jobs[key] = Job(method, 100.0, str(classes), key, text, surplus=int(distractors > 0))
    return jobs


def seconds(clip: Clip, pictures: Patchworks, jobs: dict[str, Job]) -> float:
    """CPU seconds in which the jobs are answered on all pictures, and counted."""
    predictor = Predictor(clip, pictures, jobs, Stages(), 1)
    with single_threaded_pool(1) as pool:
        start = time.process_time()
        for _ in predictor.singly(pool, range(len(pictures.loaded)), ahead=1):
            pass
        return time.process_time() - start


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
