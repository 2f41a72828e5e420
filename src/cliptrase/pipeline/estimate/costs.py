"""Seconds and memory of the steps of a start, from what they compute and this machine's speed.

The figures below were measured on one machine (2 cores of an x86-64 server with AVX-512, all of
them busy; no GPU) with the passes of suites shapes, miniature and paper; here they count as much
as this machine is slower (`Speed.slower`). Blocks of the encoder are timed where it runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from cliptrase.data.read.vocabularies import read_classes
from cliptrase.pipeline.estimate import work
from cliptrase.pipeline.estimate.model import Parts, Shape
from cliptrase.pipeline.estimate.speed import Block, Speed

Run = Any

# An image of a pass, or one of its windows: seconds of each of work.Counts
PAIR = 1.0e-9
FILTERED = 0.7e-9
REGION = 3.0e-9
NAMED = 2.2e-9
VOTED = 8.0e-9
AVERAGED = 1.7e-9  # a name at a pixel of a window, of the picture, of the label map
# An image of a pass, besides
READ = 20e-9  # a pixel of picture and label
TRUTH, SCORED, CELL = 0.5e-3, 0.15e-3, 1.3e-9  # a ground truth, a run, a cell of its matrix
ANSWERED = 0.1e-3  # a run, whatever is shared
# A pass
LOOKED = 1.0  # a pass that finds all its runs there
OPEN, OPEN_PARAMETER = 0.5, 4e-9  # beside the start that the probe times
COUNTING, COUNTED = 1.15, 0.02  # operations: how much slower than computing, a run's own
PROMPT, PROMPT_TOKENS = 60e-6, 13  # a prompt to tokens, and how many
WRITTEN, RESAMPLED, PACKED = 0.08, 0.5e-7, 10e-9  # a run; an image and class; a byte of counts
# What comes before and after the passes
SNAKEMAKE, JOB = 2.0, 0.3  # its start, and each job that it looks after
FETCH, FETCHED = 0.6, 2e-9  # an archive, and a byte of it; the network not counted
PREPARE, DRAWN = 3.0, 20e-3  # a dataset, and an image that is drawn
PREPARED = {  # an image of an archive: docs/performance.md
    "coco": 6.5e-3,
    "voc2012": 3.5e-3,
    "pcontext": 11.9e-3,
    "ade2016": 7.1e-3,
    "ade2021": 78.2e-3,
    "cityscapes": 68.3e-3,
}
TABLES, FIGURES, PUBLISH = 2.0, 9.0, 6.0
TABLED, DRAWN_RUN, PUBLISHED = 0.015, 0.03, 0.19  # a run of them
UNPUBLISHED = 0.5  # W&B that is disabled
# Memory
CODE, PARAMETER, THREAD = 0.75e9, 8.0, 0.15e9  # a pass, a parameter, a thread
SHOWN = 30  # classes of an image that counts are kept of

PICTURES = {  # width and height of the datasets' pictures, as most are
    "coco": (640, 480),
    "voc2012": (500, 375),
    "pcontext": (500, 375),
    "ade2016": (683, 512),
    "ade2021": (683, 512),
    "cityscapes": (2048, 1024),
    "shapes": (224, 224),
    "shapes_clean": (224, 224),
}
OTHER = (640, 480)


def needed_blocks(run: Run) -> list[Block]:
    """What the probe times for the passes of a run's model, size and templates."""
    return sorted({image_block(run), image_block(run, "fp32"), text_block(run)})


def image_block(run: Run, precision: str | None = None) -> Block:
    """A block of the image tower, in the run's own precision unless another is given."""
    shape = Shape.of(run["model"])
    own = str(run["model"].get("precision", "fp32"))
    return shape.width, shape.patches(run["image_size"]) + 1, 1, precision or own


def text_block(run: Run) -> Block:
    """A block of the text tower, on the prompts of one name."""
    templates = int(run["vocabulary"]["templates"]["count"])
    return Shape.of(run["model"]).text_width, PROMPT_TOKENS, templates, "fp32"


def bare_encode(run: Run, speed: Speed) -> float:
    """Seconds of the unmodified encoder in fp32 on one image of a run's size."""
    shape = Shape.of(run["model"])
    parts = Parts(shape, shape.patches(run["image_size"]))
    encoded = shape.depth + parts.embedding + parts.projection
    return encoded * speed.block(image_block(run, "fp32"))


def image_seconds(runs: Iterable[Run], dataset: str, speed: Speed) -> tuple[float, float]:
    """Of one image of a pass: what the device computes of it, and what a CPU core does besides."""
    runs = list(runs)
    width, height = _picture(dataset)
    scored = width * height if work.slides(runs[0]) else runs[0]["image_size"] ** 2
    larger = scored / 224**2
    targets = len({run["benchmark"]["name"] for run in runs})
    cells = sum(_scored_classes(run) ** 2 for run in runs)
    read = READ * width * height + TRUTH * targets * larger
    counted = (ANSWERED + SCORED * larger) * len(runs) + CELL * cells
    return _predicted(runs, dataset, speed), speed.slower * (read + counted)


def _predicted(runs: list[Run], dataset: str, speed: Speed) -> float:
    """Seconds of the label maps of one image."""
    counts, size = _counts(runs, speed), runs[0]["image_size"]
    elements = (
        PAIR * counts.pairs
        + FILTERED * counts.filtered
        + REGION * counts.regions
        + NAMED * counts.named
        + VOTED * counts.voted
    )
    each = _products(counts, runs[0], speed) + elements * speed.device_slower
    if not work.slides(runs[0]):
        return each
    seen, picture = _seen(runs[0], dataset), _picture(dataset)
    count = windows(runs[0], dataset)
    pixels = count * size**2 + math.prod(seen) + math.prod(picture)
    return each * count + AVERAGED * work.averaged(runs, names) * pixels * speed.device_slower


def _counts(runs: list[Run], speed: Speed) -> work.Counts:
    tiled = speed.device == "cpu"
    return work.counts(runs, Shape.of(runs[0]["model"]), names, tiled=tiled)


def _products(counts: work.Counts, run: Run, speed: Speed) -> float:
    """Seconds of matrix products."""
    encoded = counts.encoded * speed.block(image_block(run))
    return encoded + counts.blocks * speed.block(image_block(run, "fp32"))


def counting_seconds(runs: Iterable[Run], dataset: str, speed: Speed) -> float:
    """Of a pass's floating-point operations: every distinct run by itself, on one image."""
    different = {work.cost_key(run): run for run in runs}.values()
    total = 0.0
    for run in different:
        products = _products(_counts([run], speed), run, speed)
        each = COUNTING * products + COUNTED * speed.slower
        total += each * windows(run, dataset)
    return total


def text_seconds(run: Run, speed: Speed) -> float:
    """Of the text features of a run's words."""
    shape, templates = Shape.of(run["model"]), run["vocabulary"]["templates"]["count"]
    prompts = PROMPT * templates * speed.slower
    return names(run) * (shape.text_depth * speed.block(text_block(run)) + prompts)


def writing_seconds(runs: Iterable[Run], images: int, speed: Speed) -> float:
    """Of the run folders, with the intervals of their scores."""
    classes = [_scored_classes(run) for run in runs]
    cells = images * sum(classes)
    packed = 12 * cells + 8 * sum(count**2 for count in classes)
    return speed.slower * (WRITTEN * len(classes) + RESAMPLED * cells + PACKED * packed)


def opening_seconds(run: Run, speed: Speed) -> float:
    """Of a pass, until its model is loaded and its dataset open."""
    parameters = Shape.of(run["model"]).parameters()
    return speed.start + speed.slower * (OPEN + OPEN_PARAMETER * parameters)


def starting_seconds(jobs: int, speed: Speed) -> float:
    """Of Snakemake itself."""
    return speed.slower * (SNAKEMAKE + JOB * jobs)


def preparing_seconds(dataset: str, images: int, speed: Speed) -> tuple[float, float]:
    """Of making a dataset ready: what one thread does, and what several share."""
    drawn = dataset not in PREPARED
    each = DRAWN if drawn else PREPARED[dataset]
    alone, shared = PREPARE, images * each
    return speed.slower * (alone + drawn * shared), speed.slower * (not drawn) * shared


def fetching_seconds(size: int, speed: Speed) -> float:
    """Of an archive's bytes, once they are here: written, and read for their checksum."""
    return speed.slower * (FETCH + FETCHED * size)


def publishing_seconds(step: str, runs: int, speed: Speed) -> float:
    """Of `tables`, `figures`, or W&B that is online, offline or disabled, for so many runs."""
    once, each = {
        "tables": (TABLES, TABLED),
        "figures": (FIGURES, DRAWN_RUN),
        "disabled": (UNPUBLISHED, 0.0),
    }.get(step, (PUBLISH, PUBLISHED))
    return speed.slower * (once + each * runs)


def peak_memory(runs: Iterable[Run], images: int, threads: int) -> float:
    """Bytes that a pass holds at its peak, without what it has on a GPU."""
    runs = list(runs)
    size = runs[0]["image_size"]
    counts = 16.0 * images * sum(min(SHOWN, _scored_classes(run)) for run in runs)
    thread = THREAD * (size / 224) ** 2
    return CODE + PARAMETER * Shape.of(runs[0]["model"]).parameters() + threads * thread + counts


def windows(run: Run, dataset: str) -> int:
    """Of a picture, as most of the dataset are: those that slide over it, else 1."""
    if not work.slides(run):
        return 1
    size, stride = run["image_size"], run["protocol"]["stride"]
    return math.prod(max(0, math.ceil((side - size) / stride)) + 1 for side in _seen(run, dataset))


def _seen(run: Run, dataset: str) -> tuple[int, int]:
    """A picture as a sliding window's model sees it."""
    short = run["protocol"]["short_side"]
    width, height = _picture(dataset)
    return round(width * short / min(width, height)), round(height * short / min(width, height))


def _picture(dataset: str) -> tuple[int, int]:
    return PICTURES.get(dataset, OTHER)


def names(run: Run) -> int:
    """How many names the words of a run are, synonyms and background words counted."""
    return sum(
        _names_in(Path(entry["path"]))
        for part in ("classes", "background")
        if (entry := run["vocabulary"][part])
    )


@cache
def _names_in(file: Path) -> int:
    return sum(map(len, read_classes(file)))


def _scored_classes(run: Run) -> int:
    background = run["vocabulary"]["background"] is not None
    return int(run["vocabulary"]["classes"]["count"]) + background
