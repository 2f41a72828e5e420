"""What each method costs beside CLIP, and all peers without a network of their own: peers.json."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.per_image import MIDDLE
from benchmarks.scenery import SIZES, Eps, Models, Patchworks, job, models
from benchmarks.timing import Spread, encoding, passing, ratios, spread, taking_turns, ways
from cliptrase import config
from cliptrase.config.files import names
from cliptrase.config.method import Method
from cliptrase.evaluate.jobs import Job
from cliptrase.model.backbones import Key, Network
from cliptrase.pipeline.probe import random_network

PLAIN, TOGETHER = "clip", "clip and peers"
NAMES = (21, MIDDLE)  # of VOC21, on which peers are compared most, and as many as elsewhere here


def measure(threads: int, quick: bool) -> dict[str, Any]:
    """Seconds of a pass with each method, by those of a pass with `clip` alone, at SIZES[0].

    Methods with networks beside CLIP, of random weights as CLIP, see one picture once: their
    networks take most of the time. `cliptrase_unsupervised` is left out, as it costs what
    `cliptrase` does. `together`: by the number of names, the encodes of one image that a pass with
    all peers without such networks takes more than one with `clip` alone.
    """
    size, pictures, rounds, pool = SIZES[0], *((1, 1, 2) if quick else (8, 5, 8))
    loaded = models(quick, sizes=(size,))
    methods = written(size, "shapes_clip" if quick else "vit_b16")
    eps = Eps(loaded.clip, size, pool)
    alone = {name: eps.fitted(each) for name, each in methods.items() if not each.networks}
    beside = {name: each for name, each in methods.items() if each.networks}
    jobs = {name: {name: job(each, loaded.clip, MIDDLE)} for name, each in alone.items()}
    figures = {"pictures": pictures, "rounds": rounds, "classes": MIDDLE, "size": size}
    figures |= {"needs": {name: needs(each) for name, each in methods.items()}}
    figures["ratio"] = compared(loaded, jobs, size, threads, pictures, rounds)
    peers = {name: each for name, each in alone.items() if not name.startswith("cliptrase")}
    figures["peers"] = [name for name in peers if name != PLAIN]
    figures["together"] = {
        str(names): encodes_more(loaded, peers, names, threads, pictures, rounds) for names in NAMES
    }
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
        if name not in ("outside", "predictions")
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


def encodes_more(
    loaded: Models, methods: dict[str, Method], names: int, threads: int, pictures: int, rounds: int
) -> Spread:
    """What a pass with all `methods` takes more than one with `clip` alone, in encodes: round by
    round, encodes by open_clip's `encode_image`, one image a thread as in the pass."""
    drawn = Patchworks.draw(SIZES[0], range(pictures), {str(names): names})
    shown = [each.shown.pixels for each in drawn.loaded]
    jobs = {name: job(method, loaded.clip, names) for name, method in methods.items()}
    way = ways(loaded.clip.device, threads)[0]
    turns = {
        "encode": partial(encoding, loaded.clip, loaded.encoders[SIZES[0]], shown, way),
        PLAIN: partial(passing, loaded.clip, drawn, {PLAIN: jobs[PLAIN]}, way),
        TOGETHER: partial(passing, loaded.clip, drawn, jobs, way),
    }
    seconds = taking_turns(turns, rounds, warm_up=rounds > 1)
    more = [both - plain for both, plain in zip(seconds[TOGETHER], seconds[PLAIN], strict=True)]
    return spread(ratios(more, seconds["encode"]))


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
