"""What the page says of a table: its cells as texts, and cumulative rows as waterfalls."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pandas as pd

from cliptrase.plan import Plan, Table
from cliptrase.plan.files import read_table
from cliptrase.publish.run_folders import Facts
from cliptrase.publish.tables.captions import NEAR_BEST, PAIRED
from cliptrase.publish.tables.layout import FLOPS, Panel, sheet_of
from cliptrase.publish.tables.render import (
    ABSENT,
    interval,
    number,
    sections_of,
    to_csv,
    to_latex,
    to_markdown,
)

HOW_TO_READ = (
    "Per cent; the interval is a 95 % bootstrap over images, and a difference is paired, image by "
    "image. Bold: the best of its column among the rows it stands with, or of the grid."
)


def table_facts(suite: Plan, table: Table, frame: pd.DataFrame) -> Facts:
    """A table: its panels, what stands below it, and its three files."""
    sheet = sheet_of(suite, table, frame)
    return {
        "name": table.name,
        "title": table.title,
        "facts": sheet.facts,
        "panels": [_panel(panel, table.kind == "grid") for panel in sheet.panels],
        "notes": [(mark, text) for text, mark in sheet.notes.items()],
        "remarks": [HOW_TO_READ, *(each for each in sheet.remarks[1:] if PAIRED not in each)],
        "files": {
            "CSV": to_csv(frame),
            "Markdown": to_markdown(sheet),
            "LaTeX": to_latex(sheet),
        },
    }


def _value(cell: Any) -> str:
    """The value of a cell, of a quoted one what the paper prints; "" where none is meant to be."""
    if cell.kind == "quoted":
        return str(cell.published)
    if pd.isna(cell.value):
        return "" if cell.kind == "absent" else ABSENT
    return number(cell.value) + "×" * (cell.metric == FLOPS)


def _below(cell: Any) -> Iterator[tuple[str, str]]:
    """What stands below the value of a cell, each with its marks; "" for what it does not have: its
    interval, the difference, what the paper prints."""
    yield interval(cell.ci_low, cell.ci_high), ""
    gap = "no difference" * bool(cell.diff_reason)
    if not pd.isna(cell.diff):
        gap = f"{number(cell.diff, True)} {interval(cell.diff_low, cell.diff_high, True)}".strip()
        gap += " not significant" * bool(cell.diff_low <= 0 <= cell.diff_high)
    yield gap, cell.diff_marks
    if cell.published and cell.kind != "quoted":
        delta = "" if pd.isna(cell.delta) else f" ({number(cell.delta, True)})"
        yield f"paper {cell.published}{delta}", cell.printed_marks


def _panel(panel: Panel, heat: bool) -> Facts:
    cells = {(cell.down, cell.across): cell for cell in panel.cells.itertuples()}
    values = panel.cells["value"]
    low, span = values.min(), values.max() - values.min()

    def shown(cell: Any) -> Facts:
        value = _value(cell)
        return {
            "text": value,
            "best": bool(cell.best),
            "marks": cell.marks,
            "more": [
                (text, marks.replace(NEAR_BEST, "").strip(","))
                for text, marks in _below(cell)
                if text
            ],
            "run": cell.run if value != ABSENT else "",
            "value": None if pd.isna(cell.value) else float(cell.value),
            "heat": round((cell.value - low) / span, 2) if heat and span > 0 else None,
        }

    return {
        "title": panel.title,
        "corner": panel.corner,
        "columns": panel.columns,
        "sections": [
            (
                title,
                [
                    {
                        "label": row.label,
                        "marks": row.label_marks,
                        "to": row.to,
                        "cells": [
                            shown(cell) if (cell := cells.get((row.down, across))) else None
                            for across in range(len(panel.columns))
                        ],
                    }
                    for row in rows
                ],
            )
            for title, rows in sections_of(panel)
        ],
    }


def walks(table: Table, frame: pd.DataFrame) -> Iterator[Facts]:
    """The cumulative groups of a table as waterfalls, one a column: each row changes the value of
    the row above. The bars are shares of the largest value."""
    spec = read_table(table.name)
    names = [group.name for group in getattr(spec, "groups", ()) if group.cumulative]
    lines = frame[frame["group"].isin(names) & frame["kind"].isin(["run", "avg"])]
    lines = lines[lines["value"].notna() & (lines["metric"] == table.metrics[0])]
    columns = list(lines.groupby(["group", "column"], sort=False))
    for (group, column), steps in sorted(columns, key=lambda each: each[0][1] != "avg"):
        top = steps["value"].max() or 1.0
        values = [0.0, *steps["value"]]
        yield {
            "title": f"{table.title}: {group}, {column}",
            "open": column == "avg",
            "metric": table.metrics[0],
            "steps": [
                {
                    "label": line.row,
                    "value": number(line.value),
                    "change": "" if pd.isna(line.diff) else number(line.diff, True),
                    "interval": interval(line.diff_low, line.diff_high, True),
                    "zero": bool(line.diff_low <= 0 <= line.diff_high),
                    "left": round(100 * min(before, after) / top, 2),
                    "width": round(max(0.3, 100 * abs(after - before) / top), 2),
                    "kind": "whole" if not before else "down" if after < before else "up",
                }
                for line, (before, after) in zip(steps.itertuples(), pairwise(values), strict=True)
            ],
        }
