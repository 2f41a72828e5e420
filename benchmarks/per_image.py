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

from benchmarks.released import segment
from benchmarks.scenery import CLASSES, Eps, Held, Models, job, patchwork, resolved
from benchmarks.timing import (
    Way,
    encoding,
    package_way,
    parts_of,
    passing,
    ratios,
    spread,
    taking_turns,
    threads_of_torch,
    wait,
    ways,
)
from cliptrase.data.read.crop import crop_image, crop_label
from cliptrase.evaluate.graph import Graph
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
    """What everything here is measured on: one image size on one device."""

    models: Models
    size: int
    method: dict[str, Any]  # with eps for random weights
    pictures: int
    rounds: int
    threads: int

    @classmethod
    def of(cls, models: Models, eps: Eps, pictures: int, rounds: int, threads: int) -> Setting:
        method = eps.fitted(resolved(eps.size))
        return cls(models, eps.size, method, pictures, rounds, threads)

    @property
    def drawn(self) -> list[np.ndarray]:
        return [patchwork(index, self.size)[0] for index in range(self.pictures)]

    def held(self, classes: Sequence[int]) -> Held:
        return Held.patchworks(self.size, range(self.pictures), {str(k): k for k in classes})

    def encoder(self, way: Way) -> Callable[[], float]:
        """Seconds of the bare encoder on all pictures."""
        clip, encoder = self.models.clip, self.models.encoders[self.size]
        return functools.partial(encoding, clip, encoder, self.drawn, way)

    def cliptrase(
        self, classes: int, way: Way, calls: list[dict[str, float]] | None = None
    ) -> Callable[[], float]:
        """Seconds of CLIPtrase, complete, on all pictures."""
        jobs = {"": job(self.method, self.models.clip, classes)}
        return functools.partial(passing, self.models.clip, self.held([classes]), jobs, way, calls)


def encoder_and_cliptrase(setting: Setting) -> dict[str, Any]:
    """Milliseconds an image, and CLIPtrase's as a multiple of the encoder's, by classes.

    Both begin with uint8 crops. The encoder is given the way that suits it best here (and, under
    ratio_same_batch, the batches that CLIPtrase has); what is compared is what the machine delivers
    with all its threads.
    """
    device, count = setting.models.clip.device, setting.pictures
    way = package_way(device, setting.threads)
    turns: dict[str, Callable[[], float]] = {
        str(one): setting.encoder(one) for one in ways(device, setting.threads)
    }
    encoders = list(turns)
    calls: dict[int, list[dict[str, float]]] = {classes: [] for classes in CLASSES}
    for classes in CLASSES:
        turns[f"{classes}"] = setting.cliptrase(classes, way, calls[classes])
    seconds = taking_turns(turns, setting.rounds)
    best = min(encoders, key=lambda name: spread(seconds[name], 9)["median"])
    found: dict[str, Any] = {
        "encoder_ms": {
            **spread([1000 * s / count for s in seconds[best]]),
            "way": best,
            "ways": {name: spread([1000 * s / count for s in seconds[name]]) for name in encoders},
        },
        "cliptrase_ms": {},
        "ratio": {},
        "ratio_range": {},
        "ratio_same_batch": {},
    }
    for classes in CLASSES:
        took = seconds[str(classes)]
        if device.type == "cpu":
            parts = parts_of(calls[classes], 1000 / (count * setting.threads))
        else:
            parts = parts_of([_waited_for(setting, classes)], 1000 / count)
        split = {name: parts.get(stage, 0.0) for stage, name in STAGES.items()}
        total = spread([1000 * s / count for s in took])
        found["cliptrase_ms"][str(classes)] = {**split, "total": total}
        by_round = spread(ratios(took, seconds[best]), 4)
        found["ratio"][str(classes)] = by_round["median"]
        found["ratio_range"][str(classes)] = [by_round["min"], by_round["max"]]
        alike = spread(ratios(took, seconds[str(way)]), 4)
        found["ratio_same_batch"][str(classes)] = alike["median"]
    return found


@torch.inference_mode()
def workload(setting: Setting, classes: Sequence[int] = CLASSES) -> dict[str, Any]:
    """How much there is to do: clusters of each picture, and classes left after dropping those that
    cannot win anywhere."""
    clusters: list[int] = []
    left: dict[str, list[int]] = {str(k): [] for k in classes}
    clip = setting.models.clip
    for picture in setting.drawn:
        graph = Graph(clip, clip.normalise(picture[None]))
        clusters.append(int(graph.clusters(setting.method).max()) + 1)
        for k in classes:
            own = job(setting.method, clip, k)
            left[str(k)].append(
                len(contenders(graph.logits(own.method, own.text, own.text_key, 100.0)))
            )
    regions = setting.method["regions"]
    return {
        "eps": round(regions["eps"], 4),
        "min_samples": regions["min_samples"],
        "clusters": clusters,
        "classes_not_dropped": left,
    }


class _Waiting(Graph):
    """A graph whose stages end when the GPU has done them."""

    def _once(self, stage: str, key: Any, make: Callable[[], Any]) -> Any:
        def made() -> Any:
            result = make()
            wait(self.clip.device)
            return result

        return super()._once(stage, key, made)


def _waited_for(setting: Setting, classes: int) -> dict[str, float]:
    """Seconds of each stage on a GPU, on all pictures as one batch, computed stage by stage."""
    clip, own = setting.models.clip, job(setting.method, setting.models.clip, classes)
    with torch.inference_mode():
        graph = _Waiting(clip, clip.normalise(np.stack(setting.drawn)))
        predicted = own.predict(graph).to(torch.int16).cpu().numpy()
    start = time.perf_counter()
    for loaded, one in zip(setting.held([classes]).loaded, predicted, strict=True):
        truth = loaded.truths[str(classes)]
        assert truth is not None
        truth.confusion(one)
    return {**graph.seconds, "count": time.perf_counter() - start}


def against_released(setting: Setting, pictures: int, rounds: int) -> dict[str, Any]:
    """The released procedure beside CLIPtrase on the same pictures and classes, and how many of
    their pixels differ. It runs one picture at a time on all threads."""
    few = dataclasses.replace(setting, pictures=pictures)
    clip, own = setting.models.clip, job(setting.method, setting.models.clip, MIDDLE)
    eps, needed = (setting.method["regions"][key] for key in ("eps", "min_samples"))
    inputs = [clip.normalise(one[None]) for one in few.drawn]
    maps: dict[int, np.ndarray] = {}
    calls: list[dict[str, float]] = []

    def slowly() -> float:
        with threads_of_torch(setting.threads):
            start, stages = time.perf_counter(), Stages()
            for index, pixels in enumerate(inputs):
                maps[index] = segment(
                    clip.model, pixels, own.text.features, eps, needed, MIDDLE, stages
                )
            calls.append(dict(stages.seconds))
            return time.perf_counter() - start

    way = package_way(clip.device, setting.threads)
    turns = {"released": slowly, "cliptrase": few.cliptrase(MIDDLE, way)}
    seconds = taking_turns(turns, rounds)
    with torch.inference_mode():
        same = [own.predict(Graph(clip, pixels))[0].numpy() for pixels in inputs]
    return {
        "classes": MIDDLE,
        "released_ms": {
            **parts_of(calls, 1000 / pictures),
            "total": spread([1000 * s / pictures for s in seconds["released"]]),
        },
        "cliptrase_ms": spread([1000 * s / pictures for s in seconds["cliptrase"]]),
        "speedup": spread(ratios(seconds["released"], seconds["cliptrase"])),
        "pixels_that_differ": int(sum((maps[i] != one).sum() for i, one in enumerate(same))),
        "pixels": sum(one.size for one in same),
    }


def throughput(setting: Setting, threads: Sequence[int], batches: Sequence[int]) -> dict[str, Any]:
    """Images a second of the encoder and of CLIPtrase, by threads and by batch size."""
    cpu = setting.models.clip.device.type == "cpu"
    asked = {f"{count} threads, one image each": Way(count) for count in threads if cpu}
    asked |= {f"batches of {size}": Way(setting.threads, size) for size in batches}
    turns: dict[str, Callable[[], float]] = {}
    for name, way in asked.items():
        turns[f"encoder|{name}"] = setting.encoder(way)
        turns[f"cliptrase|{name}"] = setting.cliptrase(MIDDLE, way)
    found: dict[str, Any] = {"classes": MIDDLE, "encoder": {}, "cliptrase": {}}
    for name, seconds in taking_turns(turns, setting.rounds).items():
        who, _, how = name.partition("|")
        found[who][how] = spread(setting.pictures / s for s in seconds)
    return found


def by_clusters(setting: Setting, pieces: Sequence[int]) -> list[dict[str, Any]]:
    """Milliseconds of regions and vote by the number of textures of a picture, on one thread."""
    clip, own = setting.models.clip, job(setting.method, setting.models.clip, CLASSES[0])
    graphs: list[tuple[int, int, dict[str, float]]] = []
    with threads_of_torch(1), torch.inference_mode():
        for index in range(setting.rounds + 1):
            for count in pieces:
                picture = patchwork(index, setting.size, count)[0]
                graph = _Waiting(clip, clip.normalise(picture[None]))
                own.predict(graph)
                clusters = int(graph.clusters(setting.method).max()) + 1
                graphs.append((count, clusters, graph.seconds))
    return [
        {
            "textures": count,
            "clusters": [clusters for one, clusters, _ in graphs if one == count],
            "regions_ms": spread(1000 * s["regions"] for one, _, s in graphs if one == count),
            "vote_ms": spread(1000 * s["vote"] for one, _, s in graphs if one == count),
        }
        for count in pieces
    ]


def loading(size: int, rounds: int) -> dict[str, float]:
    """Milliseconds in which one thread decodes and crops a JPEG of 500 × 375 and its label map."""
    rgb, piece = patchwork(0, 500)
    file, label = io.BytesIO(), piece[:375].astype(np.int32)
    Image.fromarray(rgb[:375]).save(file, "jpeg", quality=90)

    def load() -> float:
        start = time.perf_counter()
        crop_image(Image.open(io.BytesIO(file.getvalue())).convert("RGB"), size)
        GroundTruth.of(crop_label(label, size), 1000)
        return time.perf_counter() - start

    return spread(1000 * s for s in taking_turns({"": load}, 3 * rounds)[""])
