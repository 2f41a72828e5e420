"""`cliptrase estimate SUITE`: what a suite will cost here, before anything is computed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cliptrase import pipeline, plan
from cliptrase.config.run import check_device
from cliptrase.errors import exit_on_user_error
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.announcement import announcement
from cliptrase.pipeline.estimate import todo
from cliptrase.pipeline.estimate.report import by_pass, totals
from cliptrase.pipeline.estimate.speed import probed
from cliptrase.pipeline.estimate.start import Start
from cliptrase.pipeline.estimate.suite import blocks, estimate


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="cliptrase estimate",
        description="What `snakemake all` will cost on this machine: images, encoder passes, time, "
        "disk, memory. Times the machine first, for some seconds; the start of `all` believes it.",
    )
    parser.add_argument(
        "suite", metavar="SUITE", nargs="?", default="shapes", help=", ".join(plan.suites())
    )
    parser.add_argument(
        "--benchmarks", metavar="A,B", help="only the passes that these need (also: [A,B])"
    )
    parser.add_argument("--cores", type=int, metavar="N", help="Snakemake's --cores (all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument("--mirror", metavar="URL", help="a server that has every archive")
    parser.add_argument(
        "--freeze-code", action="store_true", help="other code is no reason to make a run again"
    )
    options = parser.parse_args(arguments)
    check_device(options.device)
    if options.cores is not None and options.cores < 1:
        parser.error(f"--cores {options.cores}: at least 1")
    suite = plan.load(options.suite)
    asked = options.benchmarks and options.benchmarks.strip("[]").replace(" ", "")
    passes = pipeline.chosen_passes(suite, asked)
    mirror = pipeline_data.mirror_of(options.mirror)
    start = Start(options.cores, options.device, frozen=options.freeze_code)
    left = todo.unmade(suite, pipeline.unmade(suite), frozen=start.frozen)
    wanted = blocks(todo.made(suite, passes, left, mirror))
    speed = probed(wanted, start.computing, again=True) if wanted else None
    found = estimate(suite, passes, left, mirror, speed, start)
    each, all_of_it = (by_pass(found), totals(found)) if found.left else ([], [])
    said = announcement(suite, passes, left, mirror, start, by_pass=each, totals=all_of_it)
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
