"""Renders every table of a suite from the runs that exist: csv, Markdown, LaTeX. Starts no run.
Where there is none, nothing is rendered, and the exit code is 1.

`python -m cliptrase.publish tables SUITE`, or `cliptrase tables SUITE`.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cliptrase import plan
from cliptrase.errors import UserError, counted, exit_on_user_error, nearest, printable
from cliptrase.files import user_path, write_text
from cliptrase.plan import Plan, Table
from cliptrase.plan.files import read_suite
from cliptrase.publish.rendered import remember
from cliptrase.publish.results import Shelf

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("csv", "md", "tex")
SHOWN = 12  # reasons of missing cells that are printed


def render(suite: Plan, shelf: Shelf, table: Table, folder: Path) -> "pd.DataFrame":
    """Write <folder>/<table>.csv, .md and .tex; returns the table's tidy frame.

    The same bytes from the same runs.
    """
    from cliptrase.publish.cells import tidy  # pandas: half a second, after what fails quickly
    from cliptrase.publish.layout import sheet_of
    from cliptrase.publish.render import to_csv, to_latex, to_markdown

    frame = tidy(suite, shelf, table)
    sheet = sheet_of(suite, table, frame)
    texts = to_csv(frame), to_markdown(sheet), to_latex(sheet)
    for kind, text in zip(KINDS, texts, strict=True):
        write_text(folder / f"{table.name}.{kind}", text)
    return frame


def summary(frame: "pd.DataFrame") -> str:
    """`N cells of M missing`, and below it the reasons, the most frequent first."""
    from cliptrase.publish.cells import missing

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

    from cliptrase.publish.cells import missing

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
