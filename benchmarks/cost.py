"""What an image, the class names and the paper's tables cost, and the memory: cost.json."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any, NamedTuple

import torch

from benchmarks import memory
from benchmarks.growth import up_to
from benchmarks.per_image import (
    Setting,
    against_released,
    encoder_and_cliptrase,
    loading,
    throughput,
    workload,
)
from benchmarks.scenery import CLASSES, SIZES, Eps, models
from benchmarks.tables import table_passes
from benchmarks.text_cost import text_speedup
from benchmarks.timing import ways

log = logging.getLogger("benchmarks")


class Scale(NamedTuple):
    """How much is measured."""

    pictures: int
    rounds: int
    released: int  # pictures of the released procedure
    names: int  # of a round of text; a name is 80 prompts
    text_rounds: int
    table_pictures: int
    table_parts: int
    pool: int  # pictures that eps is set on


FULL = Scale(16, 5, 2, 4, 7, 32, 4, 8)
ON_GPU = FULL._replace(pictures=64, table_pictures=128, table_parts=2)  # a part is a batch
QUICK = Scale(2, 1, 1, 2, 1, 1, 1, 2)
BATCHES = {"cpu": (1, 4, 16), "cuda": (1, 4, 16, 64)}


def measure(threads: int, quick: bool) -> dict[str, Any]:
    """Everything on the CPU, and under the key `cuda` on a GPU where there is one."""
    figures = measure_on("cpu", threads, quick, QUICK if quick else FULL)
    if torch.cuda.is_available():
        figures["cuda"] = measure_on("cuda", threads, quick, QUICK if quick else ON_GPU)
    return figures


def measure_on(device: str, threads: int, tiny: bool, scale: Scale) -> dict[str, Any]:
    """Everything on one device; the released procedure on the CPU only."""
    cpu = device == "cpu"
    loaded = models(tiny, device)
    eps = {size: Eps(loaded.clip, size, scale.pool) for size in SIZES}
    settings = {
        size: Setting.of(loaded, eps[size], scale.pictures, scale.rounds, threads) for size in SIZES
    }
    figures: dict[str, Any] = {"workload": {}, "encoder_ms": {}, "cliptrase_ms": {}}
    for size, setting in settings.items():
        figures["workload"][str(size)] = logged(f"workload {size}", workload(setting))
        compared = logged(f"encoder and cliptrase {size}", encoder_and_cliptrase(setting))
        figures["encoder_ms"][str(size)] = compared["encoder_ms"]
        figures["cliptrase_ms"][str(size)] = compared["cliptrase_ms"]
        for key in ("ratio", "ratio_range", "ratio_same_batch"):
            figures[key.replace("ratio", f"ratio_{size}")] = compared[key]
    if cpu:
        rounds = min(3, scale.rounds)
        figures["released"] = {
            str(size): logged(f"released {size}", against_released(setting, scale.released, rounds))
            for size, setting in settings.items()
        }
        speedups = [each["speedup"]["median"] for each in figures["released"].values()]
        figures["speedup_vs_released"] = min(speedups)
    text = text_speedup(loaded.clip, scale.names, scale.text_rounds, threads)
    figures["text"] = logged("text", text)
    figures["text_speedup"] = text["speedup"]["median"]
    fastest = figures["encoder_ms"][str(SIZES[0])]["way"]
    way = next(way for way in ways(loaded.clip.device, threads) if str(way) == fastest)
    tables = table_passes(
        loaded, eps, way, images=scale.table_pictures, parts=scale.table_parts, threads=threads
    )
    figures["tables"] = logged("tables", tables)
    figures["table_passes"] = tables["passes"]
    smaller, larger = (settings[size] for size in SIZES)
    most = CLASSES[-1]
    peak = memory.peak(larger, most, tiny) if cpu else memory.peak_on_gpu(larger, most)
    figures["memory"] = logged("memory", peak)
    figures[f"peak_gb_{most}_{SIZES[-1]}"] = peak["added_gb"]
    fewer = dataclasses.replace(smaller, rounds=min(3, scale.rounds))
    rates = throughput(fewer, up_to(threads), BATCHES[device])
    figures["images_per_second"] = logged(f"images per second {SIZES[0]}", rates)
    figures["load_ms"] = {str(size): loading(size, scale.rounds) for size in SIZES}
    return figures


def logged(about: str, result: Any) -> Any:
    """The result, after a line about it."""
    log.info("%s: %s", about, json.dumps(result))
    return result
