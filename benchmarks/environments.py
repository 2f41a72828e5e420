"""The same integers everywhere: `python -m benchmarks.environments` makes one small sweep under
several environments and compares every confusion matrix and every pixel with those of the first.

Environments: what ATen, MKL and oneDNN may use of the CPU's instructions; 1 to 8 threads; locale,
time zone, working directory, umask and hash seed. Each has a process, a folder and text features
of its own. Where a matrix differs, each pixel that does is listed with its margin. Writes
environments.json and environments.md; the exit code is 1 where a pixel or a matrix differs that
the CPU's instructions do not explain.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.pixels import Pixel, differing, predictor_of
from cliptrase import config
from cliptrase.config import Run
from cliptrase.files import write_json, write_text

log = logging.getLogger("benchmarks")

METHODS = ("clip", "maskclip", "sclip", "cliptrase", "gem", "cliptrase_sam", "cliptrase_dinov2")
IMAGES = 8
LISTED = 1000  # pixels of an environment in the JSON
LEVELS = ("default", "avx2", "avx512")  # as ATen names them; each includes those before it
NARROWER = {  # the same for the libraries that multiply
    "default": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}


@dataclass(frozen=True)
class Environment:
    """How a sweep is started. instructions: whether other instructions of the CPU are used."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    folder: str = ""  # of the working directory
    umask: int = 0o022
    instructions: bool = False


@dataclass(frozen=True)
class Comparison:
    """An environment beside the first: how many confusion matrices and pixels differ."""

    name: str
    matrices: int
    pixels: int
    listed: list[Pixel]
    instructions: bool


def environments() -> list[Environment]:
    """Those that this machine has; the first is the machine as it is, on one thread."""
    best = torch.backends.cpu.get_cpu_capability().lower()
    levels = LEVELS[: LEVELS.index(best) + 1] if best in LEVELS else ()
    there = [Environment("as it is, 1 thread")]
    for level in levels:
        aten = {"ATEN_CPU_CAPABILITY": level}
        there.append(Environment(f"ATen: {level}", aten, instructions=True))
    for level in levels[:-1]:
        all_of_them = {"ATEN_CPU_CAPABILITY": level, **NARROWER[level]}
        name = f"ATen, MKL and oneDNN: {level}"
        there.append(Environment(name, all_of_them, instructions=True))
    there += [Environment(f"{count} threads", workers=count) for count in (2, 3, 8)]
    locales = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
    turkish = next((name for name in locales if name.lower().startswith("tr_tr.utf")), "C.utf8")
    there += [Environment(f"locale {name}", {"LC_ALL": name}) for name in ("C", turkish)]
    return [
        *there,
        Environment("time zone", {"TZ": "Pacific/Chatham"}),
        Environment("hash seed", {"PYTHONHASHSEED": "4242"}),
        Environment("umask 077", umask=0o077),
        Environment("another folder", folder="ein Ordner, ü/日本 ünï"),
    ]


def together() -> Environment:
    """All at once that may not move a pixel."""
    variables = {"LC_ALL": "C", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "4242"}
    return Environment("all at once", variables, 3, "ein Ordner, ü", 0o077)


def sweep(environment: Environment, overrides: Sequence[str], data: Path, folder: Path) -> Path:
    """Make the runs in a folder of their own; returns that of the run folders.

    overrides: as `sweep_words` has them. data: where the dataset is prepared. Raises RuntimeError.
    """
    place = folder / environment.folder
    (place / "data").mkdir(parents=True)
    (place / "data/prepared").symlink_to((data / "prepared").resolve())
    script = f"umask {environment.umask:03o}; exec {shlex.quote(sys.executable)} -m "
    words = [*overrides, f"workers={environment.workers}", "device=cpu"]
    script += f"cliptrase.evaluate -m {shlex.join(words)}"
    before = {key: value for key, value in os.environ.items() if key not in ("LC_ALL", "LANG")}
    log.info("%s: %s", environment.name, script)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=place,
        env={**before, **environment.variables},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise RuntimeError(f"{environment.name}: {script}\n{done.stderr}")
    return place / "results/runs"


def compare(
    some: Sequence[Environment], made: Sequence[Path], runs: Mapping[str, Run], data: Path
) -> list[Comparison]:
    """Every environment but the first beside the first. made: as `sweep` returns it for each."""
    others = zip(some[1:], made[1:], strict=True)
    return [_beside(each, made[0], other, runs, data) for each, other in others]


def _beside(
    environment: Environment, first: Path, other: Path, runs: Mapping[str, Run], data: Path
) -> Comparison:
    """An environment beside the first, by the folders of their runs."""
    matrices, pixels, listed = 0, 0, list[Pixel]()
    if {each.name for each in other.iterdir()} != {*runs}:
        raise RuntimeError(f"{environment.name}: made other runs")
    for name, run in runs.items():
        pair = [_confusion(place / name) for place in (first, other)]
        matrices += not np.array_equal(*pair)
        maps = sorted((first / name / "maps").iterdir())
        assert maps and len(maps) == (run.limit or 0)
        for position, file in enumerate(maps):
            theirs = other / name / "maps" / file.name
            if file.read_bytes() != theirs.read_bytes():
                one, two = (
                    np.asarray(Image.open(path)).astype(np.int16) for path in (file, theirs)
                )
                pixels += int(np.count_nonzero(one != two))
                if len(listed) < LISTED:
                    predictor = predictor_of({name: run}, data, torch.device("cpu"))
                    listed += differing(predictor, name, position, file.stem, (one, two))
    return Comparison(environment.name, matrices, pixels, listed[:LISTED], environment.instructions)


def _confusion(folder: Path) -> np.ndarray:
    with np.load(folder / "confusion.npz", allow_pickle=False) as file:
        return file["confusion"]


def sweep_words(methods: Sequence[str], images: int) -> list[str]:
    """The overrides of the sweep."""
    shared = ["benchmark=shapes", f"limit={images}", f"save_maps={images}"]
    return [*shared, f"method={','.join(methods)}"]


def sweep_runs(methods: Sequence[str], images: int) -> dict[str, Run]:
    """The runs that it makes, by name."""
    shared = ["benchmark=shapes", f"limit={images}"]
    runs = [config.resolve([*shared, f"method={method}"]) for method in methods]
    return {run.name: run for run in runs}


def markdown(comparisons: Sequence[Comparison], matrices: int, pixels: int) -> str:
    """A line an environment."""
    head = (
        f"| environment | matrices that differ, of {matrices} | pixels, of {pixels:,} | margins |"
    )
    lines = [head, "|---|---:|---:|---|"]
    for each in comparisons:
        won = [pixel.margin for pixel in each.listed]
        margins = f"{min(won):.1e} to {max(won):.1e}" if won else ""
        lines.append(f"| {each.name} | {each.matrices} | {each.pixels} | {margins} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.environments", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help=f"scenes ({IMAGES})")
    parser.add_argument("--methods", nargs="+", default=METHODS, help=" ".join(METHODS))
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="results/bench")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7d ms %(message)s")
    runs, some = sweep_runs(options.methods, options.images), environments()
    with tempfile.TemporaryDirectory(prefix="environments.") as folder:
        data, words = Path(folder, "data"), sweep_words(options.methods, options.images)
        prepare = [sys.executable, "-m", "cliptrase.data.make.prepare", "shapes", "--data", data]
        subprocess.run(prepare, check=True, capture_output=True)
        made = [sweep(each, words, data, Path(folder, str(at))) for at, each in enumerate(some)]
        comparisons = compare(some, made, runs, data)
    pixels = sum((run.limit or 0) * run.image_size**2 for run in runs.values())
    said = {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "environments": [each.name for each in some],
        "images": options.images,
        "methods": list(options.methods),
        "pixels": pixels,
        "compared": [asdict(each) for each in comparisons],
    }
    write_json(options.out / "environments.json", json.loads(json.dumps(said)))
    table = markdown(comparisons, len(runs), pixels)
    write_text(options.out / "environments.md", table)
    print(table)
    sys.exit(any((each.pixels or each.matrices) and not each.instructions for each in comparisons))


if __name__ == "__main__":
    main()
