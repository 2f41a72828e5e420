"""Lines of a table, and what of them a test looks at."""

from __future__ import annotations

from pathlib import Path

from cliptrase.plan import Plan
from cliptrase.publish.cells import Line, tidy
from cliptrase.publish.layout import Panel, Sheet, arrange
from cliptrase.publish.runs import Shelf

DISCREPANCIES, PEERS = "table_discrepancies", "table_peers"


def lines_of(suite: Plan, results: Path, table: str) -> list[Line]:
    return tidy(suite, Shelf(suite, results, results / "no-data"), suite.tables[table])


def pick(lines: list[Line], row: str, column: str) -> Line:
    (line,) = [one for one in lines if (one.row, one.column) == (row, column)]
    return line


def markdown_row(text: str, row: str) -> list[str]:
    """The cells of a row of the first table that has it."""
    label = row.replace("[", r"\[").replace("]", r"\]")
    found = next(line for line in text.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in found.split(" | ")[1:]]


def sheet_from(lines: list[Line]) -> Sheet:
    order = [name for name in names_of(lines) if name != "avg"]
    return arrange(
        "t", "T", lines, suite="s", kind="metrics", order=order, background=lambda _: False
    )


def names_of(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line.column for line in lines))


def lines_in(panel: Panel) -> list[Line]:
    entries = (e for section in panel.sections for row in section.rows for e in row.entries)
    return [entry.line for entry in entries if entry]
