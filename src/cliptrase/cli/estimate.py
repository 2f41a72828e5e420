"""`cliptrase estimate SUITE`: what a suite will cost here, before anything is computed."""

import argparse
from collections.abc import Sequence

from cliptrase import pipeline, plan
from cliptrase.config.run import check_device
from cliptrase.data.fetch.sources import mirror_of
from cliptrase.errors import exit_on_user_error
from cliptrase.pipeline.announcement import announcement


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="cliptrase estimate",
        description="What `snakemake all` will cost on this machine: images, encoder passes, time, "
        "disk, memory. Times the code of the passes first; the start of `all` believes it.",
    )
    add = parser.add_argument
    add("suite", metavar="SUITE", nargs="?", default="shapes", help=", ".join(plan.suites()))
    add("--benchmarks", metavar="A,B", help="only the passes that these need (also: [A,B])")
    add("--cores", type=int, metavar="N", help="Snakemake's --cores (all)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    add("--mirror", metavar="URL", help="a server that has every archive")
    add("--freeze-code", action="store_true", help="other code is no reason to make a run again")
    options = parser.parse_args(arguments)
    check_device(options.device)
    if options.cores is not None and options.cores < 1:
        parser.error(f"--cores {options.cores}: at least 1")
    suite = plan.load(options.suite)
    benchmarks = options.benchmarks and options.benchmarks.strip("[]").replace(" ", "")
    asked = pipeline.chosen_passes(suite, benchmarks)
    left = pipeline.stale_passes(suite, frozen=options.freeze_code)
    given = mirror_of(options.mirror), options.cores, options.device, options.freeze_code
    print(announcement(suite, asked, left, *given, in_full=True))
