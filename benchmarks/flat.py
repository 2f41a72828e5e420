"""Memory against the number of images: `python -m benchmarks.flat` writes results/bench/flat.json.

A prepared dataset of 1,000 scenes and one of 5,000, and five runs in one pass over each, in a
process of its own, with the embedded model: some 10 minutes on 2 cores. Resident memory is what a
process owns (`anon`), and files that it maps, libraries above all, which the system can drop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliptrase.data.make.records import Record, png
from cliptrase.files import atomic_write, sha256_file

DATASET, SIZE = "shapes", 224
RUNS = (
    ("shapes", "clip"),
    ("shapes", "sclip"),
    ("shapes", "cliptrase"),
    ("shapes_bg", "cliptrase"),
    ("shapes_fine", "cliptrase"),
)
COUNTS = (1000, 5000)
SCENES = 250  # that differ; further images repeat them under other ids
SEEDS = range(100_000_000, 200_000_000)  # not those that are scored
MB = 1e6
ENTRY, IMAGE = 16, 9  # bytes that a tally holds for a class of an image, and for an image


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flat", description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=COUNTS, metavar="N")
    parser.add_argument("--scenes", type=int, default=SCENES, help=f"that differ ({SCENES})")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="results/bench")
    parser.add_argument("--within", type=Path, help="for a process of its own: a data folder")
    options = parser.parse_args(arguments)
    if options.within is not None:
        sys.stdout.write(json.dumps(passed(options.within, options.threads)) + "\n")
        return
    found = flat(options.images, options.scenes, options.threads)
    with atomic_write(options.out / "flat.json", "w") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    sys.stdout.write(markdown(found))


def flat(counts: Sequence[int], scenes: int, threads: int) -> dict[str, Any]:
    """The peak of each number of images, and the last as a multiple of the first."""
    by_count = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(Path(folder), count, scenes)
            command = [sys.executable, "-m", "benchmarks.flat", f"--threads={threads}"]
            done = subprocess.run(
                [*command, f"--within={folder}"],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parents[1],
            )
        by_count[str(count)] = json.loads(done.stdout.splitlines()[-1])
    first, last = (by_count[str(count)] for count in (counts[0], counts[-1]))
    more = max(counts[-1] - counts[0], 1)
    return {
        "images": by_count,
        "ratio": round(last["peak_mb"] / first["peak_mb"], 4),
        "ratio_anon": round(last["peak_anon_mb"] / first["peak_anon_mb"], 4),
        "anon_bytes_an_image_more": round(
            MB * (last["peak_anon_mb"] - first["peak_anon_mb"]) / more
        ),
        "runs": len(RUNS),
        "threads": threads,
    }


def write_dataset(data: Path, count: int, scenes: int) -> None:
    """`count` images in the place of the embedded scenes, ready for a pass."""
    from cliptrase.data.read import prepared

    folder = data / "prepared" / DATASET
    folder.mkdir(parents=True)
    arrow = folder / prepared.ARROW
    prepared.write_arrow(arrow, drawn(count, scenes))
    sums = prepared.write_sums(folder, prepared.PreparedSamples(folder))
    check = {"count": count, "arrow_bytes": arrow.stat().st_size, "sums_sha256": sums}
    check["pixels_sha256"] = sha256_file(arrow)
    (folder / prepared.SELFCHECK).write_text(json.dumps(check), encoding="utf-8")


def drawn(count: int, scenes: int) -> Iterator[Record]:
    """Scenes over and over."""
    from cliptrase.shapes.scenes import scene

    known = []
    for number in range(count):
        if number < scenes:
            made = scene(SEEDS[number])
            known.append((png(made.image), png(made.label)))
        yield Record(f"scene_{number:06d}", *known[number % scenes])


def passed(data: Path, threads: int) -> dict[str, Any]:
    """The pass over a data folder, and what this process held meanwhile."""
    from cliptrase import config
    from cliptrase.evaluate.passes import run_pass
    from cliptrase.runs import store

    runs = {}
    for benchmark, method in RUNS:
        run = config.resolve([f"benchmark={benchmark}", f"method={method}", f"image_size={SIZE}"])
        runs[run.name] = run
    out, begun = data / "runs", time.perf_counter()
    with Watch() as watch:
        folders = run_pass(
            runs,
            partial=data / "partial.npz",
            out=out,
            data=data,
            device="cpu",
            workers=threads,
            freeze_code=True,  # the dataset is not what the embedded recipe makes
        )
    seconds = time.perf_counter() - begun
    seen, on_disk, images = [], [], 0
    for folder in folders.values():
        counts = store.read_counts(folder)
        images = len(counts.ids)
        seen.append(float(np.count_nonzero(counts.gt[:] + counts.pred[:], axis=1).mean()))
        on_disk.append((folder / "per_image.npz").stat().st_size / images)
    kept = [ENTRY * some + IMAGE for some in seen]
    return {
        "peak_mb": watch.peak("VmHWM"),  # of this process alone; ru_maxrss has its parent's too
        "peak_anon_mb": watch.peak("RssAnon"),
        "peak_files_mb": watch.peak("RssFile"),
        "anon_mb_by_tenth": watch.tenths(),
        "seconds": round(seconds, 1),
        "images_per_second": round(images / seconds, 2),
        "tally_bytes_an_image_and_run": [round(bytes_) for bytes_ in (min(kept), max(kept))],
        "per_image_npz_bytes_an_image": [round(bytes_) for bytes_ in (min(on_disk), max(on_disk))],
        "arrow_bytes_an_image": round(
            (data / "prepared" / DATASET / "samples.arrow").stat().st_size / images
        ),
    }


class Watch:
    """Looks at this process's memory ten times a second, until the end."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.seen.append(sizes())

    def peak(self, key: str) -> float:
        """The most of it, in MB."""
        return round(max(one[key] for one in self.seen) / MB, 1)

    def tenths(self) -> list[float]:
        """The most that it owned in each tenth of the time, in MB."""
        parts = np.array_split([one["RssAnon"] for one in self.seen], 10)
        return [round(float(part.max()) / MB, 1) for part in parts if len(part)]

    def _look(self) -> None:
        while not self._done.wait(0.1):
            self.seen.append(sizes())


def sizes() -> dict[str, float]:
    """Bytes of this process: the most that was ever resident, what it owns, files it maps."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    said = dict(line.split(":", 1) for line in lines)
    return {key: int(said[key].split()[0]) * 1024 for key in ("VmHWM", "RssAnon", "RssFile")}


def markdown(found: dict[str, Any]) -> str:
    """A row a number of images."""
    lines = [
        "| images | peak memory | of it its own | mapped files | images a second |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {int(count):,} | {one['peak_mb']:.0f} MB | {one['peak_anon_mb']:.0f} MB "
        f"| {one['peak_files_mb']:.0f} MB | {one['images_per_second']:.1f} |"
        for count, one in found["images"].items()
    ]
    lines.append(f"| ratio | {found['ratio']:.3f} | {found['ratio_anon']:.3f} | | |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
