"""A GPU's label maps beside a CPU's: how many pixels differ, and by how little."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.gpu.place import Part, Place, Scale
from benchmarks.per_image import MIDDLE
from benchmarks.pixels import differing, label_maps, predictor_of
from benchmarks.scenery import Eps, Patchworks, job, models
from cliptrase import config
from cliptrase.evaluate.agreement import TOLERATED
from cliptrase.evaluate.predict import Predictor
from cliptrase.machine import cores
from cliptrase.runs.provenance import Stages

PLAIN = ("clip", "sclip", "gem", "cliptrase")  # need no second network
LISTED = 1000  # pixels that are listed


def pixels(place: Place) -> Part:
    """The CPU's label maps and the device's, of the embedded benchmark and of random weights."""
    part, scale = Part(), place.scale
    for size in scale.sizes:
        words = ["benchmark=shapes", f"limit={scale.images}", f"image_size={size}"]
        runs = [config.resolve([*words, f"method={method}"]) for method in scale.methods]
        by_name = {run.name: run for run in runs}
        devices = torch.device("cpu"), place.device
        embedded = [predictor_of(by_name, place.data, device) for device in devices]
        _compare(f"embedded benchmark, {size} px", embedded, place, part)
        drawn = [random_predictor(scale, size, str(device)) for device in devices]
        _compare(f"random ViT-B/16, {size} px", drawn, place, part)
    return part


def _compare(what: str, both: list[Predictor], place: Place, part: Part) -> None:
    """The CPU's, one image a thread, and the device's, in batches."""
    cpu, other = both
    positions = range(place.scale.images)
    theirs = label_maps(cpu, positions, threads=cores())
    ours = label_maps(other, positions, together=place.scale.batch)
    total, count = sum(maps.size for maps in theirs.values()), 0
    for run in theirs:
        count += int(np.count_nonzero(theirs[run] != ours[run]))
        for at in positions if len(part.pixels) < LISTED else ():
            maps = theirs[run][at], ours[run][at]
            part.pixels += differing(cpu, run, at, f"{what}, image {at}", maps)
    share = count / total
    said = f"{count} of {total:,} pixels differ ({share:.1e})"
    part.lines.append((f"{what}, {len(theirs)} methods", said, f"≤ {TOLERATED:.0e}"))
    part.must(share <= TOLERATED, f"{what}: {said}")


def random_predictor(scale: Scale, size: int, device: str) -> Predictor:
    """ViT-B/16 with the same random weights on every device, random words, drawn pictures."""
    loaded = models(scale.tiny, device, (size,))
    eps = Eps(models(scale.tiny, "cpu", (size,)).clip, size, min(8, scale.images))
    jobs = {}
    for method in (name for name in scale.methods if name in PLAIN):
        words = ["benchmark=ade150", f"method={method}", f"image_size={size}"]
        jobs[method] = job(eps.fitted(config.resolve(words).method), loaded.clip, MIDDLE)
    pictures = Patchworks.draw(size, range(scale.images), {str(MIDDLE): MIDDLE})
    return Predictor(loaded.clip, pictures, jobs, Stages(), scale.batch)
