"""`cliptrase compare RUN RUN`: what one run has more than another, image by image."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cliptrase.cli.completion import add_run
from cliptrase.cli.output import tell
from cliptrase.cli.show import RUN
from cliptrase.files import user_path

HELP = "two runs of the same images: paired differences, classes and images that move most"
MOST = 10  # classes and images that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_run(parser, "run_word", "RUN", RUN)
    add_run(parser, "other_word", "OTHER", "the run that it is compared with, likewise")
    add("--results", type=user_path, default=Path("results"), help="the results folder (results)")
    add("--json", action="store_true", help="all classes and images, as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the comparison. Raises UserError for runs that have not the same images and classes."""
    from cliptrase.publish.run_folders import find_run  # NumPy: not for --help
    from cliptrase.publish.run_pairs import compare

    run, other = (find_run(args.results, word) for word in (args.run_word, args.other_word))
    facts = compare(run, other)
    tell(facts, _lines(facts), as_json=args.json)


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    yield f"{facts['run']}\n  minus {facts['other']}"
    yield f"  {facts['images']} images, rule {facts['rule']}"
    for note in facts["notes"]:
        yield f"  note: {note}"
    yield "\nmetric    first   second   difference [95 % interval, paired bootstrap over images]"
    for metric, (value, other, gap, low, high) in facts["metrics"].items():
        if gap is None:
            yield f"{metric:<7}  no value"
            continue
        sign = "" if low is None or low <= 0 <= high else "  significant"
        span = "" if low is None else f" [{low:+.2f}, {high:+.2f}]"
        yield f"{metric:<7} {value:7.2f}  {other:7.2f}   {gap:+.2f}{span}{sign}"
    yield from _moved("classes that move most, IoU", facts["classes"])
    yield from _moved("images that move most, their own mIoU", facts["by_image"])


def _moved(title: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    shown = [row for row in rows if row["difference"]][:MOST]
    yield f"\n{title}:" + ("" if shown else " none")
    wide = max((len(row["name"]) for row in shown), default=0)
    for row in shown:
        values = f"{row['value']:6.1f} {row['other']:6.1f}   {row['difference']:+.1f}"
        yield f"  {row['name']:<{wide}}  {values}"
