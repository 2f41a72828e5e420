"""Renders every table of a suite from the runs that exist: csv, Markdown, LaTeX. Starts no run.

`python -m cliptrase.publish tables SUITE`, or `cliptrase tables SUITE`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cliptrase import config, plan
from cliptrase.errors import UserError, exit_on_user_error, nearest
from cliptrase.files import atomic_write
from cliptrase.plan import Plan, Table
from cliptrase.publish.cells import Line, missing, tidy
from cliptrase.publish.layout import Sheet, arrange
from cliptrase.publish.published import read_published
from cliptrase.publish.render import to_csv, to_latex, to_markdown
from cliptrase.publish.runs import Shelf

SHOWN = 12  # reasons of missing cells that are printed


def sheet_of(suite: Plan, table: Table, lines: list[Line]) -> Sheet:
    """The table as it is typeset."""
    return arrange(
        table.name,
        table.title,
        lines,
        suite=suite.suite,
        kind=table.kind,
        order=_order(table),
        background=lambda benchmark: has_background(suite, benchmark),
    )


def _order(table: Table) -> list[str]:
    """The table's benchmarks; then, for quoted rows, those of the paper's longest row."""
    rows: dict[str, list[str]] = {}
    for name, row, benchmark, _ in read_published():
        if name == table.name and benchmark not in ("", "avg"):
            rows.setdefault(row, []).append(benchmark)
    longest = max(rows.values(), key=len, default=[])
    return list(dict.fromkeys([*table.benchmarks, *longest]))


def has_background(suite: Plan, benchmark: str) -> bool:
    """Whether a benchmark scores a background class: as its run says, else as its YAML does."""
    for run in suite.runs.values():
        if run["benchmark"]["name"] == benchmark:
            return run["vocabulary"]["background"] is not None
    return config.load("benchmark", benchmark)["background"] is not None


def render(suite: Plan, shelf: Shelf, table: Table, folder: Path) -> list[Line]:
    """Write <folder>/<table>.csv, .md and .tex; returns the table's lines.

    The same bytes from the same runs.
    """
    lines = tidy(suite, shelf, table)
    sheet = sheet_of(suite, table, lines)
    texts = {"csv": to_csv(lines), "md": to_markdown(sheet), "tex": to_latex(sheet)}
    for kind, text in texts.items():
        with atomic_write(folder / f"{table.name}.{kind}", "w") as file:
            file.write(text)
    return lines


def report(name: str, lines: list[Line]) -> str:
    """One line about a table: how many of its cells are there."""
    gone, wanted, _ = missing(lines)
    return f"{name}: {wanted - gone} of {wanted} cells"


def summary(lines: list[Line]) -> str:
    """`N cells of M missing`, and below it the reasons, the most frequent first."""
    gone, wanted, reasons = missing(lines)
    out = [f"{gone} cells of {wanted} missing"]
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    out += [f"  {count}: {reason}" for reason, count in ordered[:SHOWN]]
    if len(ordered) > SHOWN:
        rest = sum(count for _, count in ordered[SHOWN:])
        out.append(f"  {rest}: {len(ordered) - SHOWN} other reasons, in the tables' footnotes")
    return "\n".join(out)


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """SUITE, --results and --data, which every step of publishing takes."""
    parser.add_argument("suite", metavar="SUITE", help=f"one of {', '.join(plan.suites())}")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (the suite's)")


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Render the tables of a suite and say what is missing."""
    parser = argparse.ArgumentParser(prog="cliptrase tables", description=__doc__)
    common_arguments(parser)
    parser.add_argument("--table", action="append", metavar="NAME", help="only this one; repeats")
    args = parser.parse_args(arguments)
    suite = plan.load(args.suite)
    for name in args.table or ():
        if name not in suite.tables:
            raise UserError(f"unknown table {name!r}; {nearest(name, suite.tables)}")
    shelf = Shelf(suite, args.results, args.data or Path(suite.data))
    everything: list[Line] = []
    for name, table in suite.tables.items():
        if not args.table or name in args.table:
            lines = render(suite, shelf, table, args.results / suite.suite / "tables")
            sys.stdout.write(report(name, lines) + "\n")
            everything += lines
    sys.stdout.write(summary(everything) + "\n")
