"""What leaves the project: tables (csv, md, tex), figures and W&B, all derived from finished runs.

Reading order: `published` (what the paper prints), `runs` (what was computed), `cells` (one tidy
line a cell), `frames` (what may stand side by side), `layout` and `remarks` (a table as the paper
sets it), `render` (csv, Markdown, LaTeX), `tables`; `style`, `charts`, `row_charts`, `pictures`,
`figures`; `tracking`. Nothing here starts a run.
"""

from __future__ import annotations

from cliptrase.plan import Plan

MAIN_RESULTS = "main_results"


def chart_names(plan: Plan) -> list[str]:
    """The figures that are always drawn, whatever runs exist: file names less .svg and .png."""
    tables = plan.tables
    own = [name for name, table in tables.items() if table.kind == "grid" or table.figure]
    return own + [MAIN_RESULTS] * any(table.kind != "grid" for table in tables.values())
