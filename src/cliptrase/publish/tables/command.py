"""Renders every table of a suite from the runs that exist: csv, Markdown, LaTeX. Starts no run.
Where there is none, nothing is rendered, and the exit code is 1.

`python -m cliptrase.publish tables SUITE`, or `cliptrase tables SUITE`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cliptrase.errors import UserError, counted, exit_on_user_error, nearest, printable
from cliptrase.files import write_text
from cliptrase.plan import Plan, Table
from cliptrase.plan.files import read_suite
from cliptrase.publish.command_line import add_benchmarks, command_line, planned
from cliptrase.publish.digests import remember
from cliptrase.publish.results import Shelf

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("csv", "md", "tex")
SHOWN = 12  # reasons of missing cells that are printed


def render(suite: Plan, shelf: Shelf, table: Table, folder: Path) -> "pd.DataFrame":
    """Write <folder>/<table>.csv, .md and .tex; returns the table's tidy frame.

    The same bytes from the same runs.
    """
    from cliptrase.publish.tables.cells import (
        tidy,  # pandas: half a second, after what fails quickly
    )
    from cliptrase.publish.tables.layout import sheet_of
    from cliptrase.publish.tables.render import to_csv, to_latex, to_markdown

    frame = tidy(suite, shelf, table)
    sheet = sheet_of(suite, table, frame)
    texts = to_csv(frame), to_markdown(sheet), to_latex(sheet)
    for kind, text in zip(KINDS, texts, strict=True):
        write_text(folder / f"{table.name}.{kind}", text)
    return frame


def summary(frame: "pd.DataFrame") -> str:
    """`N cells of M missing`, and below it the reasons, the most frequent first."""
    from cliptrase.publish.tables.cells import missing

    gone, wanted, reasons = missing(frame)
    out = [f"{counted(gone, 'cell')} of {wanted} missing"]
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    out += [f"  {count}: {reason}" for reason, count in ordered[:SHOWN]]
    if len(ordered) > SHOWN:
        rest = sum(count for _, count in ordered[SHOWN:])
        out.append(
            f"  {rest}: {counted(len(ordered) - SHOWN, 'other reason')}, in the tables' footnotes"
        )
    return "\n".join(out)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `cliptrase tables`."""
    parser.add_argument("--table", action="append", metavar="NAME", help="only this one; repeats")
    add_benchmarks(parser)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Render the tables of a suite and say what is missing."""
    args = command_line("tables", __doc__, add_options).parse_args(arguments)
    tables = read_suite(args.suite).tables
    for name in args.table or ():
        if name not in tables:
            raise UserError(f"unknown table {name!r}; {nearest(name, tables)}")
    suite, shelf = planned(args)
    import pandas as pd

    from cliptrase.publish.tables.cells import missing

    frames, folder = [], args.results / suite.suite / "tables"
    names = [name for name in suite.tables if name in (args.table or suite.tables)]
    for name in names:
        frame = render(suite, shelf, suite.tables[name], folder)
        gone, wanted, _ = missing(frame)
        print(f"{name}: {wanted - gone} of {counted(wanted, 'cell')}")
        frames.append(frame)
    files = (folder / f"{name}.{kind}" for name in names for kind in KINDS)
    remember(folder, files, keep=bool(args.table))
    print(printable(summary(pd.concat(frames))))
