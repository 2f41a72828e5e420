"""A table of a suite, from conf/table/<name>.yaml: its rows and cells, and the runs they need."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from cliptrase import config
from cliptrase.config import Run
from cliptrase.config.error_names import OF_LEDGER
from cliptrase.config.method import BackboneNames
from cliptrase.config.metric_names import LOST
from cliptrase.errors import UserError
from cliptrase.plan.files import (
    ABOVE,
    SUMMARIES,
    GridTable,
    Group,
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
    absent (meant to be empty, for `reason`) | one of SUMMARIES, over the rows of a group. `run` is
    the run's name, empty for the others; `runs` are those that they derive from. `benchmark` is
    what is scored, `column` where it stands: the same, unless the row says otherwise. `versus`
    names the row of its group whose cell of the same column it is compared with, or none: never one
    under other settings of the protocol. `protocol` is `Run.protocol_text`, those of an average's
    runs once each. `settings` are the resolved runs that the cell is of; of an absent one they have
    its words, protocol and rule.
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
    it is drawn too. `across`: what its columns are, benchmarks | metrics.
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
    across: str = "benchmarks"


class Expander:
    """Turns table files into rows and cells, and gathers the runs that they need."""

    def __init__(self, suite: Suite) -> None:
        self.suite, self.roles = suite, dict(suite.roles)
        self.runs: dict[str, Run] = {}
        self._resolved: dict[tuple[str, ...], Run] = {}

    def table(self, name: str) -> Table:
        """The table of conf/table/<name>.yaml. Raises UserError naming what is wrong there."""
        spec, chosen = read_table(name), ""
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
            across=spec.across if isinstance(spec, MetricsTable) else "benchmarks",
        )

    def _rows(self, table: str, spec: MetricsTable) -> list[Row]:
        rows = [] if spec.quoted is None else self._quoted(table, "", spec, spec.quoted)
        for group in spec.groups:
            own: list[Row] = []
            first_runs: dict[str, Run] = {}
            above: list[str] = []
            for row in group.rows:
                if isinstance(row, QuotedRow):
                    own += self._quoted(table, group.name, spec, {"row": row.row})
                    continue
                done, runs = self._row(table, spec, group, row, above, first_runs)
                first_runs = first_runs or runs
                own.append(done)
                above = [*above, *row.run] if group.cumulative else []
            own += _summaries(table, group, own)
            rows += _compared(own, spec.versus)
        return rows

    def _row(
        self,
        table: str,
        spec: MetricsTable,
        group: Group,
        row: RowFile,
        above: Sequence[str],
        first_runs: dict[str, Run],
    ) -> tuple[Row, dict[str, Run]]:
        """A row, and its runs by column. above: overrides of the rows that it adds to. Raises
        UserError naming the table and the row."""
        size = row.image_size or spec.image_size
        overrides = [*group.run, *above, *row.run]
        columns, reason = row.only or self.roles[spec.role], row.otherwise or ""
        try:
            if not_here := self._of_hub(spec, overrides, size):
                columns, reason = (), not_here
            runs = self._run_each(spec, overrides, size, columns, row.per_benchmark)
            cells = list(self._cells(table, row.row, spec, size, runs, overrides, reason))
        except UserError as error:
            raise UserError(f"table {table}, row {row.row!r}: {error}") from None
        if group.flops:
            flops = Cell(table, row.row, "", "flops", size, "flops")
            cells += _operations(flops, runs, first_runs or runs)
        done = Row(row.row, group.name, "run", size, cells=tuple(cells), note=row.note or "")
        chooses_rule = any(each.startswith("protocol.rule=") for each in overrides)
        return replace(done, chooses_rule=chooses_rule), runs

    def _quoted(
        self, table: str, group: str, spec: MetricsTable, wanted: dict[str, str]
    ) -> list[Row]:
        """The rows of published.csv; none where the suite's numbers are not the paper's to be
        compared with."""
        rows = list(_quoted(table, group, spec, wanted))
        return rows if self.suite.published else []

    def _grid(self, table: str, spec: GridTable) -> tuple[list[Row], str]:
        size, rows, chosen = spec.image_size, [], ""
        benchmarks = self.roles[spec.role]
        chosen_runs = self._run_each(spec, spec.run, size, benchmarks)
        for min_samples in spec.min_samples:
            for eps in spec.eps:
                name = f"eps={eps:g} min_samples={min_samples}"
                point = [f"method.regions.eps={eps}", f"method.regions.min_samples={min_samples}"]
                runs = self._run_each(spec, [*spec.run, *point], size, benchmarks)
                cells = tuple(self._cells(table, name, spec, size, runs, []))
                rows.append(Row(name, "", "run", size, "", cells, float(eps), min_samples))
                if runs and _names(runs) == _names(chosen_runs):
                    chosen = name
        best = tuple(  # the cells of one benchmark and metric have the same place in every row
            replace(cells[0], row="best", kind="best", run="", runs=tuple(c.run for c in cells))
            for cells in zip(*(row.cells for row in rows), strict=True)
        )
        rows.append(Row("best", "", "best", size, "", best))
        return [row if row.name == chosen else _to(row, chosen) for row in rows], chosen

    def _run_each(
        self,
        spec: TableFile,
        overrides: Sequence[str],
        size: int,
        where: Sequence[str] | Mapping[str, str],
        per_benchmark: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> dict[str, Run]:
        """column → run, for the columns of the table's role, remembered for the plan. `where`: the
        columns, or column → the benchmark that is scored there. `per_benchmark`: column → more
        overrides."""
        where = where if isinstance(where, Mapping) else {column: column for column in where}
        runs = {
            column: self._resolve(
                spec, [*overrides, *per_benchmark.get(column, ())], size, where[column]
            )
            for column in self.roles[spec.role]
            if column in where
        }
        for run in runs.values():
            if run.ledger or run.name not in self.runs:  # of two that are one the one with a ledger
                self.runs[run.name] = run
        return runs

    def _of_hub(self, spec: TableFile, overrides: Sequence[str], size: int) -> str:
        """Why a row is not run: it names a network of the hub beside a model that has an embedded
        one in its place; "" where it is run."""
        if not self.roles[spec.role]:
            return ""
        run = self._resolve(spec, overrides, size, self.roles[spec.role][0])
        named = [each.label for each in run.method.networks if each.path is None]
        if not named or run.model.substitutes == BackboneNames():
            return ""
        return f"{named[0]} comes from the hub; {run.model.label} has an embedded network instead"

    def _resolve(self, spec: TableFile, overrides: Sequence[str], size: int, benchmark: str) -> Run:
        given = (
            f"benchmark={benchmark}",
            f"model={self.suite.model}",
            f"protocol={spec.protocol or self.suite.protocol}",
            f"image_size={size}",
            *self.suite.overrides,
            *overrides,
            *(["ledger=true"] if not set(OF_LEDGER).isdisjoint(spec.metrics) else []),
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
        runs: dict[str, Run],
        overrides: list[str],
        reason: str = "",
    ) -> Iterator[Cell]:
        """A cell for every metric and column of the role, absent for `reason` where `runs` has no
        run."""
        columns = self.roles[spec.role]
        protocol = [each for each in overrides if each.startswith("protocol.")]
        settings = {
            # where it has no run: the words of the benchmark itself
            column: runs.get(column) or self._resolve(spec, protocol, size, column)
            for column in columns
        }
        for metric in spec.metrics:
            if metric == LOST and not any(run.vocabulary.distractors for run in runs.values()):
                continue  # it has no cells: there is nothing that pixels could be lost to
            for column in columns:
                run = settings[column]
                cell = Cell(table, name, run.benchmark.name, metric, size, "run", column=column)
                if column in runs:
                    cell = replace(cell, run=run.name)
                else:
                    cell = replace(cell, kind="absent", reason=reason)
                yield _set(cell, run)
            if isinstance(spec, MetricsTable) and spec.average:
                average = Cell(table, name, "avg", metric, size, "avg", column="avg")
                average = _set(average, *settings.values())
                if len(runs) == len(columns):
                    yield replace(average, runs=_names(runs))
                else:
                    yield replace(average, kind="absent", reason=PARTIAL)


def _summaries(table: str, group: Group, rows: Sequence[Row]) -> Iterator[Row]:
    """The rows with the mean, the worst and the range of the rows of a group, column by column."""
    if not group.summary:
        return
    columns: dict[tuple[str, str], list[Cell]] = {}
    for cell in (cell for row in rows for cell in row.cells):
        if cell.kind == "run" and cell.metric != LOST:
            columns.setdefault((cell.metric, cell.column), []).append(cell)
    for kind in SUMMARIES:
        cells = []
        for some in columns.values():
            runs, settings = tuple(cell.run for cell in some), [cell.settings[0] for cell in some]
            cell = replace(some[0], row=kind, kind=kind, run="", runs=runs)
            cells.append(_set(cell, *settings))
        yield Row(kind, group.name, kind, rows[0].image_size, cells=tuple(cells))


def _operations(flops: Cell, runs: dict[str, Run], first_runs: dict[str, Run]) -> Iterator[Cell]:
    """The cell of a row's operations, where the group's first row has a run under the same settings
    in one of its columns."""
    for column in filter(first_runs.get, runs):
        run, first = runs[column], first_runs[column]
        if run.protocol_text == first.protocol_text:
            yield _set(replace(flops, runs=(run.name, first.name)), run)
            return


def _set(cell: Cell, *settings: Run) -> Cell:
    """The cell with the settings of these runs."""
    protocols = dict.fromkeys(run.protocol_text for run in settings)
    return replace(cell, protocol=" ".join(protocols), settings=settings)


def _names(runs: Mapping[str, Run]) -> tuple[str, ...]:
    return tuple(run.name for run in runs.values())


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


def published(name: str = "published.csv") -> list[dict[str, str]]:
    """The lines of a file of published/: every number that the paper prints; of peers.csv, those
    that the papers of other methods print."""
    with open(resource("published", name), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def in_words(protocol: str) -> str:
    """`Run.protocol_text`, to be read: `slide, short_side 448, logit_scale 65`."""
    name, _, changed = protocol.partition("(")
    return ", ".join([name, *filter(None, changed.rstrip(")").replace("=", " ").split(","))])
