"""What leaves the project: tables (csv, md, tex), figures and W&B, all derived from finished runs.

Reading order: `published` (what the paper prints), `runs` (what was computed), `cells` (one tidy
line a cell), `layout` (a table as the paper sets it), `render` (csv, Markdown, LaTeX), `tables`;
`style`, `charts`, `pictures`, `figures`; `tracking`. Nothing here starts a run.
"""

from __future__ import annotations

from cliptrase.plan import Plan

MAIN_RESULTS = "main_results"


def chart_names(plan: Plan) -> list[str]:
    """The figures that are always drawn, whatever runs exist: file names less .svg and .png."""
    grids = [name for name, table in plan.tables.items() if table.kind == "grid"]
    return grids + [MAIN_RESULTS] * (len(grids) < len(plan.tables))
