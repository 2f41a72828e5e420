"""Where a number comes from: code, versions, commit, host, and what it cost. Loads no torch."""

import functools
import os
import platform
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cliptrase.config import Run, files
from cliptrase.data.read.vocabularies import read_names
from cliptrase.runs import code

COMPUTING = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow")  # can move a number
BESIDE = ("timm", "transformers")  # can move a number of a run with a network beside CLIP
OTHERS = ("datasets", "hydra-core", "scikit-learn", "scipy", "snakemake")
VERSIONS = ("cliptrase", *COMPUTING, *BESIDE, *OTHERS)


class Stages:
    """Seconds and peak memory of the stages of a pass; safe to use from many threads.

    Seconds of a stage that runs in several threads at once are added up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}
        self.peak_memory: dict[str, int] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - start})

    def add(self, seconds: dict[str, float]) -> None:
        """Add the seconds of stages that were timed elsewhere."""
        peak = peak_memory()
        with self._lock:
            for stage, took in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + took
                self.peak_memory[stage] = peak


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe(stages: Stages, started: str, device: str, **more: object) -> dict[str, object]:
    """What provenance.json says of a pass; what it says of a run is added to it.

    Peak memory of a stage is the process's high-water mark when the stage last ended, in bytes.
    """
    return {
        "code": code.prediction_digest(),
        "scoring": code.scoring_digest(),
        "commit": commit(),
        "started": started,
        "finished": now(),
        "seconds": {stage: round(took, 3) for stage, took in stages.seconds.items()},
        "peak_memory_bytes": dict(stages.peak_memory),
        "versions": versions(),
        "host": {
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "device": device,
        },
        **more,
    }


def origin(run: Run, data: Path) -> dict[str, object]:
    """What makes a run again from its folder alone: the overrides that it was resolved from, where
    the command was given, the data folder, and the words themselves, a line each."""
    lists = {key: words and read_names(words.path) for key, words in run.vocabulary.lists.items()}
    return {
        "overrides": list(run.overrides),
        "working_folder": os.getcwd(),
        "conf_folders": [str(folder) for folder in files.folders()[1:]],
        "data_folder": str(data.resolve()),
        "words": lists,
    }


@functools.cache
def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that matter; None for one that is not there."""
    installed = {name: _version(name) for name in VERSIONS}
    return {"python": platform.python_version(), **installed}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def commit() -> str:
    """The git commit of this code, `+dirty` with uncommitted changes, `unknown` outside git.

    A repository that merely surrounds an installed package does not track its files.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        dirty = _git("status", "--porcelain", "--untracked-files=no")
        return _git("rev-parse", "HEAD").strip() + ("+dirty" if dirty.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
