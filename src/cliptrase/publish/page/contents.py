"""What the page of a suite says, as plain values: tables, runs, pairs of runs, cost. No HTML."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from cliptrase.config.metric_names import METRICS
from cliptrase.plan import Plan, Table
from cliptrase.publish import figure_8, has_runs
from cliptrase.publish.compare import paired_difference, why_no_pair
from cliptrase.publish.page import kept_pictures
from cliptrase.publish.page.pair_facts import groups_of
from cliptrase.publish.page.run_facts import read_run, worst_class
from cliptrase.publish.page.table_facts import table_facts, walks
from cliptrase.publish.results import Shelf
from cliptrase.publish.run_folders import Facts, Folder
from cliptrase.publish.tables.cells import tidy
from cliptrase.publish.tables.comparable import comparables
from cliptrase.publish.tables.render import interval, number

IMAGES = "images"  # the stage that is the time of all the others, from the first image to the last


def page_facts(suite: Plan, shelf: Shelf) -> Facts:
    """All that the page shows. The same values from the same runs."""
    tables = {name: table for name, table in suite.tables.items() if has_runs(table)}
    frames = {name: tidy(suite, shelf, table) for name, table in tables.items()}
    found = {name: run for name in suite.runs if (run := shelf.find(name)[0]) is not None}
    folders = {name: run.folder for name, run in found.items()}
    read = {name: read_run(run) for name, run in found.items()}
    runs = {name: each.facts for name, each in read.items()}
    groups = list(groups_of(read))
    for name, frame in frames.items():
        for line in frame[frame["run"].isin(runs.keys())].itertuples():
            where = [tables[name].title, line.row]
            if where not in runs[line.run]["shown"]:  # once for all its metrics
                runs[line.run]["shown"].append(where)
    for number_of_group, group in enumerate(groups):
        for place, name in enumerate(group["runs"]):
            if runs[name]["names"] == group["classes"]:
                del runs[name]["names"]  # most have the group's
            runs[name] |= {
                "group": number_of_group,
                "place": place,
                "benchmark": suite.runs[name].benchmark.name,
            }
    shown = [table_facts(suite, tables[name], frame) for name, frame in frames.items()]
    files = {table["name"]: table["files"] for table in shown}
    pictures = []
    if suite.pictures:
        pictures = [
            kept_pictures.shown(shelf.results, suite.suite, benchmark, folders)
            for benchmark in suite.tables[suite.pictures].benchmarks
        ]
    return {
        "suite": suite.suite,
        "title": suite.title,
        "gone": {name: shelf.find(name)[1] for name in suite.runs if name not in runs},
        "tables": shown,
        "short": list(_in_short(shelf, tables, frames, folders)),
        "pictures": pictures,
        "walks": [walk for name, frame in frames.items() for walk in walks(tables[name], frame)],
        "cost": _cost(suite, runs),
        "figure_8": figure_8(suite.suite, shelf.results).is_file(),
        "script": {
            "runs": runs,
            "groups": groups,
            "metrics": METRICS,
            "files": files,
            "pictures": [kept_pictures.less_thumbs(each) for each in pictures],
        },
    }


def _in_short(
    shelf: Shelf,
    tables: Mapping[str, Table],
    frames: Mapping[str, pd.DataFrame],
    folders: Mapping[str, Path],
) -> Iterator[Facts]:
    """Of each benchmark the best row, what it leads the second by, and its worst class. In the
    first table that marks what is as good as the best, else in the first that is not a grid."""
    metric_tables = [name for name, table in tables.items() if table.kind != "grid"]
    comparing = [name for name in metric_tables if tables[name].compare_to_best]
    for name in (comparing or metric_tables)[:1]:
        metric = tables[name].metrics[0]
        lines = comparables(frames[name])[0].lines
        lines = lines[(lines["kind"] == "run") & (lines["metric"] == metric)]
        for benchmark, column in lines[lines["run"].isin(folders.keys())].groupby(
            "column", sort=False
        ):
            ranked = column.sort_values("value", ascending=False, kind="stable")
            best, *others = ranked.itertuples()
            yield {
                "table": tables[name].title,
                "benchmark": benchmark,
                "row": best.row,
                "run": best.run,
                "metric": metric,
                "value": f"{number(best.value)} {interval(best.ci_low, best.ci_high)}",
                "second": others[0].row if others else "",
                "lead": _lead(shelf, best.run, others[0].run, metric) if others else "",
                "worst": worst_class(Folder(folders[best.run])),
            }


def _lead(shelf: Shelf, best: str, second: str, metric: str) -> str:
    [run, other], _ = shelf.find_all([best, second])
    gap = None if why_no_pair([run], [other]) else paired_difference([run], [other], metric)
    if gap is None:
        return "cannot be compared"
    text = f"{number(gap[0], True)} {interval(gap[1], gap[2], True)}"
    return text + (", not significant" if gap[1] <= 0 <= gap[2] else ", significant")


def _cost(suite: Plan, runs: Mapping[str, Facts]) -> Facts:
    """Seconds of each stage of each pass. A pass whose runs were made at several times counts each
    of them."""
    seconds: dict[str, dict[str, float]] = {}
    for name, each in suite.passes.items():
        made = {}
        for run in each.runs:
            if run in runs:
                cost = runs[run]["cost"]["seconds"]
                made[runs[run]["made"]["started"], *cost.items()] = cost
        total: dict[str, float] = {}
        for cost in made.values():
            for stage, took in cost.items():
                total[stage] = total.get(stage, 0.0) + took
        if total:
            seconds[name] = total
    stages = list(dict.fromkeys(stage for each in seconds.values() for stage in each))
    stages = [stage for stage in stages if stage != IMAGES]
    sums = {stage: sum(each.get(stage, 0.0) for each in seconds.values()) for stage in stages}
    top = max(sums.values(), default=0.0) or 1.0
    return {
        "stages": [(stage, sums[stage], round(100 * sums[stage] / top, 1)) for stage in stages],
        "passes": [
            (name, [each.get(stage, 0.0) for stage in stages], sum(each.get(s, 0) for s in stages))
            for name, each in seconds.items()
        ],
        "total": sum(sums.values()),
    }
