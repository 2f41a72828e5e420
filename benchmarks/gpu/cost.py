"""How fast a GPU is: CLIPtrase by its encoder, the encoder by plain products, loading by both."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.gpu.place import Part, Place
from benchmarks.per_image import MIDDLE, Setting, encoder_and_cliptrase, loading
from benchmarks.scenery import Eps, models
from benchmarks.timing import wait
from cliptrase import config
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import operations
from cliptrase.machine import cores
from cliptrase.model.precision import DTYPES
from cliptrase.pipeline.probe import random_clip

GOAL_RATIO, GOAL_USED = 1.15, 0.7  # CLIPtrase by its encoder; of the products the GPU can do


def cost(place: Place) -> Part:
    """Ratios of `make bench`, the encoder's share of the products, loading."""
    part, scale = Part(), place.scale
    loaded = models(scale.tiny, place.name, scale.sizes)
    for size in scale.sizes:
        eps = Eps(loaded.clip, size, min(8, scale.images))
        setting = Setting.of(loaded, eps, scale.images, scale.rounds, cores())
        figures = encoder_and_cliptrase(setting)
        ratio = figures["ratio"][str(MIDDLE)]
        what = f"CLIPtrase / bare encoder, {size} px, {MIDDLE} classes"
        part.lines.append((what, f"{ratio:.2f}", f"≤ {GOAL_RATIO}"))
        milliseconds = figures["cliptrase_ms"][str(MIDDLE)]["total"]["median"]
        rate, needed = 1000 / milliseconds, loading(size, scale.rounds)["median"] / milliseconds
        part.lines.append((f"CLIPtrase, {size} px, images a second", f"{rate:.0f}", ""))
        goal = f"≤ {cores() - 1}, as one core feeds the GPU"
        part.lines.append((f"cores that decode as fast, {size} px", f"{needed:.1f}", goal))
    for precision in ("fp32", "bf16"):
        rate, used = encoder_use(place, precision)
        what = f"encoder in {precision}, {scale.sizes[0]} px, batches of {4 * scale.batch}"
        said = f"{rate:.0f} images a second, {used:.0%} of a product of {scale.matrix} rows"
        part.lines.append((what, said, f"≥ {GOAL_USED:.0%}" if precision == "bf16" else ""))
    return part


def encoder_use(place: Place, precision: str) -> tuple[float, float]:
    """Images a second of the encoder as the package computes it, and its operations by those that
    a plain matrix product of the same type does in the same time."""
    scale, device = place.scale, place.device
    model = "shapes_clip" if scale.tiny else "vit_b16"
    run = config.resolve(["benchmark=shapes", "method=clip", f"model={model}"])
    clip = random_clip(run.model.model_copy(update={"precision": precision}), device)
    batch, side = 4 * scale.batch, scale.sizes[0]
    shown = torch.randn(batch, 3, side, side, device=device)
    single = operations(lambda: Graph(clip, shown[:1]).patches(run.method))
    with torch.inference_mode():
        seconds = _seconds(device, lambda: Graph(clip, shown).patches(run.method), scale.rounds)
        one = torch.randn(scale.matrix, scale.matrix, device=device, dtype=DTYPES[precision])
        product = _seconds(device, lambda: one @ one, scale.rounds)
    able = 2 * scale.matrix**3 / product
    return batch / seconds, batch * single / seconds / able


def _seconds(device: torch.device, compute: Callable[[], object], rounds: int) -> float:
    """The median of some calls, after two that do not count."""
    taken = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        compute()
        wait(device)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[2:]))
