"""Which runs of a suite are pictured: rows of a table on a benchmark, which see the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cliptrase.config import Run
from cliptrase.config.kinds import facts_of
from cliptrase.data import open_dataset
from cliptrase.data.read.prepared import prepared_folder, read_selfcheck
from cliptrase.errors import UserError, nearest
from cliptrase.evaluate.passes import shared
from cliptrase.evaluate.targets import target_key
from cliptrase.evaluate.truth import Loader
from cliptrase.plan import Plan, Table
from cliptrase.publish import check_pictured, pictured


@dataclass(frozen=True)
class Shown:
    """The runs of a table's rows on one benchmark; `first` stands for what they have in common."""

    benchmark: str
    runs: dict[str, Run]  # by row

    @property
    def first(self) -> Run:
        return next(iter(self.runs.values()))

    @property
    def clustered(self) -> Run | None:
        """The first run that clusters CLIP's correlation, if the model sees its pictures whole."""
        runs = [run for run in self.runs.values() if _clip_correlates(run)]
        return None if not runs or facts_of(runs[0]).whole_pictures else runs[0]

    def is_prepared(self, data: Path) -> bool:
        """Whether the images can be read; a user's folder always can."""
        benchmark = self.first.benchmark
        check = read_selfcheck(prepared_folder(benchmark.dataset, data))
        return benchmark.folder is not None or check is not None

    def loader(self, data: Path) -> Loader:
        """Reads the images. Raises UserError where the dataset is not prepared."""
        samples = open_dataset(self.first, data, any_code=True)
        return Loader.of(samples, self.runs.values(), data)


def _clip_correlates(run: Run) -> bool:
    return run.method.regions is not None and run.method.regions.source == "clip"


def shown_runs(suite: Plan) -> list[Shown]:
    """The benchmarks of the suite's first table that is not a grid, in its order.

    Shown are the rows that see what the first sees. Raises UserError for a suite that has
    only grids.
    """
    table = next(iter(pictured(suite).values()))
    shown = {name: _runs_of(suite, table, name) for name in table.benchmarks}
    return [Shown(name, _like_the_first(runs)) for name, runs in shown.items()]


def chosen_runs(
    suite: Plan, benchmark: str, table: str | None = None, rows: Sequence[str] = ()
) -> Shown:
    """Some rows of a table on a benchmark: by default those of the first table that has it, which
    see what the first sees.

    Raises UserError for a table, benchmark or row that is not there, and for rows that do not see
    the same.
    """
    check_pictured(suite, benchmark, table)
    tables = pictured(suite)
    looked_at = [tables[table]] if table is not None else list(tables.values())
    runs: dict[str, Run] = {}
    for each in looked_at:
        runs = runs or _runs_of(suite, each, benchmark)
    if not runs:
        names = ", ".join(each.name for each in looked_at)
        raise UserError(f"benchmark {benchmark}: no run on it to picture in {names}")
    for row in rows:
        if row not in runs:
            raise UserError(f"no row {row!r} to picture on {benchmark}; {nearest(row, runs)}")
    if not rows:
        return Shown(benchmark, _like_the_first(runs))
    chosen = {row: runs[row] for row in rows}
    if other := next((row for row in rows if row not in _like_the_first(chosen)), None):
        raise UserError(
            f"rows {rows[0]!r} and {other!r} do not see the same: another image size, model, "
            "protocol or ground truth; draw them one after the other"
        )
    return Shown(benchmark, chosen)


def _like_the_first(runs: dict[str, Run]) -> dict[str, Run]:
    """Those that see the same pictures and ground truth as the first."""
    seen = {name: (shared(run), target_key(run)) for name, run in runs.items()}
    return {name: run for name, run in runs.items() if seen[name] == next(iter(seen.values()))}


def _runs_of(suite: Plan, table: Table, benchmark: str) -> dict[str, Run]:
    """Row → run on a benchmark; not those of unsupervised methods, whose classes a few images do
    not decide, of label maps from files, and with distractors, which are no class. A row that
    several groups have is named with its group."""
    rows = [row for row in table.rows if row.kind == "run"]
    names = [row.name for row in rows]
    return {
        row.name if names.count(row.name) == 1 else f"{row.name}, {row.group}": suite.runs[cell.run]
        for row in rows
        for cell in row.cells
        if (cell.kind, cell.benchmark, cell.metric) == ("run", benchmark, table.metrics[0])
        and suite.runs[cell.run].method.unsupervised is None
        and suite.runs[cell.run].method.digest is None
        and suite.runs[cell.run].vocabulary.distractors is None
    }
