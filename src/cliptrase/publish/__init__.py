"""What leaves the project: tables (csv, md, tex), figures, a page and W&B, all derived from
finished runs. Nothing here starts a run.

What all share is here: `results` (the runs of a suite, looked up and checked), `ledger` (what is
said of a run's errors), `compare` (whether runs may be compared); `run_folders`, `run_report` and
`run_pairs` (what the folders of one run and of two say); `command_line`, `digests`. Then come
`tables/`, `figures/` and `page/`, each of which imports only from those before it; and W&B:
`tracking`.
"""

from pathlib import Path

from cliptrase.errors import UserError, nearest
from cliptrase.plan import Plan, Table

MAIN_RESULTS, OVERVIEW, CERTAINTY = "main_results", "fig1a_overview", "certainty"
CERTAINTY_METRIC = "ECE"  # the first table that has it is drawn as CERTAINTY
OVERVIEW_ROWS = ("CLIP", "CLIPtrase")
PAPER_FIGURES = (  # of pictures, as `paper_figures` draws them
    "fig1b_heatmaps",
    "fig2_global_patches",
    "fig4_scr_attention",
    "fig5_clusters",
    "fig6_local_global",
    "fig9",
    "fig10_denoising",
)
CONVERGENCE = "fig8_convergence"  # of results/<suite>/san, which `snakemake fig8` makes
MODES = ("offline", "online", "disabled")  # how W&B publishes


def figure_8(suite: str, results: Path = Path("results")) -> Path:
    """Where `snakemake fig8` draws Figure 8."""
    return results / suite / "san" / f"{CONVERGENCE}.png"


def chart_names(plan: Plan) -> list[str]:
    """The figures that are always drawn, whatever runs exist: file names without suffixes."""
    tables = {name: table for name, table in plan.tables.items() if has_runs(table)}
    charts = [name for name, table in tables.items() if table.kind == "grid" or table.figure]
    charts += [MAIN_RESULTS] * (main_table(plan) is not None)
    charts += [CERTAINTY] * (certainty_table(plan) is not None)
    return charts + [OVERVIEW] * has_overview(plan)


def main_table(plan: Plan) -> Table | None:
    """The first table with runs that is not a grid."""
    return next((t for t in plan.tables.values() if t.kind != "grid" and has_runs(t)), None)


def certainty_table(plan: Plan) -> Table | None:
    """The first table with runs that says how far logits can be trusted."""
    tables = (table for table in plan.tables.values() if has_runs(table))
    return next((table for table in tables if CERTAINTY_METRIC in table.metrics), None)


def has_overview(plan: Plan) -> bool:
    """Whether the main table has the two rows that Figure 1a compares."""
    table = main_table(plan)
    return table is not None and {*OVERVIEW_ROWS} <= {r.name for r in table.rows if r.kind == "run"}


def has_runs(table: Table) -> bool:
    """Whether a table has a cell of a run: it has none of quoted rows, or in an empty role."""
    return any(cell.kind != "quoted" for row in table.rows for cell in row.cells)


def pictured(suite: Plan) -> dict[str, Table]:
    """The tables whose rows can be pictured. Raises UserError where there are only grids."""
    tables = suite.tables.items()
    if some := {name: each for name, each in tables if each.kind != "grid" and has_runs(each)}:
        return some
    raise UserError(f"suite {suite.suite} has no table but grids: there is nothing to picture")


def check_pictured(suite: Plan, benchmark: str, table: str | None) -> None:
    """Raise UserError for a benchmark or a table that is not there to picture."""
    suite.check_benchmarks([benchmark])
    tables = pictured(suite)
    if table is not None and table not in tables:
        raise UserError(f"no table {table!r} to picture; {nearest(table, tables)}")
