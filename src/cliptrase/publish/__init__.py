"""What leaves the project: tables (csv, md, tex), figures and W&B, all derived from finished runs.

Tables, in reading order: `results` (what was computed), `published` (what the paper prints),
`compare` (what may be compared), `cells` (where a cell is filled: one tidy frame), `layout` and
`remarks` (a table as the paper sets it), `render` (CSV, Markdown, LaTeX), `tables` (the command).
Figures: `style`, `charts` (of the tidy frame), `label_maps` and `attention`; `quantities` (what the
paper's figures show of a picture, as arrays), `paper_figures` (drawn) and `explanation` (in words);
`pictures` (of a suite), `figures` (the command). `page_data` (what a suite's page says) and `page`
(the command; its HTML, CSS and script are in page_files/). W&B: `tracking`. Nothing here starts a
run.
"""

from pathlib import Path

from cliptrase.plan import Plan, Table

PAGE_FILES = Path(__file__).with_name("page_files")  # the template of a page, its style and script
MAIN_RESULTS = "main_results"
MODES = ("offline", "online", "disabled")  # how W&B publishes


def chart_names(plan: Plan) -> list[str]:
    """The figures that are always drawn, whatever runs exist: file names less .svg and .png."""
    tables = {name: table for name, table in plan.tables.items() if has_runs(table)}
    charts = [name for name, table in tables.items() if table.kind == "grid" or table.figure]
    return charts + [MAIN_RESULTS] * any(table.kind != "grid" for table in tables.values())


def has_runs(table: Table) -> bool:
    """Whether a table has a cell of a run: it has none of quoted rows, or in an empty role."""
    return any(cell.kind != "quoted" for row in table.rows for cell in row.cells)
