"""From the plan of a suite and the runs that exist to tidy lines: one cell of a table each.

A cell whose run is missing or cannot be trusted has no value but a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cliptrase import config
from cliptrase.plan import Cell, Plan, Row, Table
from cliptrase.publish.published import Key, Printed, read_published
from cliptrase.publish.runs import Run, Shelf, mean_resampled, mean_value
from cliptrase.runs import bootstrap, store

COLUMNS = (
    "table",
    "row",
    "benchmark",
    "metric",
    "image_size",
    "value",
    "ci_low",
    "ci_high",
    "versus",
    "diff",
    "diff_low",
    "diff_high",
    "published",
    "delta",
    "model",
    "protocol",
    "vocabulary",
    "rule",
    "run",
)
SHORT = 10  # digits of a digest, as of a commit


@dataclass(frozen=True)
class Line:
    """One cell: the CSV's columns, then what only the typeset tables tell.

    Values are per cent (flops: times the group's first row); `published` keeps the printed digits.
    `kind` is the plan's: run, avg, flops, quoted, best or absent. `benchmark` is what was scored,
    `column` where it stands in the table. `reason` says why there is no value, `diff_reason` why
    there is no difference though there are two values, `note` where the paper contradicts itself.
    `protocol` is as `plan_settings.protocol_of` writes it; `short_side` is that of whole pictures.
    `row_note` is the footnote of the row, `best_of` the row that `best` stands for. `near_best`:
    the difference to the best of the column is not significant (only where the table asks).
    """

    table: str
    row: str
    benchmark: str
    metric: str
    image_size: int
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    versus: str = ""
    diff: float | None = None
    diff_low: float | None = None
    diff_high: float | None = None
    published: str = ""
    delta: float | None = None
    model: str = ""
    protocol: str = ""
    vocabulary: str = ""
    rule: str = ""
    run: str = ""
    kind: str = "run"
    column: str = ""
    near_best: bool = False
    group: str = ""
    reason: str = ""
    diff_reason: str = ""
    note: str = ""
    row_note: str = ""
    short_side: int | None = None
    stride: int | None = None
    best_of: str = ""
    images: int | None = None
    commit: str = ""
    code: str = ""

    @property
    def whisker(self) -> tuple[float, float]:
        """The ends of the interval, each the value itself where there is none."""
        value = 0.0 if self.value is None else self.value
        low, high = (value if end is None else end for end in (self.ci_low, self.ci_high))
        return low, high


def tidy(plan: Plan, shelf: Shelf, table: Table) -> list[Line]:
    """The lines of one table, in the plan's order."""
    return _Tidier(plan, shelf, read_published()).table(table)


class _Tidier:
    def __init__(self, plan: Plan, shelf: Shelf, printed: dict[Key, Printed]) -> None:
        self.plan, self.shelf, self.printed = plan, shelf, printed

    def table(self, table: Table) -> list[Line]:
        rows = {(row.group, row.name): row for row in table.rows}
        lines = [
            self._line(row, rows.get((row.group, cell.versus)), cell)
            for row in table.rows
            for cell in row.cells
        ]
        if not table.compare_to_best:
            return lines
        cells = [cell for row in table.rows for cell in row.cells]
        return self._near_best(lines, cells)

    def _line(self, row: Row, versus: Row | None, cell: Cell) -> Line:
        line = Line(
            cell.table,
            cell.row,
            cell.benchmark,
            cell.metric,
            cell.image_size,
            kind=cell.kind,
            column=cell.column,
            group=row.group,
            row_note=row.note,
        )
        if cell.kind != "quoted":
            line = _with_settings(line, cell)
        if cell.kind == "absent":
            return replace(line, reason=cell.reason)
        printed = self.printed.get((cell.table, cell.row, cell.benchmark, cell.metric))
        if cell.kind == "quoted":
            assert printed is not None  # the plan makes quoted cells from the same file
            return replace(line, published=printed.text, note=printed.note)
        other = None if versus is None else _counterpart(versus, cell)
        match cell.kind:
            case "flops":
                line = self._flops(line, cell)
            case "avg":
                line = self._average(line, cell, other)
            case "best":
                line = self._best(line, cell, other)
            case _:
                line = self._run(line, cell.run, () if other is None else (other.run,))
        if other is not None:
            line = replace(line, versus=other.row)
        of_this_size = printed is not None and printed.image_size in (None, cell.image_size)
        if printed is not None and of_this_size and self.plan.published:
            delta = None if line.value is None else line.value - printed.value
            line = replace(line, published=printed.text, delta=delta, note=printed.note)
        return line

    def _run(self, line: Line, name: str, versus: tuple[str, ...]) -> Line:
        run, reason = self.shelf.find(name)
        line = replace(line, run=name)
        if run is None:
            return replace(line, reason=reason)
        value = run.value(line.metric)
        if value is None:
            return replace(line, reason=f"{run.folder}: no pixel was scored", images=run.images)
        low, high = run.interval(line.metric)
        line = replace(
            line,
            value=value,
            ci_low=low,
            ci_high=high,
            images=run.images,
            commit=run.commit,
            code=run.code,
        )
        return self._difference(line, [run], versus)

    def _average(self, line: Line, cell: Cell, other: Cell | None) -> Line:
        runs, reason = self._all(cell.runs)
        if reason:
            return replace(line, reason=f"an average needs every benchmark: {reason}")
        if other_code := _different_code(runs):
            return replace(line, reason=f"no average: {other_code}")
        value = mean_value(runs, line.metric)
        if value is None:
            return replace(line, reason="an average needs a value on every benchmark")
        low, high = bootstrap.interval(value, mean_resampled(runs, line.metric))
        line = replace(line, value=value, ci_low=low, ci_high=high, code=runs[0].code)
        return self._difference(line, runs, () if other is None else other.runs)

    def _best(self, line: Line, cell: Cell, other: Cell | None) -> Line:
        runs, reason = self._all(cell.runs)
        if reason:
            return replace(line, reason=f"the best needs the whole grid: {reason}")
        if other_code := _different_code(runs):
            return replace(line, reason=f"no best: {other_code}")
        # of equals the first; a cell without a scored pixel is not the best
        values = {run.name: run.value(line.metric) for run in runs}
        best = max(runs, key=lambda run: -1.0 if (v := values[run.name]) is None else v)
        line = self._run(line, best.name, () if other is None else (other.run,))
        rows = self.plan.tables[line.table].rows
        names = {each.run: row.name for row in rows for each in row.cells if each.kind == "run"}
        return replace(line, best_of=names[best.name])

    def _flops(self, line: Line, cell: Cell) -> Line:
        runs, reason = self._all(cell.runs)
        if reason:
            return replace(line, reason=reason)
        if other_code := _different_code(runs):
            return replace(line, reason=other_code)
        mine, first = (run.flops for run in runs)
        if not mine or not first:
            return replace(line, reason="the run counted no operations")
        return replace(line, value=mine / first)

    def _difference(self, line: Line, runs: Sequence[Run], versus: Sequence[str]) -> Line:
        """The paired difference to the runs of the row compared with, where they are there."""
        if not versus:
            return line
        others, reason = self._all(versus)
        if reason:
            return line  # the row compared with shows its own reason
        if why := _no_pair(runs, others):
            return replace(line, diff_reason=f"no difference: {why}")
        if (found := _paired(runs, others, line.metric)) is None:
            return line
        return replace(line, diff=found[0], diff_low=found[1], diff_high=found[2])

    def _near_best(self, lines: list[Line], cells: list[Cell]) -> list[Line]:
        """Mark every cell that may be as good as the best of its column in its group.

        That is where the interval of best − cell, from the same resamples, holds 0. The best
        itself, the first of equals, is not marked.
        """
        places: dict[tuple[str, ...], list[int]] = {}
        for i, line in enumerate(lines):
            if line.kind in ("run", "avg") and line.value is not None:
                place = (line.group, line.column, line.metric, line.protocol, line.rule)
                places.setdefault(place, []).append(i)
        marked = list(lines)
        for found in places.values():
            if len({lines[i].code for i in found}) > 1:
                continue  # nothing is the best of what different code made
            best = max(found, key=lambda i: lines[i].value or 0.0)
            for i in found:
                if i != best and self._alike(lines[i].metric, cells[i], cells[best]):
                    marked[i] = replace(lines[i], near_best=True)
        return marked

    def _alike(self, metric: str, cell: Cell, best: Cell) -> bool:
        """Whether the two differ by nothing significant; not where they cannot be compared."""
        runs, others = (self._all(each.runs or (each.run,))[0] for each in (best, cell))
        if not runs or not others or _no_pair(runs, others):
            return False
        diff = _paired(runs, others, metric)
        return diff is not None and diff[1] <= 0 <= diff[2]

    def _all(self, names: Sequence[str]) -> tuple[list[Run], str]:
        """Every run of the names, or the reason of the first that is missing."""
        found = [self.shelf.find(name) for name in names]
        runs = [run for run, _ in found if run is not None]
        if len(runs) == len(names) and runs:
            return runs, ""
        return [], next((reason for run, reason in found if run is None), "there is no run")


def _counterpart(versus: Row, cell: Cell) -> Cell | None:
    """The cell of the row compared with that stands in the same column."""
    if cell.kind == "flops":
        return None
    wanted = (cell.column, cell.metric)
    return next((each for each in versus.cells if (each.column, each.metric) == wanted), None)


def _no_pair(runs: Sequence[Run], others: Sequence[Run]) -> str:
    """Why the two cannot be compared image by image, or nothing."""
    if other_code := _different_code([*runs, *others]):
        return other_code
    if any(not a.same_images(b) for a, b in zip(runs, others, strict=True)):
        return "the two rows are of other images"
    return ""


def _paired(
    runs: Sequence[Run], others: Sequence[Run], metric: str
) -> tuple[float, float, float] | None:
    """The mean of `runs` minus that of `others`, with its interval from the same resamples."""
    mine, its = mean_value(runs, metric), mean_value(others, metric)
    if mine is None or its is None:
        return None
    resampled = mean_resampled(runs, metric), mean_resampled(others, metric)
    return bootstrap.difference(mine, resampled[0], its, resampled[1])


def _different_code(runs: Sequence[Run]) -> str:
    """Says so where runs that are compared were not all made by the same code."""
    codes = sorted({run.code[:SHORT] for run in runs})
    return f"the runs were made by different code, {' and '.join(codes)}" if codes[1:] else ""


def _with_settings(line: Line, cell: Cell) -> Line:
    """model, protocol, vocabulary and rule of a cell: of an average's runs each that differs, in
    the order of the columns."""
    runs = cell.settings
    sides, strides = (
        {run["protocol"].get(key) for run in runs} for key in ("short_side", "stride")
    )
    return replace(
        line,
        model=_each(map(model_of, runs)),
        protocol=cell.protocol,
        vocabulary=_each(vocabulary_of(run) for run in runs),
        rule=_each(run["protocol"]["rule"] for run in runs),
        short_side=sides.pop() if len(sides) == 1 else None,
        stride=strides.pop() if len(strides) == 1 else None,
    )


def _each(values: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(values))


def model_of(run: config.Run) -> str:
    """`vit_b16`, or `vit_b16(precision=bf16)`: the model and what of it is not at its default."""
    changed = ",".join(f"{key}={value}" for key, value in config.changed_model(run).items())
    return run["model"]["label"] + (f"({changed})" if changed else "")


def vocabulary_of(run: config.Run) -> str:
    """`voc20+voc21_background@1a2b3c4d5e`: what a run's classes are called.

    The name of its class list, of its background list after a plus, and ten digits of the digest
    of their names and the templates.
    """
    names = [run["vocabulary"]["classes"]["name"]]
    if run["vocabulary"]["background"] is not None:
        names.append(run["vocabulary"]["background"]["name"])
    return f"{'+'.join(names)}@{store.vocabulary_digest(run)[:SHORT]}"


def missing(lines: Sequence[Line]) -> tuple[int, int, dict[str, int]]:
    """Missing cells, all cells, and how many cells each reason empties.

    Quoted cells and those that are meant to be empty are apart.
    """
    own = [line for line in lines if line.kind not in ("quoted", "absent")]
    gone = [line for line in own if line.value is None]
    reasons: dict[str, int] = {}
    for line in gone:
        reasons[line.reason] = reasons.get(line.reason, 0) + 1
    return len(gone), len(own), reasons
