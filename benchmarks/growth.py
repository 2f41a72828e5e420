"""How the cost grows with images, classes, image size, clusters and threads: growth.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.per_image import MIDDLE, Setting, stage_seconds, throughput
from benchmarks.scenery import Eps, models, patchwork
from benchmarks.timing import Calls, ratios, spread, stage_medians, taking_turns, torch_threads
from cliptrase.evaluate.graph import Graph

SIZES = (224, 336, 448)
CLASSES = (20, 60, 171, 459, 847)
TEXTURES = (2, 4, 8, 16, 32)

Step = dict[str, Any]  # one point of a growth, with a spread for each thing measured there


def measure(threads: int, quick: bool) -> dict[str, Any]:
    """The growth with size at all SIZES, all other growth at the smallest, on the CPU.

    Each measurement is over 8 pictures, those by images over up to 64.
    """
    pictures, rounds, pool = (1, 1, 2) if quick else (8, 3, 8)
    loaded = models(quick, sizes=SIZES)
    settings = [
        Setting.of(loaded, Eps(loaded.clip, size, pool), pictures, rounds, threads)
        for size in SIZES
    ]
    smallest = settings[0]
    images = by_images(smallest, [pictures * k for k in (1, 2, 4, 8)])
    classes, clusters = by_classes(smallest), by_clusters(smallest)
    figures = {
        "by_images": images,
        "by_classes": classes,
        "by_size": by_size(settings),
        "by_clusters": clusters,
        "by_threads": by_threads(smallest, up_to(threads)),
        "each_more": {
            "image_ms": slope((step["images"], 1000 * step["s"]["median"]) for step in images),
            "class_ms": slope((step["classes"], step["ms"]["median"]) for step in classes),
            "cluster_ms": slope(
                (float(np.median(step["clusters"])), step["regions_ms"]["median"])
                for step in clusters
            ),
        },
    }
    return figures | {"pictures": pictures, "rounds": rounds, "threads": threads, "size": SIZES[0]}


def by_images(setting: Setting, counts: Sequence[int]) -> list[Step]:
    """Seconds of CLIPtrase on so many pictures."""
    settings = {str(count): dataclasses.replace(setting, pictures=count) for count in counts}
    turns = {name: each.cliptrase(MIDDLE, each.package_way) for name, each in settings.items()}
    turns[str(counts[0])]()  # the first call of all is slow and does not count
    seconds = taking_turns(turns, setting.rounds, warm_up=False)
    return [
        {
            "images": count,
            "s": spread(seconds[str(count)]),
            "ms_an_image": spread(seconds[str(count)], 1000 / count),
        }
        for count in counts
    ]


def by_classes(setting: Setting) -> list[Step]:
    """Milliseconds an image of CLIPtrase, and of the bare encoder in the same rounds and ways."""
    way, each = setting.package_way, 1000 / setting.pictures
    calls: dict[int, Calls] = {k: [] for k in CLASSES}
    turns = {"encoder": setting.encoder(way)}
    turns |= {str(k): setting.cliptrase(k, way, calls[k]) for k in CLASSES}
    seconds = taking_turns(turns, setting.rounds)
    return [
        {
            "classes": k,
            **_beside_encoder(seconds[str(k)], seconds["encoder"], each),
            "thread_ms": stage_medians(calls[k], each),
        }
        for k in CLASSES
    ]


def by_size(settings: Sequence[Setting]) -> list[Step]:
    """Milliseconds an image of the bare encoder and of CLIPtrase at each size."""
    turns: dict[str, Callable[[], float]] = {}
    for setting in settings:
        turns[f"encoder {setting.size}"] = setting.encoder(setting.package_way)
        turns[f"cliptrase {setting.size}"] = setting.cliptrase(MIDDLE, setting.package_way)
    seconds = taking_turns(turns, settings[0].rounds)
    return [
        {
            "size": setting.size,
            "patches": (setting.size // setting.models.clip.patch) ** 2,
            **_beside_encoder(
                seconds[f"cliptrase {setting.size}"],
                seconds[f"encoder {setting.size}"],
                1000 / setting.pictures,
            ),
        }
        for setting in settings
    ]


def by_threads(setting: Setting, counts: Sequence[int]) -> list[Step]:
    """Images a second, one image a thread."""
    rates = throughput(setting, counts, ())
    pairs = zip(rates["encoder"].values(), rates["cliptrase"].values(), strict=True)
    return [
        {"threads": count, "encoder_rate": encoder, "rate": cliptrase}
        for count, (encoder, cliptrase) in zip(counts, pairs, strict=True)
    ]


def by_clusters(setting: Setting) -> list[Step]:
    """Milliseconds of regions and vote by the clusters of a picture, on one thread.

    The pictures have more and more textures. More than patches can tell apart make fewer clusters,
    so the steps are sorted by the clusters that there are.
    """
    clip, asked = setting.models.clip, setting.job(CLASSES[0])
    clusters: dict[int, list[int]] = {count: [] for count in TEXTURES}
    seconds: dict[int, Calls] = {count: [] for count in TEXTURES}
    with torch_threads(1), torch.inference_mode():
        for index in range(max(setting.pictures, setting.rounds + 1)):
            for count in TEXTURES:
                picture = patchwork(index, setting.size, count)[0]
                graph = Graph(clip, clip.normalise(picture[None]))
                seconds[count].append(stage_seconds(graph, asked))
                clusters[count].append(int(graph.clusters(asked.method).max()) + 1)
    steps = [
        {
            "textures": count,
            "clusters": clusters[count],
            "regions_ms": spread((call["regions"] for call in seconds[count]), 1000),
            "vote_ms": spread((call["vote"] for call in seconds[count]), 1000),
        }
        for count in TEXTURES
    ]
    return sorted(steps, key=lambda step: float(np.median(step["clusters"])))


def _beside_encoder(cliptrase: Sequence[float], encoder: Sequence[float], each: float) -> Step:
    return {
        "ms": spread(cliptrase, each),
        "encoder_ms": spread(encoder, each),
        "ratio": spread(ratios(cliptrase, encoder)),
    }


def slope(points: Iterable[tuple[float, float]]) -> float:
    """What one more costs: least squares."""
    x, y = zip(*points, strict=True)
    return round(float(np.polyfit(x, y, 1)[0]), 3) if len(set(x)) > 1 else 0.0


def up_to(threads: int) -> list[int]:
    """1, 2, 4 … and `threads`."""
    return [*(2**power for power in range(threads.bit_length()) if 2**power < threads), threads]
