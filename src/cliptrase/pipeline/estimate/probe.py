"""How fast this machine is: `python -m cliptrase.pipeline.estimate.probe JSON` times it.

It takes what `speed.probed` asks: transformer blocks by their shapes, and the device. Nothing is
fetched: fresh weights are as slow as trained ones. A process of its own, since planning loads no
torch; its start is the start of a pass, and is timed too.

On a CPU every core computes at once, one block a thread, as passes do, and CPU time counts: what
else the machine is doing meanwhile matters little. On a GPU the clock counts, in batches; it is
one that no pass has, if there is such a one.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock

from cliptrase.data import open_dataset as open_dataset  # what a pass loads besides
from cliptrase.evaluate import passes as passes
from cliptrase.evaluate.device import computing_on
from cliptrase.evaluate.threads import cores, single_threaded_pool
from cliptrase.model import vision
from cliptrase.model.precision import lower
from cliptrase.pipeline.estimate.speed import name_of
from cliptrase.segment.logits import classify

SECONDS = 0.3  # of every measurement
MOST = 400  # calls of it
GPU_BATCH = 16
MAPS, GRID, SIDE = 32, 14, 224


def block(
    width: int, tokens: int, batch: int, precision: str, device: torch.device
) -> Callable[[], Any]:
    """One transformer block on fresh weights, to be called."""
    one = ResidualAttentionBlock(width, max(1, width // 64), act_layer=QuickGELU)
    clip: Any = SimpleNamespace(blocks=[one.eval().to(device)])
    lower(SimpleNamespace(transformer=SimpleNamespace(resblocks=clip.blocks)), precision)
    entering = torch.randn(batch, tokens, width, device=device)
    return lambda: vision.block(clip, 0, entering)


def upsampling(device: torch.device) -> Callable[[], Any]:
    """The class of every pixel, out of MAPS logits of every patch, to be called."""
    logits = torch.randn(1, MAPS, GRID, GRID, device=device)
    owner = torch.arange(MAPS, device=device)
    return lambda: classify(logits, (SIDE, SIDE), owner)


def median_seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Of one call, after one that does not count."""
    gpu = device.type == "cuda"
    clock = time.perf_counter if gpu else time.thread_time
    found: list[float] = []
    with torch.inference_mode():
        call()
        while sum(found) < SECONDS and len(found) < MOST:
            if gpu:
                torch.cuda.synchronize(device)
            start = clock()
            call()
            if gpu:
                torch.cuda.synchronize(device)
            found.append(clock() - start)
    return statistics.median(found)


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each block that is asked for, of one name at one pixel, of a start."""
    started = time.process_time()  # of the whole process: Python and the imports
    with computing_on(asked["device"]) as device:
        return {"device": device.type, "start": started} | _on(device, asked["blocks"])


def _on(device: torch.device, asked: list[Any]) -> dict[str, Any]:
    gpu, cpu = device.type == "cuda", torch.device("cpu")
    threads = cores()

    def everywhere(make: Callable[[], Callable[[], Any]]) -> float:
        calls = [make() for _ in range(threads)]
        return statistics.mean(pool.map(lambda call: median_seconds(call, cpu), calls))

    blocks: dict[str, float] = {}
    with single_threaded_pool(threads) as pool:
        for width, tokens, batch, precision in asked:
            if gpu:
                times = GPU_BATCH if batch == 1 else 1
                one = block(width, tokens, batch * times, precision, device)
                took = median_seconds(one, device) / times
            else:
                took = everywhere(partial(block, width, tokens, batch, precision, cpu))
            blocks[name_of((width, tokens, batch, precision))] = took
        pixel = everywhere(partial(upsampling, cpu)) / (MAPS * SIDE * SIDE)
    there = median_seconds(upsampling(device), device) / (MAPS * SIDE * SIDE) if gpu else pixel
    return {"blocks": blocks, "pixel": pixel, "pixel_on_device": there}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]))) + "\n")
