"""A table as the paper sets it: the lines of the tidy frame in panels, sections, rows and columns.

Each placed line has its marks: the best of its column, its footnotes. `render` pivots the panels
and writes them as Markdown and LaTeX.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from cliptrase import config
from cliptrase.config.error_names import CATEGORIES, OF_LOGITS
from cliptrase.config.kinds import has_background
from cliptrase.config.metric_names import FALLING
from cliptrase.plan import Plan, Table
from cliptrase.plan.files import SUMMARIES
from cliptrase.publish.tables.captions import NEAR_BEST, facts, reading, remarks_of
from cliptrase.publish.tables.comparable import comparables
from cliptrase.publish.tables.printed import read_published

WITH, WITHOUT = "with background", "without background"
FLOPS, MIN_SAMPLES = "flops", "min_samples"
QUOTED = "As the paper prints it: each row by the protocol and with the model of its own work"
DIGITS = 2  # decimals of a per cent in a table; a longer value is in the CSV

METRIC_HEADINGS = {
    **dict.fromkeys(CATEGORIES, "wrong pixels"),
    "true_regions": "mIoU, told the truth",
    "true_names": "mIoU, told the truth",
    **dict.fromkeys(OF_LOGITS, "logits"),
}
UNRANKED = (FLOPS, *FALLING)  # of which the highest is not the best
Notes = dict[str, str]  # footnote → its mark


class Column(NamedTuple):
    """`key` is a benchmark, "avg", "flops" or a grid's min_samples; `group` the heading above."""

    key: str
    label: str
    group: str = ""


@dataclass(frozen=True, eq=False)
class Panel:
    """A block of rows under its own head: numbers that may stand side by side.

    `corner` is what the first column lists. `cells` has the tidy frame's columns and those of its
    place: `section` (a title, or nothing), `label` and `label_marks` (of the row), `to` (the row
    that its differences are to), `down` and `across` (row and column, counted from 0) and `best`
    (is it the best of its column?). Its footnotes, separated by commas, are `marks` of the value,
    `diff_marks` of the difference and `printed_marks` of what the paper prints.
    """

    title: str
    corner: str
    columns: tuple[Column, ...]
    cells: pd.DataFrame


@dataclass(frozen=True)
class Sheet:
    """A whole table. `notes`: footnote → its mark, in order of appearance; `remarks`: unmarked
    lines below the table."""

    name: str
    title: str
    facts: tuple[str, ...]  # suite, model, protocol, rule, size: one short phrase each
    panels: list[Panel]
    notes: Notes
    remarks: list[str]


def _marks(notes: Notes, signs: Iterable[str], footnotes: Iterable[str]) -> str:
    """Signs and the letters of footnotes, "" being none; a new footnote gets a new letter."""
    marks = list(signs)
    for text in filter(None, footnotes):
        repeats, letter = divmod(len(notes), 26)
        letters = "abcdefghijklmnopqrstuvwxyz"[letter] * (repeats + 1)
        marks.append(notes.setdefault(text, letters))
    return ",".join(marks)


def sheet_of(plan: Plan, table: Table, frame: pd.DataFrame) -> Sheet:
    """The table as it is typeset, from the tidy frame of its cells."""
    notes: Notes = {}
    remarks: list[str] = []
    if table.kind == "grid":
        panels, remarks = _grid(frame, table.chosen, notes)
    else:  # a panel for each protocol and rule, and one for quoted rows
        blocks = [(each.title, each.lines) for each in comparables(frame)]
        quoted = frame[frame["kind"] == "quoted"]
        blocks += [(QUOTED, quoted)] * (len(quoted) > 0)
        if table.across == "metrics":
            panels = [_metrics_panel(title, lines, notes) for title, lines in blocks]
        else:
            headings = _headings(plan, table)
            panels = [_panel(title, lines, headings, notes) for title, lines in blocks]
    remarks = [reading(table.kind), *remarks, *remarks_of(frame)]
    return Sheet(table.name, table.title, facts(plan.suite, frame), panels, notes, remarks)


def _headings(plan: Plan, table: Table) -> dict[str, str]:
    """Benchmark → the heading above its column: those with a background first, as in the paper.

    The table's benchmarks; then, for quoted rows, those of the paper's longest row.
    """
    rows: dict[str, list[str]] = {}
    for name, row, benchmark, _ in read_published():
        if name == table.name and benchmark not in ("", "avg"):
            rows.setdefault(row, []).append(benchmark)
    names = [*table.benchmarks, *max(rows.values(), key=len, default=[])]
    scored = {run.benchmark.name: has_background(run) for run in plan.runs.values()}
    for name in names:  # those of quoted rows may have no run
        if name not in scored:
            scored[name] = config.load("benchmark", name)["background"] is not None
    headings = {name: WITH if scored[name] else WITHOUT for name in names}
    return dict(sorted(headings.items(), key=lambda item: item[1] == WITHOUT))


def _panel(title: str, lines: pd.DataFrame, headings: dict[str, str], notes: Notes) -> Panel:
    """Rows × benchmarks, a section for each metric and group of rows; FLOPs stand in each."""
    metrics = [metric for metric in lines["metric"].unique() if metric != FLOPS]
    groups = list(lines["group"].unique())
    sections = []
    for metric, group in itertools.product(metrics, groups):
        section = lines[(lines["group"] == group) & lines["metric"].isin([metric, FLOPS])]
        if (section["metric"] == metric).any():
            titles = [metric] * (len(metrics) > 1) + [group] * (len(groups) > 1)
            sections.append(section.assign(section=" · ".join(titles)))
    cells = pd.concat(sections)
    cells["place"] = cells["column"].mask(cells["metric"] == FLOPS, FLOPS)
    columns = _columns(set(cells["place"]), headings)
    cells = _placed(cells.assign(label=cells["row"]), columns)
    cells["best"] = _is_best(cells, ["section", "across"])
    return Panel(title, "", columns, _with_marks(cells, notes))


def _metrics_panel(title: str, lines: pd.DataFrame, notes: Notes) -> Panel:
    """Rows × metrics, a section for each benchmark and group of rows."""
    groups = lines["group"].nunique() > 1
    places = lines["column"] + (" · " + lines["group"] if groups else "")
    cells = lines.assign(section=places, label=lines["row"], place=lines["metric"])
    ordered = pd.Categorical(cells["column"], cells["column"].unique(), ordered=True)
    cells = cells.iloc[ordered.argsort(kind="stable")]
    columns = tuple(
        Column(metric, metric, METRIC_HEADINGS.get(metric, ""))
        for metric in lines["metric"].unique()
    )
    cells = _placed(cells, columns)
    cells["best"] = _is_best(cells, ["section", "across"])
    return Panel(title, "", columns, _with_marks(cells, notes))


def _columns(places: set[str], headings: dict[str, str]) -> tuple[Column, ...]:
    """Benchmarks under their headings, avg, FLOPs."""
    shown = {name: heading for name, heading in headings.items() if name in places}
    several = len(set(shown.values())) > 1
    columns = [Column(name, name, heading if several else "") for name, heading in shown.items()]
    columns += [Column("avg", "avg")] * ("avg" in places)
    columns += [Column(FLOPS, "FLOPs")] * (FLOPS in places)
    return tuple(columns)


def _grid(frame: pd.DataFrame, chosen: str, notes: Notes) -> tuple[list[Panel], list[str]]:
    """eps down, min_samples across; the chosen point carries a dagger, the best cell is bold.

    A panel for each benchmark and metric, and a remark about the best cell of each.
    """
    remarks = [f"† The chosen point, {chosen}."] if chosen else []
    panels = []
    kinds = list(frame.groupby(["benchmark", "metric"], sort=False))
    for kind, lines in kinds:
        title = ", ".join(kind) if len(kinds) > 1 else ""
        cells = lines[lines["kind"] != "best"].sort_values("eps", kind="stable")
        labels, places = cells["eps"].map("{:g}".format), cells["min_samples"].map(str)
        cells = cells.assign(section="", label=labels, place=places)
        across = map(str, sorted(cells["min_samples"].unique()))
        columns = tuple(Column(value, value, MIN_SAMPLES) for value in across)
        cells = _placed(cells, columns)
        cells["best"] = _is_best(cells, ["section"])
        panels.append(Panel(title, "eps", columns, _with_marks(cells, notes, chosen)))
        best = lines[lines["kind"] == "best"]
        remarks += [_best_remark(title, line) for line in best.itertuples()]
    return panels, remarks


def _best_remark(title: str, line: Any) -> str:
    text = f"{line.value:.{DIGITS}f} at {line.best_of}"
    text = f"not known, {line.reason}" if pd.isna(line.value) else text
    text += f"; the paper prints {line.published}" if line.published else ""
    text += f" ({line.note})" if line.note else ""
    return f"Best cell{' of ' if title else ''}{title}: {text}."


def _placed(cells: pd.DataFrame, columns: tuple[Column, ...]) -> pd.DataFrame:
    """The cells that have a column, row by row: sections and rows in order of appearance."""
    positions = {column.key: index for index, column in enumerate(columns)}
    cells = cells[cells["place"].isin(positions)]
    down = cells.groupby(["section", "label"], sort=False).ngroup()
    cells = cells.assign(down=down, across=cells["place"].map(positions))
    return cells.sort_values(["down", "across"], ignore_index=True)


def _is_best(cells: pd.DataFrame, place: list[str]) -> pd.Series:
    """Whether a value is, as printed, the highest of its place, where there are at least two to
    compare: never of UNRANKED and summaries, nor of runs by different code or under different
    rules."""
    numbers = cells[cells["value"].notna() & ~cells["metric"].isin(UNRANKED)]
    numbers = numbers[~numbers["kind"].isin(SUMMARIES)]
    numbers = numbers.assign(
        printed=[round(value, DIGITS) for value in numbers["value"]],
        made=numbers["code"] + " " + numbers["rule"],
    )
    places = numbers.groupby(place)
    comparable = (places["made"].transform("size") > 1) & (places["made"].transform("nunique") == 1)
    best = comparable & (numbers["printed"] == places["printed"].transform("max"))
    return best.reindex(cells.index, fill_value=False)


def _with_marks(cells: pd.DataFrame, notes: Notes, chosen: str = "") -> pd.DataFrame:
    """The cells with the marks of their rows and their own; `chosen`: a grid's marked point."""
    to, label_marks, marks = list[str](), list[str](), list[str]()
    for _, cells_of_row in itertools.groupby(cells.itertuples(), lambda cell: cell.down):
        row = list(cells_of_row)
        versus = [cell.versus for cell in row if cell.versus]
        to += [max(versus, key=versus.count, default="")] * len(row)
        signs = NEAR_BEST * _row_is_near_best(row)
        label_marks += [_marks(notes, signs, dict.fromkeys(c.row_note for c in row))] * len(row)
        for cell in row:
            signs = "†" * (cell.row == chosen) + NEAR_BEST * cell.near_best
            marks.append(_marks(notes, signs, _footnotes(cell)))
    cells = cells.assign(to=to, label_marks=label_marks, marks=marks)
    on_printed = cells["note"].mask(cells["kind"] == "quoted", "")
    return cells.assign(
        diff_marks=[_difference_marks(notes, cell) for cell in cells.itertuples()],
        printed_marks=[_marks(notes, "", [note]) for note in on_printed],
    )


def _footnotes(cell: Any) -> Iterable[str]:
    """The footnotes of a value."""
    compares = cell.near_best or pd.isna(cell.diff)
    reason, note = cell.reason * pd.isna(cell.value), cell.note * (cell.kind == "quoted")
    return reason, cell.versions_note * compares, note


def _difference_marks(notes: Notes, cell: Any) -> str:
    """Whether a difference is not significant, and its footnotes; or why there is none."""
    if pd.isna(cell.diff):
        return _marks(notes, "", [cell.diff_reason])
    signs = NEAR_BEST * (cell.diff_low <= 0 <= cell.diff_high)
    elsewhere = f"compared with {cell.versus}" * (cell.versus != cell.to)
    return _marks(notes, signs, [elsewhere, cell.versions_note])


def _row_is_near_best(row: Iterable[Any]) -> bool:
    """Whether a row is as good as the best: its average is, or its only number."""
    near_best = {cell.place: bool(cell.near_best) for cell in row if cell.place != FLOPS}
    return near_best.get("avg", [*near_best.values()] == [True])
