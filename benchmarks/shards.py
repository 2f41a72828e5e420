"""What shards cost: `python -m benchmarks.shards` writes results/bench/shards.json and .md.

A pass of the embedded benchmark is made whole and in 2, 4 and 8 shards, two processes at a time, as
`--config shards=N` makes it: CPU seconds, which other programs change little, time by the clock,
and the bytes of the shards' files. Then ten times the images and ten times the classes: CPU seconds
of ViT-B/16 with random weights, and drawn counts through the code of a pass, saved, added up and
scored.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.growth import slope
from benchmarks.per_image import Setting
from benchmarks.scenery import Eps, models
from benchmarks.timing import Spread, Way, spread, taking_turns
from cliptrase.config.files import OWN
from cliptrase.evaluate.tally import ImageResult, Progress, Tally
from cliptrase.files import write_json, write_text
from cliptrase.runs import bootstrap
from cliptrase.runs.finished import pass_file
from cliptrase.runs.shards import shards_of

SUITE = """\
title: A pass in shards
model: shapes_clip
protocol: crop
published: false
roles: {{main: [shapes], ablation: [], grid: []}}
tables: [table1_main]
overrides: [limit={images}]
"""
NAME = "shapes.shapes_clip.336.crop"
SHARDS = (1, 2, 4, 8)
AT_ONCE = 2
CLASSES_OF_AN_IMAGE = 12  # that it shows or that are predicted in it
PREDICTED = ((4, 171), (40, 171), (4, 1_710))  # images, classes
SIMULATED = ((2_000, 171), (20_000, 171), (2_000, 1_710))  # images, classes


@dataclass(frozen=True)
class Made:
    """A pass that was cut into shards, several times: seconds of all its processes, of the one that
    adds up, and by the clock; bytes of the files of the shards."""

    shards: int
    cpu: Spread
    adding: Spread
    clock: Spread
    bytes: int


@dataclass(frozen=True)
class Simulated:
    """Counts of so many images and classes: bytes an image in a shard's file; seconds to save them,
    to add them to others, and to score them; bytes of memory that scoring takes."""

    images: int
    classes: int
    bytes_an_image: float
    save: float
    add: float
    score: float
    memory: int


def predicted(tiny: bool, rounds: int) -> dict[str, Spread]:
    """CPU seconds an image of CLIPtrase at 224 px on one thread, by images and classes."""
    loaded, most = models(tiny, sizes=(224,)), max(images for images, _ in PREDICTED)
    whole = Setting.of(loaded, Eps(loaded.clip, 224, 8), most, rounds, 1)

    def timed(call: Callable[[], float], images: int) -> float:
        start = time.process_time()
        call()
        return (time.process_time() - start) / images

    turns = {}
    for images, classes in PREDICTED:
        call = replace(whole, pictures=images).cliptrase(classes, Way(1))
        turns[f"{images} images, {classes:,} classes"] = partial(timed, call, images)
    return {name: spread(each) for name, each in taking_turns(turns, rounds).items()}


def simulated(images: int, classes: int, folder: Path) -> Simulated:
    """Drawn counts of one run, as a pass keeps them."""
    rng, progress = np.random.default_rng(0), Progress({"run": Tally(images, classes)})
    for position in range(images):
        seen = np.sort(rng.choice(classes, CLASSES_OF_AN_IMAGE, replace=False))
        counts = rng.integers(1, 5000, (len(seen), 3))
        entries = np.column_stack([seen, counts.min(axis=1), counts[:, 1:]]).astype(np.int32)
        cells = seen * classes + seen
        result = ImageResult(cells, counts.min(axis=1).astype(np.int64), entries)
        progress.tallies["run"].add(position, result)
    progress.position, file = images, folder / "counts.npz"
    start = time.process_time()
    progress.save(file, {})
    saved, total = time.process_time() - start, Progress({"run": Tally(images, classes)})
    start = time.process_time()
    total.resume(file, {})
    added = time.process_time() - start
    assert np.array_equal(total.tallies["run"].confusion, progress.tallies["run"].confusion)
    start = time.process_time()
    tally = total.tallies["run"]
    assert isinstance(tally, Tally)
    counts = tally.counts([f"{position:08}" for position in range(images)])
    bootstrap.resampled("released", counts.tp, counts.gt, counts.pred)
    scored = time.process_time() - start
    dense = counts.tp.nbytes + counts.gt.nbytes + counts.pred.nbytes
    memory = dense + bootstrap.weights(images).nbytes
    fixed = classes**2 * 8  # the matrix
    each = (file.stat().st_size - fixed) / images
    return Simulated(images, classes, round(each, 1), saved, added, scored, memory)


def made(count: int, folder: Path, place: Path) -> tuple[float, float, float, int, str]:
    """A pass in `count` shards, in an empty folder: CPU seconds of all and of adding up, seconds by
    the clock, bytes of the shards' files, and the sha256 of the runs' scores and matrices."""
    options = ["--data", str(place / "data"), "--out", str(folder), "--device", "cpu"]
    command = [sys.executable, "-m", "cliptrase.evaluate.planned", "growth", NAME, *options]
    command += ["--workers", "1"]
    start, size, counting = time.monotonic(), 0, 0.0
    if count > 1:
        parts = [[*command, "--shard", f"{each.number}/{count}"] for each in shards_of(count)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            counting = sum(pool.map(lambda part: _cpu_seconds(part, place), parts))
        files = [each.file(pass_file("growth", NAME, folder)) for each in shards_of(count)]
        size = sum(file.stat().st_size for file in files)
    adding = _cpu_seconds([*command, "--shards", str(count)], place)
    clock, digest = time.monotonic() - start, hashlib.sha256()
    for file in sorted((folder / "runs").glob("*/*")):
        if file.name in ("metrics.json", "confusion.npz", "per_image.npz"):
            digest.update(file.read_bytes())
    return counting + adding, adding if count > 1 else 0.0, clock, size, digest.hexdigest()


def _cpu_seconds(command: Sequence[str], place: Path) -> float:
    """Of a process that runs to its end. Raises RuntimeError where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", OWN: str(place / "conf")}
    with open(place / "log", "ab") as log:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(place / 'log').read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime


def measured(images: int, rounds: int, shards: Sequence[int] = SHARDS) -> list[Made]:
    """The pass over so many images in each number of shards, in turns. Raises RuntimeError where
    the runs differ."""
    with tempfile.TemporaryDirectory(prefix="shards.") as folder:
        place = Path(folder)
        (place / "conf/suite").mkdir(parents=True)
        (place / "conf/suite/growth.yaml").write_text(SUITE.format(images=images))
        prepare = ["-m", "cliptrase.data.make.prepare", "shapes", "--data", str(place / "data")]
        _cpu_seconds([sys.executable, *prepare], place)
        made(1, place / "first", place)  # it encodes the words, which the others read
        turns = {
            count: [made(count, place / f"{count}.{turn}", place) for turn in range(rounds)]
            for count in shards
        }
    if len({turn[-1] for each in turns.values() for turn in each}) > 1:
        raise RuntimeError("the runs differ by the number of shards")
    return [
        Made(count, *(spread([turn[of] for turn in each], digits=1) for of in range(3)), each[0][3])
        for count, each in turns.items()
    ]


def markdown(
    passes: Sequence[Made],
    pictures: Mapping[str, Spread],
    counts: Sequence[Simulated],
    images: int,
) -> str:
    """Three tables."""

    def span(each: Spread, digits: int = 1) -> str:
        median, least, most = (f"{each[key]:.{digits}f}" for key in ("median", "min", "max"))
        return f"{median} <sub>{least} – {most}</sub>"

    lines = [
        f"| shards of {images} images | CPU s | of them to add up | s by the clock | bytes |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {each.shards} | {span(each.cpu)} | {span(each.adding)} | {span(each.clock)} "
        f"| {each.bytes:,} |"
        for each in passes
    ]
    lines += ["", f"One more shard: {overhead(passes):.1f} CPU s.", ""]
    lines += ["| ViT-B/16, 224 px, one thread | CPU s an image |", "|---|---:|"]
    lines += [f"| {name} | {span(each, 3)} |" for name, each in pictures.items()]
    lines.append("")
    lines += [
        "| images | classes | bytes an image | save, s | add, s | score, s | memory |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {each.images:,} | {each.classes:,} | {each.bytes_an_image:.0f} | {each.save:.2f} "
        f"| {each.add:.2f} | {each.score:.2f} | {each.memory / 1e6:.0f} MB |"
        for each in counts
    ]
    return "\n".join(lines) + "\n"


def overhead(passes: Sequence[Made]) -> float:
    """CPU seconds of one more shard, of a pass that is cut."""
    return slope((each.shards, each.cpu["median"]) for each in passes if each.shards > 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--images", type=int, default=96, help="of the pass (96)")
    parser.add_argument("--rounds", type=int, default=3, help="of each number of shards (3)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="results/bench")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="counts.") as folder:
        counts = [simulated(*size, Path(folder)) for size in SIMULATED]
    pictures = predicted(False, options.rounds)
    passes = measured(options.images, options.rounds)
    said = {"images": options.images, "overhead_s": overhead(passes)}
    said |= {"by_shards": [asdict(each) for each in passes]}
    said |= {"predicted": pictures}
    said |= {"simulated": [asdict(each) for each in counts], "load": os.getloadavg()[0]}
    write_json(options.out / "shards.json", said)
    write_text(options.out / "shards.md", markdown(passes, pictures, counts, options.images))
    print(markdown(passes, pictures, counts, options.images))


if __name__ == "__main__":
    main()
