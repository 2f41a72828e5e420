"""What leaves the project: tables (csv, md, tex), figures and W&B, all derived from finished runs.

Reading order: `published` (what the paper prints), `runs` (what was computed), `cells` (one tidy
row a cell), `layout` (a table as the paper sets it), `render` (csv, Markdown, LaTeX), `figures`,
`pictures`, `tracking`. Nothing here starts a run.
"""
