"""What a GPU's users run into: too little memory, another pass on it; and the tests marked cuda."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.place import Part, Place
from benchmarks.pixels import predictor_of
from cliptrase import config
from cliptrase.evaluate import protocols
from cliptrase.evaluate.agreement import TOLERATED
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.predict import Predictor
from cliptrase.evaluate.tally import Tally

ROOT = Path(__file__).resolve().parents[2]


def memory(place: Place) -> Part:
    """The runs of the embedded benchmark with too little memory for a batch."""
    part, scale = Part(), place.scale
    words = ["benchmark=shapes", f"limit={scale.images}", "method=cliptrase"]
    run = config.resolve(words)
    predictor = predictor_of({run.name: run}, place.data, place.device)
    predictor.batch_size = scale.batch
    whole = counts(predictor, scale.images)
    with little_memory(place, lambda: counts(predictor, scale.images)):
        halved = counts(predictor, scale.images)
    moved = int(np.abs(whole.confusion - halved.confusion).sum()) // 2
    total = int(whole.confusion.sum())
    said = f"batches of {scale.batch} → {predictor.batch_size}, {moved} of {total:,} pixels moved"
    part.lines.append(("too little memory for a batch", said, f"halved, ≤ {TOLERATED:.0e}"))
    part.must(predictor.batch_size < scale.batch, f"no batch was halved: {said}")
    part.must(moved <= TOLERATED * total, f"halved batches: {said}")
    return part


def counts(predictor: Predictor, images: int) -> Tally:
    """What a pass adds up of the images, in batches, as on a GPU."""
    ((run, job),) = predictor.jobs.items()
    tally = Tally(images, job.text.classes)
    with single_threaded_pool(1) as pool:
        for position, results in predictor.batched(pool, range(images)):
            tally.add(position, results[run])
    return tally


@contextmanager
def little_memory(place: Place, compute: Callable[[], object]) -> Iterator[None]:
    """Until the end, half of the memory that `compute` takes beside what is held; on a CPU, whose
    memory cannot be limited so, batches of more than one image are refused."""
    device = place.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        compute()
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((held + (peak - held) / 2) / total, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return

    class Small(Graph):
        def __init__(self, clip, pixels, *more, **beside):
            if len(pixels) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory (as is tried here)")
            super().__init__(clip, pixels, *more, **beside)

    before, protocols.Graph = protocols.Graph, Small
    try:
        yield
    finally:
        protocols.Graph = before


def lock(place: Place) -> Part:
    """Two passes at once, each a process, on the same device."""
    part, scale = Part(), place.scale
    words = ["benchmark=shapes", "method=cliptrase", f"limit={scale.images}"]
    name = config.resolve(words).name
    words += [f"device={place.name}", f"data={place.data}"]
    with tempfile.TemporaryDirectory(prefix="lock.") as folder:
        outs = [Path(folder, each) for each in "ab"]
        begun = [
            subprocess.Popen(
                [sys.executable, "-m", "cliptrase.evaluate", *words, f"out={out}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for out in outs
        ]
        try:
            said = [each.communicate(timeout=scale.seconds)[0] for each in begun]
        finally:
            for each in begun:
                each.kill()
        made = [out / name / "metrics.json" for out in outs]
        same = all(file.is_file() for file in made)
        same = same and made[0].read_bytes() == made[1].read_bytes()
    waited = sum("waiting for a GPU" in each for each in said)
    expected = int(place.device.type == "cuda")
    what = f"{waited} waited, {'the same run' if same else 'other runs'}"
    part.lines.append(("two passes at once", what, f"{expected}, the same run"))
    part.must(same, f"two passes at once: {what}: {said[0][-300:]} {said[1][-300:]}")
    part.must(waited == expected, f"two passes at once: {what}, and not {expected}")
    return part


def tests(place: Place) -> Part:
    """The tests that are marked cuda."""
    part = Part()
    files = [
        file for file in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in file.read_text()
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "0" if place.device.type == "cuda" else "")
    done = subprocess.run(
        [*command, *map(str, files)],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": seen},
        capture_output=True,
        text=True,
    )
    number = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped)", done.stdout)}
    said = ", ".join(f"{count} {word}" for word, count in number.items()) or "none were run"
    part.lines.append(("tests marked cuda", said, "all pass"))
    part.must(done.returncode == 0, f"tests: {said}\n{done.stdout[-2000:]}")
    part.must(place.device.type == "cpu" or number.get("passed", 0) > 0, f"tests: {said}")
    return part
