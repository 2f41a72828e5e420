"""What bf16 and fp16 save on this CPU, and how many pixels they move: tables of docs/precision.md.

`python -m benchmarks.precision [--limit N]` prints them as Markdown. Times are what one thread of
the processor worked, waiting left out, on ViT-B/16 with random weights; the precisions take turns.
Pixels are those of the embedded model on the prepared scenes (`cliptrase prepare shapes`, and
`shapes_clean`). `--quick`: with a tiny model and hardly any repeats; its times mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.per_image import MIDDLE, Setting
from benchmarks.protocols import show
from benchmarks.scenery import SIZES, Eps, Models, models
from benchmarks.timing import Way, taking_turns, threads_of_torch
from cliptrase import config
from cliptrase.data import open_dataset
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.threads import cores, in_order, single_threaded_pool
from cliptrase.evaluate.truth import Loader
from cliptrase.model import vision
from cliptrase.model.load import Clip, load_clip
from cliptrase.model.precision import DTYPES, lower
from cliptrase.runs.provenance import Stages

METHODS = ("clip", "sclip", "cliptrase")
BENCHMARKS = (("shapes_bg", "shapes", "shapes_fine"), ("shapes_clean",))  # by their dataset
LOW = tuple(name for name in DTYPES if name != "fp32")


def lowered(clip: Clip, precision: str) -> Clip:
    """The same weights in another precision of the image tower."""
    others = [one for name, one in clip.model.named_children() if name != "visual"]
    module = copy.deepcopy(clip.model, {id(one): one for one in others})  # one text tower for all
    lower(module.visual, precision)
    return dataclasses.replace(clip, model=module, precision=precision)


def encode(clip: Clip, pictures: Sequence[np.ndarray]) -> None:
    """The bare image tower, one picture at a time, in a thread of a pass."""

    @torch.inference_mode()
    def one(picture: np.ndarray) -> None:
        tokens = vision.embed_tokens(clip, clip.normalise(picture[None]))
        for index in range(clip.depth):
            tokens = vision.block(clip, index, tokens)
        vision.project(clip, tokens)

    with single_threaded_pool(1) as pool:
        list(pool.map(one, pictures))


def worked(compute: Callable[[], Any]) -> float:
    """Seconds that the processor worked for `compute`, on one thread."""
    with threads_of_torch(1):
        start = time.process_time()
        compute()
        return time.process_time() - start


def times(
    tiny: bool, pictures: int, rounds: int
) -> Iterator[tuple[str, int, dict[str, list[float]]]]:
    """(what is computed, size, milliseconds an image of each round by precision)."""
    plain = models(tiny).clip
    clips = {precision: lowered(plain, precision) for precision in DTYPES}
    for size in SIZES:
        eps = Eps.of(plain, size, 2)
        turns: dict[str, Callable[[], float]] = {}
        for precision, clip in clips.items():
            setting = Setting.of(Models(clip, {}), eps, pictures, rounds, 1)
            each = {
                "encoder": functools.partial(encode, clip, setting.drawn),
                "CLIPtrase": setting.cliptrase(MIDDLE, Way(1)),
            }
            for what, compute in each.items():
                turns[f"{what}|{precision}"] = functools.partial(worked, compute)
        seconds = taking_turns(turns, rounds)
        for what in ("encoder", "CLIPtrase"):
            own = {each: [1000 * s / pictures for s in seconds[f"{what}|{each}"]] for each in clips}
            yield what, size, own


def moved(data: Path, limit: int | None) -> Iterator[tuple[str, str, int, dict[str, float]]]:
    """(benchmark, method, size, share of pixels that have another class than in fp32)."""
    few = [] if limit is None else [f"limit={limit}"]
    clips: dict[str, Clip] = {}
    for benchmarks in BENCHMARKS:
        for size in SIZES:
            runs: dict[str, dict[str, Any]] = {
                f"{benchmark}|{method}": config.resolve(
                    [f"benchmark={benchmark}", f"method={method}", f"image_size={size}", *few]
                )
                for benchmark in benchmarks
                for method in METHODS
            }
            first = next(iter(runs.values()))
            for precision in DTYPES:
                if precision not in clips:
                    clips[precision] = load_clip(first["model"] | {"precision": precision})
            jobs = {
                name: Job.of(run, *text_of(run, clips["fp32"], data)) for name, run in runs.items()
            }
            images = open_dataset({**first, "data": str(data)}, any_code=True)
            look = functools.partial(_differ, clips, Loader.of(images, runs.values(), data), jobs)
            with single_threaded_pool(cores()) as pool:
                shares = list(in_order(pool, look, range(len(images)), 2 * cores()))
            for name in runs:
                benchmark, _, method = name.partition("|")
                mean = {low: float(np.mean([one[low, name] for one in shares])) for low in LOW}
                yield benchmark, method, size, mean


@torch.inference_mode()
def _differ(
    clips: dict[str, Clip], loader: Loader, jobs: dict[str, Job], position: int
) -> dict[tuple[str, str], float]:
    """Share of pixels of one image that have another class, by precision and job."""
    shown = [loader(position).shown]
    maps = {
        precision: loader.protocol.maps(clip, shown, jobs, 1, Stages())
        for precision, clip in clips.items()
    }
    return {
        (low, name): float((maps[low][name] != maps["fp32"][name]).mean())
        for low in LOW
        for name in jobs
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model, hardly any repeats")
    parser.add_argument("--limit", type=int, help="the first N scenes of a dataset (all)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="data")
    options = parser.parse_args(arguments)
    pictures, rounds = (1, 1) if options.quick else (4, 9)
    print("Processor milliseconds an image, median [least, most], one thread\n")
    rows = [
        [what, str(size), *map(_spread, by_precision.values()), *_gains(by_precision)]
        for what, size, by_precision in times(options.quick, pictures, rounds)
    ]
    show(["what", "px", *DTYPES, *(f"{low} is faster by" for low in LOW)], rows)
    print("\nPixels that have another class than in fp32\n")
    rows = [
        [benchmark, method, str(size), *(f"{100 * shares[low]:.3f} %" for low in LOW)]
        for benchmark, method, size, shares in moved(options.data, options.limit)
    ]
    show(["benchmark", "method", "px", *LOW], rows)


def _spread(milliseconds: Sequence[float]) -> str:
    least, most = min(milliseconds), max(milliseconds)
    return f"{statistics.median(milliseconds):.1f} [{least:.1f}, {most:.1f}]"


def _gains(by_precision: dict[str, list[float]]) -> list[str]:
    """`× 2.10`: median over the rounds of how many times as long fp32 takes."""
    plain = by_precision["fp32"]
    ratios = ([a / b for a, b in zip(plain, by_precision[low], strict=True)] for low in LOW)
    return [f"× {statistics.median(each):.2f}" for each in ratios]


if __name__ == "__main__":
    main()
