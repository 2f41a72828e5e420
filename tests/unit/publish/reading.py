"""Lines of a table, and what of them a test looks at."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pandas as pd

from cliptrase.plan import Plan
from cliptrase.publish.results import Shelf
from cliptrase.publish.tables.cells import FIELDS, Line, tidy
from cliptrase.publish.tables.layout import Panel

DISCREPANCIES, PEERS = "table_discrepancies", "table_peers"


def frame_of(suite: Plan, results: Path, table: str, data: Path | None = None) -> pd.DataFrame:
    shelf = Shelf(suite, results, data or results / "no-data")
    return tidy(suite, shelf, suite.tables[table])


def lines_of(suite: Plan, results: Path, table: str, data: Path | None = None) -> list[Line]:
    return lines_in(frame_of(suite, results, table, data))


def lines_in(frame: pd.DataFrame) -> list[Line]:
    """The lines of a tidy frame; None where there is no number."""
    values = frame[FIELDS].astype(object).where(frame[FIELDS].notna(), None)
    return [Line(**line) for line in values.to_dict("records")]


def pick(lines: list[Line], row: str, column: str) -> Line:
    (line,) = [one for one in lines if (one.row, one.column) == (row, column)]
    return line


def markdown_tables(text: str) -> list[tuple[str, list[list[str]]]]:
    """The line above every table of a Markdown text, and its rows of cells: head, rule, body."""
    bars = re.compile(r"(?<!\\)\|")
    return [
        (above, [[x.strip() for x in bars.split(row)[1:-1]] for row in block.splitlines()])
        for above, block in pairwise(text.split("\n\n"))
        if block.startswith("|")
    ]


def table_titled(text: str, title: str) -> list[list[str]]:
    """The only table of a Markdown text whose bold title begins so."""
    (table,) = [rows for above, rows in markdown_tables(text) if above.startswith(f"**{title}")]
    return table


def markdown_row(text: str, row: str) -> list[str]:
    """The cells of a row of the first table that has it."""
    label = row.replace("[", r"\[").replace("]", r"\]")
    found = next(line for line in text.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in found.split(" | ")[1:]]


def names_of(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line.column for line in lines))


def marked_best(panel: Panel, column: str) -> list[str]:
    """The rows whose number in a column is bold."""
    cells = panel.cells[panel.cells["best"] & (panel.cells["place"] == column)]
    return list(cells["row"])
