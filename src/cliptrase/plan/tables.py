"""A table of a suite, from conf/table/<name>.yaml: its rows and cells, and the runs they need."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from cliptrase import config
from cliptrase.config import Run
from cliptrase.errors import UserError
from cliptrase.plan.files import (
    ABOVE,
    GridTable,
    MetricsTable,
    QuotedRow,
    RowFile,
    Suite,
    read_table,
)
from cliptrase.resources import resource

PARTIAL = "no average: this row is not on every benchmark"
TableFile = MetricsTable | GridTable


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    kind: run (one run's metric) | avg (mean over `runs`, one a benchmark) | flops | quoted | best |
    absent (meant to be empty, for `reason`). `run` is the run's name, empty for the others; `runs`
    are those that avg, flops and best derive from. `benchmark` is what is scored, `column` where it
    stands: the same, unless the row says otherwise. `versus` names the row of its group whose cell
    of the same column it is compared with, or none: never one under other settings of the protocol.
    `protocol` is `Run.protocol_text`, those of an average's runs once each. `settings` are the
    resolved runs that the cell is of; of an absent one they have its words, protocol and rule.
    """

    table: str
    row: str
    benchmark: str
    metric: str
    image_size: int
    kind: str
    run: str = ""
    runs: tuple[str, ...] = ()
    column: str = ""
    versus: str = ""
    reason: str = ""
    protocol: str = ""
    settings: tuple[Run, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Row:
    """One line of a table; `versus` names the row of its group that it is compared with, or none.

    A cell may name another, where that row has none. Names differ within a group; two groups may
    both have a row `base`. `eps` and `min_samples` place it in a grid. `note` is its footnote.
    `chooses_rule`: its overrides set `protocol.rule`.
    """

    name: str
    group: str
    kind: str
    image_size: int
    versus: str = ""
    cells: tuple[Cell, ...] = ()
    eps: float | None = None
    min_samples: int | None = None
    note: str = ""
    chooses_rule: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a suite. kind: metrics | grid. `chosen` is the row that a grid marks.

    `compare_to_best`: cells that may be as good as the best of their column are marked. `figure`:
    it is drawn too.
    """

    name: str
    title: str
    kind: str
    metrics: tuple[str, ...]
    benchmarks: tuple[str, ...]
    rows: tuple[Row, ...]
    chosen: str = ""
    compare_to_best: bool = False
    figure: bool = False


class Expander:
    """Turns table files into rows and cells, and gathers the runs that they need."""

    def __init__(self, suite: Suite) -> None:
        self.suite, self.roles = suite, dict(suite.roles)
        self.runs: dict[str, Run] = {}
        self._resolved: dict[tuple[str, ...], Run] = {}

    def table(self, name: str) -> Table:
        """The table of conf/table/<name>.yaml. Raises UserError naming what is wrong there."""
        spec = read_table(name)
        if spec.protocol is None:
            spec = spec.model_copy(update={"protocol": self.suite.protocol})
        chosen = ""
        if isinstance(spec, GridTable):
            rows, chosen = self._grid(name, spec)
        else:
            rows = self._rows(name, spec)
        return Table(
            name=name,
            title=spec.title,
            kind=spec.kind,
            metrics=spec.metrics,
            benchmarks=self.roles[spec.role],
            rows=tuple(rows),
            chosen=chosen,
            compare_to_best=isinstance(spec, MetricsTable) and spec.compare_to_best,
            figure=isinstance(spec, MetricsTable) and spec.figure,
        )

    def _rows(self, table: str, spec: MetricsTable) -> list[Row]:
        rows = [] if spec.quoted is None else list(_quoted(table, "", spec, spec.quoted))
        for group in spec.groups:
            own: list[Row] = []
            first_runs: dict[str, str] = {}
            above: list[str] = []
            for row in group.rows:
                if isinstance(row, QuotedRow):
                    own += _quoted(table, group.name, spec, {"row": row.row})
                    continue
                size = row.image_size or spec.image_size
                overrides = [*above, *row.run]
                where = _where(row, self.roles[spec.role])
                runs = self._run_each(spec, overrides, size, where)
                reason = row.otherwise or ""
                cells = list(self._cells(table, row.row, spec, size, runs, overrides, reason))
                first_runs = first_runs or runs
                if group.flops:
                    flops = Cell(table, row.row, "", "flops", size, "flops")
                    cells += self._operations(flops, runs, first_runs)
                place = (row.row, group.name, "run", size)
                chooses_rule = any(each.startswith("protocol.rule=") for each in overrides)
                note = row.note or ""
                own.append(Row(*place, cells=tuple(cells), note=note, chooses_rule=chooses_rule))
                above = overrides if group.cumulative else []
            rows += _compared(own, spec.versus)
        return rows

    def _grid(self, table: str, spec: GridTable) -> tuple[list[Row], str]:
        size, rows = spec.image_size, []
        benchmarks = {name: name for name in self.roles[spec.role]}
        chosen_runs = self._run_each(spec, spec.run, size, benchmarks)
        chosen = ""
        for min_samples in spec.min_samples:
            for eps in spec.eps:
                name = f"eps={eps:g} min_samples={min_samples}"
                point = [f"method.regions.eps={eps}", f"method.regions.min_samples={min_samples}"]
                runs = self._run_each(spec, [*spec.run, *point], size, benchmarks)
                cells = tuple(self._cells(table, name, spec, size, runs, []))
                rows.append(Row(name, "", "run", size, "", cells, float(eps), min_samples))
                if runs and runs == chosen_runs:
                    chosen = name
        best = tuple(  # the cells of one benchmark and metric have the same place in every row
            replace(cells[0], row="best", kind="best", run="", runs=tuple(c.run for c in cells))
            for cells in zip(*(row.cells for row in rows), strict=True)
        )
        rows.append(Row("best", "", "best", size, "", best))
        return [row if row.name == chosen else _to(row, chosen) for row in rows], chosen

    def _run_each(
        self, spec: TableFile, overrides: Sequence[str], size: int, where: dict[str, str]
    ) -> dict[str, str]:
        """column → run name, the runs remembered for the plan. `where`: column → benchmark."""
        names = {}
        for column, benchmark in where.items():
            run = self._resolve(spec, overrides, size, benchmark)
            names[column] = run.name
            self.runs.setdefault(names[column], run)
        return names

    def _resolve(self, spec: TableFile, overrides: Sequence[str], size: int, benchmark: str) -> Run:
        given = (
            f"benchmark={benchmark}",
            f"model={self.suite.model}",
            f"protocol={spec.protocol}",
            f"image_size={size}",
            *self.suite.overrides,
            *overrides,
        )
        if given not in self._resolved:
            self._resolved[given] = config.resolve(given)
        return self._resolved[given]

    def _cells(
        self,
        table: str,
        name: str,
        spec: TableFile,
        size: int,
        runs: dict[str, str],
        overrides: list[str],
        reason: str = "",
    ) -> Iterator[Cell]:
        """A cell for every metric and column of the role, absent for `reason` where `runs` has no
        run."""
        columns = self.roles[spec.role]
        protocol = [each for each in overrides if each.startswith("protocol.")]
        settings = {
            column: self.runs[runs[column]]
            if column in runs
            else self._resolve(spec, protocol, size, column)  # the words of the benchmark itself
            for column in columns
        }
        for metric in spec.metrics:
            for column in columns:
                scored = settings[column].benchmark.name
                cell = Cell(table, name, scored, metric, size, "run", column=column)
                if column in runs:
                    cell = replace(cell, run=runs[column])
                else:
                    cell = replace(cell, kind="absent", reason=reason)
                yield _set(cell, settings[column])
            if isinstance(spec, MetricsTable) and spec.average:
                average = Cell(table, name, "avg", metric, size, "avg", column="avg")
                average = _set(average, *settings.values())
                if len(runs) == len(columns):
                    yield replace(average, runs=tuple(runs.values()))
                else:
                    yield replace(average, kind="absent", reason=PARTIAL)

    def _operations(
        self, flops: Cell, runs: dict[str, str], first_runs: dict[str, str]
    ) -> Iterator[Cell]:
        """The cell of a row's operations, where the group's first row has a run under the same
        settings in one of its columns."""
        for column, name in runs.items():
            if column in first_runs:
                cell = _set(flops, self.runs[name])
                if _set(flops, self.runs[first_runs[column]]).protocol == cell.protocol:
                    yield replace(cell, runs=(name, first_runs[column]))
                    return


def _set(cell: Cell, *settings: Run) -> Cell:
    """The cell with the settings of these runs."""
    protocols = dict.fromkeys(run.protocol_text for run in settings)
    return replace(cell, protocol=" ".join(protocols), settings=settings)


def _where(row: RowFile, columns: Sequence[str]) -> dict[str, str]:
    """column → the benchmark that a row scores there, of the columns that it stands in."""
    only = row.only or columns
    only = only if isinstance(only, dict) else {column: column for column in only}
    return {column: only[column] for column in columns if column in only}


def _compared(rows: list[Row], versus: str) -> list[Row]:
    """A group's rows, each cell compared with the nearest row above, or all with one row."""
    own = [row for row in rows if row.kind == "run"]
    done = []
    for row in rows:
        others: Sequence[Row] = ()
        if row.kind == "run":
            above = own[: own.index(row)][::-1]
            others = above if versus == ABOVE else [r for r in own if r.name == versus != row.name]
        cells = tuple(_versus(cell, others) for cell in row.cells)
        done.append(replace(row, cells=cells, versus=others[0].name if others else ""))
    return done


def _versus(cell: Cell, others: Sequence[Row]) -> Cell:
    """The cell, compared with the first of the rows that has a number in its column, under the same
    settings."""
    if cell.kind not in ("run", "avg"):
        return cell
    place = (cell.kind, cell.column, cell.metric, cell.protocol)
    for row in others:
        here = ((each.kind, each.column, each.metric, each.protocol) for each in row.cells)
        if place in here:
            return replace(cell, versus=row.name)
    return cell


def _to(row: Row, versus: str) -> Row:
    """The row, every cell of it compared with one row."""
    cells = tuple(replace(cell, versus=versus) for cell in row.cells)
    return replace(row, versus=versus, cells=cells)


def _quoted(table: str, group: str, spec: TableFile, wanted: dict[str, str]) -> Iterator[Row]:
    """The rows of published.csv that have the wanted values, in the order of the file."""
    found: dict[str, list[Cell]] = {}
    for line in published():
        if line["table"] == table and all(line.get(key) == value for key, value in wanted.items()):
            size, benchmark = int(line["image_size"] or spec.image_size), line["benchmark"]
            cell = Cell(table, line["row"], benchmark, line["metric"], size, "quoted")
            found.setdefault(line["row"], []).append(replace(cell, column=benchmark))
    if not found:
        raise UserError(f"table {table}: published.csv has no row with {wanted}")
    for name, cells in found.items():
        yield Row(name, group, "quoted", cells[0].image_size, cells=tuple(cells))


def published() -> list[dict[str, str]]:
    """The lines of published/published.csv: every number that the paper prints."""
    with open(resource("published", "published.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def in_words(protocol: str) -> str:
    """`Run.protocol_text`, to be read: `slide, short_side 448, logit_scale 65`."""
    name, _, changed = protocol.partition("(")
    return ", ".join([name, *filter(None, changed.rstrip(")").replace("=", " ").split(","))])
