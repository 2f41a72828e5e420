"""Which runs the tables of a suite need, and how they share passes over the images.

Expands conf/suite × conf/table; imports neither torch nor Hydra. `python -m cliptrase.plan SUITE`
prints one line a run: pass, run, benchmark, method, image_size.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from cliptrase import config
from cliptrase.errors import UserError, exit_on_user_error, nearest
from cliptrase.plan_files import ROLES, read_suite, read_table
from cliptrase.resources import resource


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    kind: run (one run's metric) | avg (mean over `runs`, one a benchmark) | flops | quoted | best.
    `run` is the run's name, empty for the others; `runs` are those that avg, flops and best derive
    from.
    """

    table: str
    row: str
    benchmark: str
    metric: str
    image_size: int
    kind: str
    run: str = ""
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of a table; `versus` names the row of its group that it is compared with, or none.

    Names differ within a group; two groups may both have a row `base`. `eps` and `min_samples`
    place it in a grid.
    """

    name: str
    group: str
    kind: str
    image_size: int
    versus: str = ""
    cells: tuple[Cell, ...] = ()
    eps: float | None = None
    min_samples: int | None = None


@dataclass(frozen=True)
class Table:
    """A table of a suite. kind: metrics | grid. `chosen` is the row that a grid marks."""

    name: str
    title: str
    kind: str
    metrics: tuple[str, ...]
    benchmarks: tuple[str, ...]
    image_size: int
    average: bool
    rows: tuple[Row, ...]
    chosen: str = ""


@dataclass(frozen=True)
class Pass:
    """The runs that one stream over a dataset's images can make together."""

    name: str
    dataset: str
    model: str
    image_size: int
    protocol: str
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A suite, expanded. `runs` maps a run's name to its resolved configuration."""

    suite: str
    title: str
    published: bool
    passes: dict[str, Pass]
    tables: dict[str, Table]
    runs: dict[str, dict[str, Any]]

    @property
    def datasets(self) -> list[str]:
        """Datasets that the passes read, sorted."""
        return sorted({one.dataset for one in self.passes.values()})

    @property
    def main_runs(self) -> list[str]:
        """Runs that a table other than a grid shows: what is published one by one."""
        shown = (table for table in self.tables.values() if table.kind != "grid")
        names = {cell.run for table in shown for row in table.rows for cell in row.cells}
        return [name for name in self.runs if name in names]


def load(suite: str, benchmarks: Iterable[str] | None = None) -> Plan:
    """The plan of conf/suite/<suite>.yaml, of some of its benchmarks if they are given.

    Raises UserError for an unknown suite, table, benchmark, key or value.
    """
    spec = read_suite(suite)
    roles = _roles(suite, spec["roles"], benchmarks)
    expander = _Expander(spec, roles)
    tables = {name: expander.table(name) for name in spec["tables"]}
    return Plan(
        suite, spec["title"], spec["published"], _passes(expander.runs), tables, expander.runs
    )


def suites() -> list[str]:
    """Names of the suites in conf/suite."""
    return sorted(file.stem for file in (config.CONF / "suite").glob("*.yaml"))


class _Expander:
    """Turns table files into rows and cells, and gathers the runs that they need."""

    def __init__(self, spec: dict[str, Any], roles: dict[str, list[str]]) -> None:
        self.spec, self.roles = spec, roles
        self.runs: dict[str, dict[str, Any]] = {}

    def table(self, name: str) -> Table:
        spec = read_table(name)
        rows, chosen = (
            self._grid(name, spec) if spec["kind"] == "grid" else (self._rows(name, spec), "")
        )
        return Table(
            name,
            spec["title"],
            spec["kind"],
            tuple(spec["metrics"]),
            tuple(self.roles[spec["role"]]),
            spec["image_size"],
            bool(spec.get("average", False)),
            tuple(rows),
            chosen,
        )

    def _rows(self, table: str, spec: dict[str, Any]) -> list[Row]:
        rows = [] if "quoted" not in spec else list(_quoted(table, "", spec, spec["quoted"]))
        for group in spec["groups"]:
            above = ""
            first_runs: tuple[str, ...] = ()
            for row in group["rows"]:
                if row.get("quoted"):
                    rows += _quoted(table, group["name"], spec, {"row": row["row"]})
                    continue
                size = row.get("image_size", spec["image_size"])
                runs = self._run_each(spec["role"], row["run"], size)
                cells = list(_cells(table, row["row"], spec, size, runs))
                first_runs = first_runs or tuple(runs.values())
                if group.get("flops"):
                    both = (next(iter(runs.values()), ""), next(iter(first_runs), ""))
                    cells.append(Cell(table, row["row"], "", "flops", size, "flops", runs=both))
                rows.append(Row(row["row"], group["name"], "run", size, above, tuple(cells)))
                above = row["row"]
        return rows

    def _grid(self, table: str, spec: dict[str, Any]) -> tuple[list[Row], str]:
        size, rows = spec["image_size"], []
        chosen_runs = self._run_each(spec["role"], spec["run"], size)
        chosen = ""
        for min_samples in spec["min_samples"]:
            for eps in spec["eps"]:
                name = f"eps={eps:g} min_samples={min_samples}"
                point = [f"method.regions.eps={eps}", f"method.regions.min_samples={min_samples}"]
                runs = self._run_each(spec["role"], [*spec["run"], *point], size)
                cells = tuple(_cells(table, name, spec, size, runs))
                rows.append(Row(name, "", "run", size, "", cells, float(eps), min_samples))
                if runs and runs == chosen_runs:
                    chosen = name
        rows = [replace(row, versus=chosen if row.name != chosen else "") for row in rows]
        best = tuple(
            Cell(
                table,
                "best",
                benchmark,
                metric,
                size,
                "best",
                runs=_runs_of(rows, benchmark, metric),
            )
            for metric in spec["metrics"]
            for benchmark in self.roles[spec["role"]]
        )
        return [*rows, Row("best", "", "best", size, chosen, best)], chosen

    def _run_each(self, role: str, overrides: list[str], size: int) -> dict[str, str]:
        """benchmark → run name, the runs remembered for the plan."""
        names = {}
        for benchmark in self.roles[role]:
            run = config.resolve(
                [
                    f"benchmark={benchmark}",
                    f"model={self.spec['model']}",
                    f"protocol={self.spec['protocol']}",
                    f"image_size={size}",
                    *self.spec["overrides"],
                    *overrides,
                ]
            )
            names[benchmark] = config.run_name(run)
            self.runs.setdefault(names[benchmark], run)
        return names


def _cells(
    table: str, row: str, spec: dict[str, Any], size: int, runs: dict[str, str]
) -> Iterator[Cell]:
    for metric in spec["metrics"]:
        for benchmark, run in runs.items():
            yield Cell(table, row, benchmark, metric, size, "run", run)
        if spec.get("average"):
            yield Cell(table, row, "avg", metric, size, "avg", runs=tuple(runs.values()))


def _runs_of(rows: list[Row], benchmark: str, metric: str) -> tuple[str, ...]:
    cells = (cell for row in rows for cell in row.cells)
    return tuple(cell.run for cell in cells if (cell.benchmark, cell.metric) == (benchmark, metric))


def _quoted(table: str, group: str, spec: dict[str, Any], wanted: dict[str, str]) -> Iterator[Row]:
    """The rows of published.csv that have the wanted values, in the order of the file."""
    found: dict[str, list[Cell]] = {}
    for line in published():
        if line["table"] == table and all(line.get(key) == value for key, value in wanted.items()):
            size = int(line["image_size"] or spec["image_size"])
            cell = Cell(table, line["row"], line["benchmark"], line["metric"], size, "quoted")
            found.setdefault(line["row"], []).append(cell)
    if not found:
        raise UserError(f"table {table}: published.csv has no row with {wanted}")
    for name, cells in found.items():
        yield Row(name, group, "quoted", cells[0].image_size, cells=tuple(cells))


def published() -> list[dict[str, str]]:
    """The lines of published/published.csv: every number that the paper prints."""
    with open(resource("published", "published.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _passes(runs: dict[str, dict[str, Any]]) -> dict[str, Pass]:
    passes: dict[str, Pass] = {}
    for name, run in runs.items():
        dataset, model = run["benchmark"]["dataset"], run["model"]["label"]
        size, protocol = run["image_size"], run["protocol"]["name"]
        key = f"{dataset}.{model}.{size}.{protocol}"
        passes.setdefault(key, Pass(key, dataset, model, size, protocol)).runs[name] = run
    return passes


def _roles(
    suite: str, roles: dict[str, list[str]], only: Iterable[str] | None
) -> dict[str, list[str]]:
    if only is None:
        return {role: list(roles.get(role, [])) for role in ROLES}
    known = {name for names in roles.values() for name in names}
    wanted = list(only)
    for name in wanted:
        if name not in known:
            raise UserError(f"suite {suite} has no benchmark {name!r}; {nearest(name, known)}")
    return {role: [name for name in roles.get(role, []) if name in wanted] for role in ROLES}


@exit_on_user_error
def main(arguments: list[str] | None = None) -> None:
    """Print the runs of a suite as tab-separated lines."""
    words = sys.argv[1:] if arguments is None else arguments
    if words in (["-h"], ["--help"]):
        sys.stdout.write(f"{__doc__}\nSuites: {', '.join(suites())}\n")
        return
    if len(words) != 1:
        raise UserError(f"write python -m cliptrase.plan SUITE. There is: {', '.join(suites())}")
    plan = load(words[0])
    columns = ("pass", "run", "benchmark", "method", "image_size")
    lines = [columns] + [
        (one.name, name, run["benchmark"]["name"], run["method"]["name"], str(run["image_size"]))
        for one in plan.passes.values()
        for name, run in one.runs.items()
    ]
    sys.stdout.write("".join("\t".join(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
