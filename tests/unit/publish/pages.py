"""Pages of drawn runs: a small suite, its pictures, names that would be markup."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.unit.publish.conftest import make_pass_files, make_runs

from cliptrase.plan import Plan
from cliptrase.publish.page import command as page
from cliptrase.publish.page import contents, kept_pictures
from cliptrase.publish.page.kept_pictures import Kept
from cliptrase.publish.results import Shelf
from cliptrase.publish.run_folders import Folder
from cliptrase.publish.run_pairs import by_image

SIDE, GRID = 32, (4, 4)
HOSTILE = (
    "</script><script>document.title='taken'</script>",
    "\"><img src=x onerror=alert(1)>'",
    r"\textbf{$x$} & {{ 7*7 }} {% raw %}",
    "\u202eturned\x07",
    "long " * 200,
)


def shelf_of(suite: Plan, results: Path) -> Shelf:
    return Shelf(suite, results, Path("no data"))


def write_page(suite: Plan, results: Path) -> str:
    """The text of the page; also written to <results>/<suite>/index.html."""
    text = page.page_text(contents.page_facts(suite, shelf_of(suite, results)))
    file = results / suite.suite / "index.html"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return text


def keep_drawn(suite: Plan, results: Path, benchmark: str, names: list[str]) -> Kept:
    """Write pictures of a benchmark that are noise, one for each image of its runs."""
    rows = suite.tables[suite.pictures].rows
    runs = {
        row.name: cell.run
        for row in rows
        for cell in row.cells
        if cell.benchmark == benchmark and cell.metric == "mIoU" and cell.kind == "run"
    }
    folders = [Folder(results / "runs" / run) for run in runs.values()]
    by_run = [by_image(each, each.metrics["rule"]) for each in folders]
    ids, rng = folders[0].counts.ids.tolist(), np.random.default_rng(5)
    chosen = kept_pictures.chosen(ids, by_run[-1])
    count, patches = len(chosen), GRID[0] * GRID[1]
    kept = Kept(
        {
            "benchmark": benchmark,
            "grid": GRID,
            "runs": [
                {"row": row, "run": run, "counts": kept_pictures.counts_digest(folder.path)}
                for (row, run), folder in zip(runs.items(), folders, strict=True)
            ],
            "names": names,
            "background": None,
            "pictures": [
                {"id": ids[place], "why": why, "scores": [float(each[place]) for each in by_run]}
                for place, why in chosen
            ],
        },
        rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8),
        rng.integers(-1, len(names), (count, SIDE, SIDE), np.int16),
        rng.integers(0, len(names), (len(runs), count, SIDE, SIDE), np.int16),
        rng.integers(0, 256, (count, patches, patches), np.uint8),
        rng.random(count, np.float32),
        rng.integers(0, 256, (count, patches, patches), np.uint8),
    )
    kept_pictures.write(kept_pictures.file_of(results, suite.suite, benchmark), kept)
    return kept


def make_page(suite: Plan, results: Path) -> str:
    """All runs of a suite, pictures of all benchmarks but the last, and the page."""
    make_runs(suite, results, images=13)
    make_pass_files(suite, results)
    for benchmark in suite.tables[suite.pictures].benchmarks[:-1]:
        keep_drawn(suite, results, benchmark, [f"class {place}" for place in range(3)])
    return write_page(suite, results)


def hostile(suite: Plan) -> Plan:
    """The first table of a suite, with names that would be markup, LaTeX or a template."""
    name, table = next(iter(suite.tables.items()))
    rows = tuple(
        replace(
            row, name=odd, versus="", cells=tuple(replace(c, row=odd, versus="") for c in row.cells)
        )
        for row, odd in zip(table.rows, HOSTILE, strict=False)
    )
    runs = {cell.run for row in rows for cell in row.cells}
    return replace(
        suite,
        title=HOSTILE[0],
        tables={name: replace(table, title=HOSTILE[1], rows=rows)},
        runs={run: suite.runs[run] for run in suite.runs if run in runs},
        pictures="",
    )


def data_of(text: str) -> dict:
    """What the script of a page reads."""
    _, _, rest = text.partition('<script type="application/json" id="data">')
    return json.loads(rest.partition("</script>")[0])
