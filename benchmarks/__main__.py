"""What CLIPtrase costs: `python -m benchmarks` (make bench) writes results/bench/.

`cost` (cost.json and .md) measures an image, the class names, the paper's tables and the memory in
some 15 minutes on 2 cores, `growth` (growth.json and .md) how that grows in some 5, `peers`
(peers.json and .md) what each method costs beside CLIP in some 5. Everything runs
in one process; contenders take turns; figures are medians of repeated rounds with the least and the
most. ViT-B/16 with random weights. Nothing else should run on the machine meanwhile. `--quick` does
the same with a tiny model and hardly any repeats: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import cost, growth, peers, pictures, report
from cliptrase.files import atomic_write
from cliptrase.machine import cores
from cliptrase.runs.provenance import commit, now, versions

log = logging.getLogger("benchmarks")

TRIAL = "**A trial with a tiny model and hardly any repeats: these numbers mean nothing.**\n\n"
BENCHMARKS = {
    "cost": (cost.measure, report.cost, pictures.cost),
    "growth": (growth.measure, report.growth, pictures.growth),
    "peers": (peers.measure, report.peers, None),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, help="all three")
    parser.add_argument("--quick", action="store_true", help="a tiny model, hardly any repeats")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="results/bench")
    parser.add_argument("--threads", type=int, default=cores(), help="as many as cores")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(relativeCreated)7d ms %(message)s")
    log.setLevel(logging.INFO)
    torch.set_num_threads(options.threads)
    about = about_this_machine(options.threads, options.quick)
    for name in [options.only] if options.only else BENCHMARKS:
        (measure, markdown, draw), start = BENCHMARKS[name], time.perf_counter()
        figures = measure(options.threads, options.quick)
        minutes = round((time.perf_counter() - start) / 60, 1)
        figures["about"] = {**about, "minutes": minutes}
        with atomic_write(options.out / f"{name}.json", "w") as file:
            file.write(json.dumps(figures, indent=1) + "\n")
        with atomic_write(options.out / f"{name}.md", "w") as file:
            file.write((TRIAL if options.quick else "") + markdown(figures))
        if draw is not None:
            draw(figures, options.out)
        log.info("%s written in %s minutes", options.out / f"{name}.json", minutes)


def about_this_machine(threads: int, quick: bool) -> dict[str, Any]:
    """What is run where; warns where something else is running."""
    load = os.getloadavg()[0]
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if load > 0.5 and not quick:
        log.warning("something else is running here (load %.1f): times will be too long", load)
    about = {
        "quick": quick,
        "model": "a tiny ViT" if quick else "ViT-B/16, random weights, fp32",
        "threads": threads,
        "cores": cores(),
        "cpu": cpuinfo.partition("model name")[2].partition("\n")[0].strip("\t: "),
        "platform": platform.platform(),
        "load_before": round(load, 2),
        "versions": versions(),
        "commit": commit(),
        "started": now(),
    }
    return about | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


if __name__ == "__main__":
    main()
