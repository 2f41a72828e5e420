"""What the commands of this folder share: their options, and how they write what they found."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cliptrase.evaluate.threads import cores
from cliptrase.files import atomic_write
from cliptrase.runs.provenance import commit, now, versions

log = logging.getLogger("benchmarks")


def options(name: str, about: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """`quick`, `out` and `threads` of a command line; torch has so many threads from then on."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=about)
    parser.add_argument("--quick", action="store_true", help="a tiny model, hardly any repeats")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="results/bench")
    parser.add_argument("--threads", type=int, default=cores(), help="as many as cores")
    found = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(relativeCreated)7d ms %(message)s")
    log.setLevel(logging.INFO)
    torch.set_num_threads(found.threads)
    return found


def about(options: argparse.Namespace) -> dict[str, Any]:
    """What was run where; warns where something else is running."""
    load = os.getloadavg()[0]
    if load > 0.5 and not options.quick:
        log.warning("something else is running here (load %.1f): times will be too long", load)
    return {
        "quick": options.quick,
        "model": "a tiny ViT" if options.quick else "ViT-B/16, random weights, fp32",
        "threads": options.threads,
        "cores": cores(),
        "cpu": _processor(),
        "platform": platform.platform(),
        "load_before": round(load, 2),
        "versions": versions(),
        "commit": commit(),
        "started": now(),
    }


def write(folder: Path, name: str, found: dict[str, Any], tables: str) -> None:
    """`name`.json and `name`.md in a folder."""
    with atomic_write(folder / f"{name}.json", "w") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    with atomic_write(folder / f"{name}.md", "w") as file:
        file.write(tables)
    log.info("%s written", folder / f"{name}.json")


def upto(threads: int) -> list[int]:
    """1, 2, 4 … and `threads`."""
    return [*(2**power for power in range(threads.bit_length()) if 2**power < threads), threads]


def _processor() -> str:
    """The name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
