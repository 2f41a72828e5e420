"""A table as the paper sets it: cells placed in panels, sections, rows and columns, with footnotes.

`arrange` knows nothing of Markdown or LaTeX; `render` knows nothing of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cliptrase.publish.cells import Line
from cliptrase.publish.frames import frames, titles
from cliptrase.publish.remarks import NEAR_BEST, facts, reading, remarks_of, unique

WITH, WITHOUT = "with background", "without background"
FLOPS, MIN_SAMPLES = "flops", "min_samples"
QUOTED = "As the paper prints it: each row by the protocol and with the model of its own work"
DIGITS = 2  # decimals of a per cent in a table; a longer value is in the CSV


@dataclass(frozen=True)
class Column:
    """`key` is a benchmark, "avg", "flops" or a grid's min_samples; `group` the heading above."""

    key: str
    label: str
    group: str = ""


@dataclass(frozen=True)
class Entry:
    """One printed cell: its line of the CSV, whether it is the best of its column, its marks."""

    line: Line
    best: bool = False
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableRow:
    label: str
    versus: str  # the row that the differences are to, or ""
    entries: tuple[Entry | None, ...]
    marks: tuple[str, ...] = ()  # ≈: its average, or its only number, may be as good as the best


@dataclass(frozen=True)
class Section:
    title: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Panel:
    """A block of rows under its own head: numbers of one protocol under one choice of its settings,
    and of one rule."""

    title: str
    corner: str  # what the first column lists
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Sheet:
    """A whole table. `notes`: mark → text, in order of appearance; `remarks`: unmarked lines."""

    name: str
    title: str
    facts: tuple[str, ...]  # suite, model, protocol, rule, size: one short phrase each
    panels: tuple[Panel, ...]
    notes: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


@dataclass
class _Notes:
    """Gives every different footnote one letter."""

    marks: dict[str, str] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        if text not in self.marks:
            count = len(self.marks)
            letters = "abcdefghijklmnopqrstuvwxyz"
            self.marks[text] = letters[count % 26] * (count // 26 + 1)
        return self.marks[text]


def arrange(
    name: str,
    title: str,
    lines: list[Line],
    *,
    suite: str,
    kind: str,
    order: Sequence[str],
    background: Callable[[str], bool],
) -> Sheet:
    """Place the `lines` of one table.

    `kind`: "metrics" or "grid". `order`: benchmarks in the order of their columns.
    `background(benchmark)`: does it score a background class?
    """
    notes = _Notes()
    if kind == "grid":
        panels, remarks = _grid(lines, notes)
    else:
        benchmarks = [name for name in order if background(name)]
        groups = dict.fromkeys(benchmarks, WITH)
        groups |= dict.fromkeys((name for name in order if name not in groups), WITHOUT)
        panels, remarks = _metrics(lines, notes, groups), []
    return Sheet(
        name=name,
        title=title,
        facts=facts(suite, lines),
        panels=tuple(panels),
        notes=tuple((mark, text) for text, mark in notes.marks.items()),
        remarks=(reading(kind), *remarks, *remarks_of(lines)),
    )


def _metrics(lines: list[Line], notes: _Notes, groups: dict[str, str]) -> list[Panel]:
    """Rows × benchmarks, a panel for each protocol and rule, and one for quoted rows.

    `groups`: benchmark → its heading, in the order of the columns.
    """
    found = frames(lines)
    panels = [
        _panel(title, chosen, notes, groups)
        for title, chosen in zip(titles(list(found)), found.values(), strict=True)
    ]
    quoted = [line for line in lines if line.kind == "quoted"]
    if quoted:
        panels.append(_panel(QUOTED, quoted, notes, groups))
    return panels


def _panel(title: str, lines: list[Line], notes: _Notes, groups: dict[str, str]) -> Panel:
    columns = _columns(lines, groups)
    metrics = unique(line.metric for line in lines if line.metric != FLOPS)
    parts = unique(line.group for line in lines)
    sections = []
    for metric in metrics:
        for part in parts:
            held = [line for line in lines if line.group == part and line.metric in (metric, FLOPS)]
            if any(line.metric == metric for line in held):
                titles = [metric] * (len(metrics) > 1) + [part] * (len(parts) > 1)
                sections.append(_section(" · ".join(titles), held, columns, notes))
    return Panel(title, "", columns, tuple(sections))


def _columns(lines: list[Line], groups: dict[str, str]) -> tuple[Column, ...]:
    """Benchmarks with a background first, then those without (as in the paper), avg, FLOPs."""
    present = {line.column for line in lines}
    shown = {name: group for name, group in groups.items() if name in present}
    headed = len(set(shown.values())) > 1
    columns = [Column(name, name, group if headed else "") for name, group in shown.items()]
    if "avg" in present:
        columns.append(Column("avg", "avg"))
    if any(line.metric == FLOPS for line in lines):
        columns.append(Column(FLOPS, "FLOPs"))
    return tuple(columns)


def _section(title: str, lines: list[Line], columns: tuple[Column, ...], notes: _Notes) -> Section:
    rows = []
    for row in unique(line.row for line in lines):
        placed = {
            FLOPS if line.metric == FLOPS else line.column: line
            for line in lines
            if line.row == row
        }
        compared = [line.versus for line in placed.values() if line.versus]
        versus = max(compared, key=compared.count, default="")
        texts = unique(line.row_note for line in placed.values() if line.row_note)
        marks = [NEAR_BEST] * _near_best(placed) + [notes.mark(text) for text in texts]
        entries = tuple(
            _entry(placed[column.key], notes, versus) if column.key in placed else None
            for column in columns
        )
        rows.append(TableRow(row, versus, entries, tuple(marks)))
    best = [_best(row.entries[i] for row in rows) for i in range(len(columns))]
    return Section(title, tuple(_with_best(row, best) for row in rows))


def _near_best(placed: dict[str, Line]) -> bool:
    """Whether a row is as good as the best: its average is, or its only number."""
    numbers = [line for key, line in placed.items() if key != FLOPS]
    return placed["avg"].near_best if "avg" in placed else [n.near_best for n in numbers] == [True]


def _grid(lines: list[Line], notes: _Notes) -> tuple[list[Panel], list[str]]:
    """eps down, min_samples across; the chosen point carries a dagger, the best cell is bold.

    A panel for each benchmark and metric, and a remark about the best cell of each.
    """
    chosen = next((line.versus for line in lines if line.versus), "")
    remarks = [f"† The chosen point, {chosen}."] if chosen else []
    panels = []
    kinds = unique((line.benchmark, line.metric) for line in lines)
    for kind in kinds:
        own = [line for line in lines if (line.benchmark, line.metric) == kind]
        title = ", ".join(kind) if len(kinds) > 1 else ""
        cells = {grid_point(line.row): line for line in own if line.kind != "best"}
        panels.append(_grid_panel(title, cells, chosen, notes))
        remarks += [_best_remark(title, line) for line in own if line.kind == "best"]
    return panels, remarks


def _grid_panel(
    title: str, cells: dict[tuple[float, int], Line], chosen: str, notes: _Notes
) -> Panel:
    samples = sorted({point[1] for point in cells})
    columns = tuple(Column(f"{value}", f"{value}", MIN_SAMPLES) for value in samples)
    rows = []
    for eps in sorted({point[0] for point in cells}):
        entries = []
        for value in samples:
            line = cells.get((eps, value))
            entry = None if line is None else _entry(line, notes)
            if entry is not None and entry.line.row == chosen:
                entry = replace(entry, marks=("†", *entry.marks))
            entries.append(entry)
        rows.append(TableRow(f"{eps:g}", "", tuple(entries)))
    best = _best(entry for row in rows for entry in row.entries)
    rows = [_with_best(row, [best] * len(columns)) for row in rows]
    return Panel(title, "eps", columns, (Section("", tuple(rows)),))


def grid_point(row: str) -> tuple[float, int]:
    """`eps=0.7 min_samples=3` → (0.7, 3)."""
    values = dict(part.split("=", 1) for part in row.split())
    return float(values["eps"]), int(values["min_samples"])


def _best_remark(title: str, line: Line) -> str:
    text = f"Best cell{' of ' if title else ''}{title}: "
    if line.value is None:
        text += f"not known, {line.reason}"
    else:
        text += f"{line.value:.{DIGITS}f} at {line.best_of}"
    if line.published:
        text += f"; the paper prints {line.published}"
    if line.note:
        text += f" ({line.note})"
    return text + "."


def _entry(line: Line, notes: _Notes, versus: str = "") -> Entry:
    """A cell with its marks; `versus`: the row that most of its row is compared with."""
    texts = [line.reason] if line.value is None and line.reason else []
    texts += [line.diff_reason] if line.diff_reason else []
    if line.diff is not None and versus and line.versus != versus:
        texts.append(f"compared with {line.versus}")
    texts += [line.note] if line.note else []
    marks = tuple(notes.mark(text) for text in texts)
    return Entry(line, marks=(NEAR_BEST, *marks) if line.near_best else marks)


def _best(entries: Iterable[Entry | None]) -> float | None:
    """The highest value as printed, where there are at least two to compare: never of FLOPs, nor of
    runs by different code or under different rules."""
    found = [
        (entry.line.value, (entry.line.code, entry.line.rule))
        for entry in entries
        if entry is not None and entry.line.value is not None and entry.line.metric != FLOPS
    ]
    comparable = len(found) > 1 and len({made for _, made in found}) == 1
    return round(max(value for value, _ in found), DIGITS) if comparable else None


def _with_best(row: TableRow, best: list[float | None]) -> TableRow:
    entries = [
        replace(entry, best=True)
        if entry is not None
        and top is not None
        and entry.line.value is not None
        and round(entry.line.value, DIGITS) == top
        else entry
        for entry, top in zip(row.entries, best, strict=True)
    ]
    return replace(row, entries=tuple(entries))
