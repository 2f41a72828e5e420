"""What CLIPtrase costs: `python -m benchmarks` (make bench) writes results/bench/cost.json.

One process; what is compared takes turns; medians of repeated rounds with the least and the most.
ViT-B/16 with random weights. Nothing else should run on the machine meanwhile. `--quick` does the
same with a tiny model and hardly any repeats: its numbers mean nothing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks import command, memory, picture, report
from benchmarks.command import log, upto
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


def measure(device: str, threads: int, tiny: bool, scale: Scale) -> dict[str, Any]:
    """Everything on one device; the released procedure on the CPU only."""
    cpu = device == "cpu"
    loaded = models(tiny, device)
    eps = {size: Eps.of(loaded.clip, size, scale.pool) for size in SIZES}
    settings = {
        size: Setting.of(loaded, eps[size], scale.pictures, scale.rounds, threads) for size in SIZES
    }
    found: dict[str, Any] = {"workload": {}, "encoder_ms": {}, "cliptrase_ms": {}}
    for size, setting in settings.items():
        found["workload"][str(size)] = told("workload", size, workload(setting))
        own = encoder_and_cliptrase(setting)
        found["encoder_ms"][str(size)] = told("encoder_ms", size, own["encoder_ms"])
        found["cliptrase_ms"][str(size)] = told("cliptrase_ms", size, own["cliptrase_ms"])
        found[f"ratio_{size}"] = told("ratio", size, own["ratio"])
        found[f"ratio_{size}_range"] = own["ratio_range"]
        found[f"ratio_{size}_same_batch"] = own["ratio_same_batch"]
    if cpu:
        slow = {
            str(size): told(
                "released", size, against_released(setting, scale.released, min(3, scale.rounds))
            )
            for size, setting in settings.items()
        }
        found["speedup_vs_released"] = min(one["speedup"]["median"] for one in slow.values())
        found["released"] = slow
    text = text_speedup(loaded.clip, scale.names, scale.text_rounds, threads)
    found["text_speedup"] = text["speedup"]["median"]
    found["text"] = told("text", "", text)
    fastest = found["encoder_ms"][str(SIZES[0])]["way"]
    way = next(one for one in ways(loaded.clip.device, threads) if str(one) == fastest)
    tables = table_passes(
        loaded, eps, way, images=scale.table_pictures, parts=scale.table_parts, threads=threads
    )
    found["table_passes"] = tables["passes"]
    found["tables"] = told("tables", "", tables)
    larger = settings[SIZES[1]]
    if cpu:
        chosen = larger.method["regions"]["eps"]
        peak = memory.peak(SIZES[1], CLASSES[-1], chosen, scale.pictures, threads, tiny)
    else:
        peak = memory.peak_on_gpu(larger, CLASSES[-1])
    found[f"peak_gb_{CLASSES[-1]}_{SIZES[1]}"] = peak["added_gb"]
    found["memory"] = told("memory", "", peak)
    smaller = dataclasses.replace(settings[SIZES[0]], rounds=min(3, scale.rounds))
    found["images_per_second"] = told(
        "images per second", SIZES[0], throughput(smaller, upto(threads), BATCHES[device])
    )
    found["load_ms"] = {str(size): loading(size, scale.rounds) for size in SIZES}
    return found


def told(what: str, size: Any, result: Any) -> Any:
    """The result, after a line about it."""
    log.info("%s %s: %s", what, size, json.dumps(result))
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.options("benchmarks", __doc__, arguments)
    about, begun = command.about(options), time.perf_counter()
    scale = QUICK if options.quick else FULL
    cost = measure("cpu", options.threads, options.quick, scale)
    if torch.cuda.is_available():
        cost["cuda"] = measure(
            "cuda", options.threads, options.quick, QUICK if options.quick else ON_GPU
        )
        about["gpu"] = torch.cuda.get_device_name()
    about["minutes"] = round((time.perf_counter() - begun) / 60, 1)
    log.info("%s minutes", about["minutes"])
    cost["about"] = about
    command.write(options.out, "cost", cost, report.markdown(cost))
    picture.draw(cost, options.out / "cost.svg")


if __name__ == "__main__":
    main()
