"""The tables of a suite, in reading order: `printed` (what papers print), `cells` (where a cell is
filled: one tidy frame), `comparable` (which of its lines may stand side by side), `layout` and
`captions` (a table as the paper sets it), `render` (CSV, Markdown, LaTeX), `command`."""
