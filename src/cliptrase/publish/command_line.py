"""What the commands that publish a suite have in common: their options, the suite and its runs."""

import argparse
from collections.abc import Callable
from pathlib import Path

from cliptrase import plan
from cliptrase.errors import UserError
from cliptrase.files import user_path
from cliptrase.plan import Plan
from cliptrase.publish.results import Shelf


def command_line(
    name: str, about: str | None, add_options: Callable[[argparse.ArgumentParser], None]
) -> argparse.ArgumentParser:
    """`cliptrase NAME SUITE` and its options."""
    parser = argparse.ArgumentParser(prog=f"cliptrase {name}", description=about)
    parser.add_argument("suite", metavar="SUITE", help=f"one of {', '.join(plan.suites())}")
    add_options(parser)
    return parser


def add_places(parser: argparse.ArgumentParser) -> None:
    """What every step of publishing takes: --results and --data."""
    parser.add_argument("--results", type=user_path, default=Path("results"), metavar="DIR")
    parser.add_argument("--data", type=user_path, metavar="DIR", help="data folder (the suite's)")


def add_benchmarks(parser: argparse.ArgumentParser) -> None:
    """The same, and the option that says which benchmarks a start was for."""
    add_places(parser)
    only = "those that were asked for: empty cells of others say that they were not"
    parser.add_argument("--benchmarks", metavar="A,B", help=only)


def planned(args: argparse.Namespace) -> tuple[Plan, Shelf]:
    """The suite of a command line and its runs. Raises UserError where no run can be used."""
    suite = plan.load(args.suite)
    try:
        asked = plan.benchmark_names(args.benchmarks)
    except ValueError as error:
        raise UserError(f"--benchmarks={args.benchmarks}: {error}") from None
    suite.check_benchmarks(asked or ())
    shelf = Shelf(suite, args.results, args.data or Path(suite.data), asked)
    shelf.refuse_none()
    return suite, shelf
