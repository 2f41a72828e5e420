"""What an image costs: CLIPtrase against the bare encoder and against the released procedure."""

from __future__ import annotations

import dataclasses
import functools
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import timing
from benchmarks.released import segment
from benchmarks.scenery import CLASSES, Eps, Models, Patchworks, cliptrase_method, job, patchwork
from benchmarks.timing import Calls, Spread, Way, ratios, spread, taking_turns
from cliptrase.config.method import Method
from cliptrase.data.read.crop import crop_image, crop_label
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.provenance import Stages
from cliptrase.segment.logits import contenders

STAGES = {  # the package's names: what they are called in cost.json
    "encode": "features",
    "correlation": "correlation",
    "cluster": "clustering",
    "regions": "regions",
    "classify": "logits and upsampling",
    "vote": "vote",
    "count": "confusion",
}
MIDDLE = CLASSES[1]


@dataclass(frozen=True)
class Setting:
    """One image size on one device, and how much of it is measured."""

    models: Models
    size: int
    method: Method  # with eps for random weights
    pictures: int
    rounds: int
    threads: int

    @classmethod
    def of(cls, models: Models, eps: Eps, pictures: int, rounds: int, threads: int) -> Setting:
        method = eps.fitted(cliptrase_method(eps.size))
        return cls(models, eps.size, method, pictures, rounds, threads)

    @property
    def drawn(self) -> list[np.ndarray]:
        return [patchwork(index, self.size)[0] for index in range(self.pictures)]

    @property
    def package_way(self) -> Way:
        return timing.ways(self.models.clip.device, self.threads)[0]

    def loaded(self, classes: int) -> Patchworks:
        return Patchworks.draw(self.size, range(self.pictures), {str(classes): classes})

    def job(self, classes: int) -> Job:
        return job(self.method, self.models.clip, classes)

    def encoder(self, way: Way) -> Callable[[], float]:
        """Seconds of the bare encoder on all pictures."""
        clip, encoder = self.models.clip, self.models.encoders[self.size]
        return functools.partial(timing.encoding, clip, encoder, self.drawn, way)

    def cliptrase(self, classes: int, way: Way, calls: Calls | None = None) -> Callable[[], float]:
        """Seconds of CLIPtrase, complete, on all pictures."""
        clip, pictures = self.models.clip, self.loaded(classes)
        return functools.partial(
            timing.passing, clip, pictures, {"": self.job(classes)}, way, calls
        )


def encoder_and_cliptrase(setting: Setting) -> dict[str, Any]:
    """Milliseconds an image, and CLIPtrase's as a multiple of the encoder's, by classes.

    Both begin with uint8 crops. The encoder is given the way that suits it best on this machine
    (and, under ratio_same_batch, the batches that CLIPtrase has). Both use all threads.
    """
    device, each = setting.models.clip.device, 1000 / setting.pictures
    encoders = {str(way): setting.encoder(way) for way in timing.ways(device, setting.threads)}
    way = setting.package_way
    calls: dict[int, Calls] = {classes: [] for classes in CLASSES}
    package = {str(k): setting.cliptrase(k, way, calls[k]) for k in CLASSES}
    seconds = taking_turns(encoders | package, setting.rounds)
    by_way = {name: spread(seconds[name], each) for name in encoders}
    best = min(encoders, key=lambda name: spread(seconds[name], digits=9)["median"])
    figures: dict[str, Any] = {
        "encoder_ms": {**by_way[best], "way": best, "ways": by_way},
        "cliptrase_ms": {},
        "ratio": {},
        "ratio_range": {},
        "ratio_same_batch": {},
    }
    for classes, name in zip(CLASSES, package, strict=True):
        if device.type == "cpu":
            parts = timing.stage_medians(calls[classes], each / setting.threads)
        else:
            parts = timing.stage_medians([_stages_of_a_batch(setting, classes)], each)
        split = {stage: parts.get(key, 0.0) for key, stage in STAGES.items()}
        figures["cliptrase_ms"][name] = {**split, "total": spread(seconds[name], each)}
        by_round = spread(ratios(seconds[name], seconds[best]), digits=4)
        figures["ratio"][name] = by_round["median"]
        figures["ratio_range"][name] = [by_round["min"], by_round["max"]]
        alike = spread(ratios(seconds[name], seconds[str(way)]), digits=4)
        figures["ratio_same_batch"][name] = alike["median"]
    return figures


@torch.inference_mode()
def workload(setting: Setting) -> dict[str, Any]:
    """How much there is to do: clusters of each picture, and classes left after dropping those that
    cannot win anywhere."""
    clusters: list[int] = []
    left: dict[str, list[int]] = {str(k): [] for k in CLASSES}
    clip, regions = setting.models.clip, setting.method.regions
    for picture in setting.drawn:
        graph = Graph(clip, clip.normalise(picture[None]))
        clusters.append(int(graph.clusters(setting.method).max()) + 1)
        for k in CLASSES:
            asked = setting.job(k)
            logits = graph.logits(asked.method, asked.text, asked.text_key, asked.logit_scale)
            left[str(k)].append(len(contenders(logits)))
    return {
        "eps": round(regions.eps, 4),
        "min_samples": regions.min_samples,
        "clusters": clusters,
        "classes_not_dropped": left,
    }


def stage_seconds(graph: Graph, asked: Job) -> dict[str, float]:
    """Seconds of each stage of a job, computed one after the other and waited for on a GPU."""
    method, text = asked.method, (asked.text, asked.text_key, asked.logit_scale)
    plain = method.model_copy(update={"regions": None})
    stages: dict[str, Callable[[], Any]] = {
        "encode": lambda: graph.patches(method),
        "correlation": lambda: graph.patch_rows(method.regions),
        "cluster": lambda: graph.clusters(method),
        "regions": lambda: graph.regions(method),
        "classify": lambda: graph.prediction(plain, *text),
        "vote": lambda: graph.prediction(method, *text),
    }
    seconds = {}
    for stage, compute in stages.items():
        start = time.perf_counter()
        compute()
        timing.wait(graph.clip.device)
        seconds[stage] = time.perf_counter() - start
    return seconds


def _stages_of_a_batch(setting: Setting, classes: int) -> dict[str, float]:
    """Seconds of each stage but counting on a GPU, on all pictures as one batch."""
    clip = setting.models.clip
    with torch.inference_mode():
        graph = Graph(clip, clip.normalise(np.stack(setting.drawn)))
        return stage_seconds(graph, setting.job(classes))


def against_released(setting: Setting, pictures: int, rounds: int) -> dict[str, Any]:
    """The released procedure beside CLIPtrase on the same pictures and classes, and how many of
    their pixels differ. It runs one picture at a time on all threads."""
    few, asked = dataclasses.replace(setting, pictures=pictures), setting.job(MIDDLE)
    clip, regions = setting.models.clip, setting.method.regions
    inputs = [clip.normalise(picture[None]) for picture in few.drawn]
    maps: list[np.ndarray] = []
    calls: Calls = []

    def released() -> float:
        stages, features = Stages(), asked.text.features
        dbscan = regions.eps, regions.min_samples
        with timing.torch_threads(setting.threads):
            start = time.perf_counter()
            maps[:] = [
                segment(clip.model, pixels, features, *dbscan, MIDDLE, stages) for pixels in inputs
            ]
            calls.append(dict(stages.seconds))
            return time.perf_counter() - start

    turns = {"released": released, "cliptrase": few.cliptrase(MIDDLE, few.package_way)}
    seconds = taking_turns(turns, rounds)
    with torch.inference_mode():
        package = [asked.predict(Graph(clip, pixels))[0].numpy() for pixels in inputs]
    each = 1000 / pictures
    return {
        "classes": MIDDLE,
        "released_ms": {
            **timing.stage_medians(calls, each),
            "total": spread(seconds["released"], each),
        },
        "cliptrase_ms": spread(seconds["cliptrase"], each),
        "speedup": spread(ratios(seconds["released"], seconds["cliptrase"])),
        "pixels_that_differ": int(np.sum(np.stack(maps) != np.stack(package))),
        "pixels": sum(labels.size for labels in package),
    }


def throughput(setting: Setting, threads: Sequence[int], batches: Sequence[int]) -> dict[str, Any]:
    """Images a second of the encoder and of CLIPtrase, by threads and by batch size."""
    cpu = setting.models.clip.device.type == "cpu"
    by_name = {f"{count} threads, one image each": Way(count) for count in threads if cpu}
    by_name |= {f"batches of {size}": Way(setting.threads, size) for size in batches}
    turns: dict[str, Callable[[], float]] = {}
    for name, way in by_name.items():
        turns[f"encoder|{name}"] = setting.encoder(way)
        turns[f"cliptrase|{name}"] = setting.cliptrase(MIDDLE, way)
    rates: dict[str, Any] = {"classes": MIDDLE, "encoder": {}, "cliptrase": {}}
    for name, seconds in taking_turns(turns, setting.rounds).items():
        contender, _, way_name = name.partition("|")
        rates[contender][way_name] = spread(setting.pictures / s for s in seconds)
    return rates


def loading(size: int, rounds: int) -> Spread:
    """Milliseconds in which one thread decodes and crops a JPEG of 500 × 375 and its label map."""
    rgb, texture = patchwork(0, 500)
    file, label = io.BytesIO(), texture[:375].astype(np.int32)
    Image.fromarray(rgb[:375]).save(file, "jpeg", quality=90)

    def load() -> float:
        start = time.perf_counter()
        crop_image(Image.open(io.BytesIO(file.getvalue())).convert("RGB"), size)
        GroundTruth.of(crop_label(label, size), 1000)
        return time.perf_counter() - start

    return spread(taking_turns({"": load}, 3 * rounds)[""], 1000)
