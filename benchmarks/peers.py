"""What each method costs beside CLIP, and all that need CLIP alone in one pass: peers.json."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.per_image import MIDDLE
from benchmarks.scenery import SIZES, Eps, Models, Patchworks, job, models
from benchmarks.timing import passing, ratios, spread, taking_turns, ways
from cliptrase import config
from cliptrase.config.files import names
from cliptrase.config.method import Method
from cliptrase.evaluate.jobs import Job
from cliptrase.model.backbones import Key, Network
from cliptrase.pipeline.probe import random_network

PLAIN, TOGETHER = "clip", "all that need CLIP alone"


def measure(threads: int, quick: bool) -> dict[str, Any]:
    """Seconds of a pass with each method, by those of a pass with `clip` alone, at SIZES[0].

    Methods with networks beside CLIP, of random weights as CLIP, see one picture once: their
    networks take most of the time. `cliptrase_unsupervised` is left out, as it costs what
    `cliptrase` does.
    """
    size, pictures, rounds, pool = SIZES[0], *((1, 1, 2) if quick else (8, 5, 8))
    loaded = models(quick, sizes=(size,))
    methods = written(size, "shapes_clip" if quick else "vit_b16")
    eps = Eps(loaded.clip, size, pool)
    alone = {name: eps.fitted(each) for name, each in methods.items() if not each.networks}
    beside = {name: each for name, each in methods.items() if each.networks}
    jobs = {name: {name: job(each, loaded.clip, MIDDLE)} for name, each in alone.items()}
    jobs[TOGETHER] = {name: one for each in jobs.values() for name, one in each.items()}
    figures = {"pictures": pictures, "rounds": rounds, "classes": MIDDLE, "size": size}
    figures |= {"needs": {name: needs(each) for name, each in methods.items()}}
    figures["ratio"] = compared(loaded, jobs, size, threads, pictures, rounds)
    networks: dict[Key, Network] = {}
    for name, each in beside.items():
        for network in each.networks:
            if network.key not in networks:
                networks[network.key] = random_network(network, loaded.clip.device)
        jobs_of = {PLAIN: jobs[PLAIN], name: {name: with_networks(each, loaded, networks)}}
        figures["ratio"][name] = compared(loaded, jobs_of, size, threads, 1, 1)[name]
    return figures


def written(size: int, model: str) -> dict[str, Method]:
    """The methods of conf/method that words decide, by name, as they are beside a model."""
    shared = ["benchmark=ade150", f"model={model}", f"image_size={size}"]
    methods = {
        name: config.resolve([*shared, f"method={name}"]).method
        for name in names("method")
        if name != "outside"
    }
    return {name: each for name, each in methods.items() if each.unsupervised is None}


def needs(method: Method) -> list[str]:
    """The labels of the networks that a method needs beside CLIP."""
    return [network.label for network in method.networks]


def with_networks(method: Method, loaded: Models, networks: dict[Key, Network]) -> Job:
    """A job of a method that needs networks beside CLIP."""
    asked = job(method, loaded.clip, MIDDLE)
    return Job(
        method, asked.logit_scale, asked.target, asked.text_key, asked.text, networks=networks
    )


def compared(
    loaded: Models,
    jobs: dict[str, dict[str, Job]],
    size: int,
    threads: int,
    pictures: int,
    rounds: int,
) -> dict[str, dict[str, float]]:
    """A pass with each of `jobs` by the pass with `clip`, round by round."""
    drawn = Patchworks.draw(size, range(pictures), {str(MIDDLE): MIDDLE})
    way = ways(loaded.clip.device, threads)[0]
    turns = {name: partial(passing, loaded.clip, drawn, each, way) for name, each in jobs.items()}
    seconds = taking_turns(turns, rounds, warm_up=rounds > 1)
    return {name: spread(ratios(taken, seconds[PLAIN])) for name, taken in seconds.items()}
