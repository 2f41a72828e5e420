"""What the page of a suite says, as plain values: tables, runs, pairs of runs, cost. No HTML."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cliptrase.config.metric_names import METRICS
from cliptrase.plan import Plan, Table
from cliptrase.plan.files import read_table
from cliptrase.publish import figure_8, has_runs, run_report
from cliptrase.publish.compare import paired_difference, why_no_pair
from cliptrase.publish.page import kept_pictures
from cliptrase.publish.results import FinishedRun, Shelf
from cliptrase.publish.run_report import Folder, Scored
from cliptrase.publish.tables.captions import NEAR_BEST, PAIRED
from cliptrase.publish.tables.cells import tidy
from cliptrase.publish.tables.comparable import comparables
from cliptrase.publish.tables.layout import FLOPS, Panel, sheet_of
from cliptrase.publish.tables.render import (
    ABSENT,
    number,
    sections_of,
    to_csv,
    to_latex,
    to_markdown,
)
from cliptrase.runs import bootstrap
from cliptrase.runs.metrics import class_counts

Facts = dict[str, Any]
HOW_TO_READ = (
    "Per cent; the interval is a 95 % bootstrap over images, and a difference is paired, image by "
    "image. Bold: the best of its column among the rows it stands with, or of the grid."
)
QUANTILES = [bootstrap.LOW, bootstrap.MIDDLE, bootstrap.HIGH]
MOST = 10  # images that differ most between two runs, and that a run is worst on
IMAGES = "images"  # the stage that is the time of all the others, from the first image to the last


def page_facts(suite: Plan, shelf: Shelf) -> Facts:
    """All that the page shows. The same values from the same runs."""
    tables = {name: table for name, table in suite.tables.items() if has_runs(table)}
    frames = {name: tidy(suite, shelf, table) for name, table in tables.items()}
    found = {name: run for name in suite.runs if (run := shelf.find(name)[0]) is not None}
    folders = {name: run.folder for name, run in found.items()}
    read = {name: _read(run) for name, run in found.items()}
    runs = {name: each.facts for name, each in read.items()}
    groups = list(_groups(read))
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
    shown = [_table(suite, tables[name], frame) for name, frame in frames.items()]
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
        "walks": [walk for name, frame in frames.items() for walk in _walks(tables[name], frame)],
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


# --- tables --------------------------------------------------------------------------------------


def _table(suite: Plan, table: Table, frame: pd.DataFrame) -> Facts:
    sheet = sheet_of(suite, table, frame)
    return {
        "name": table.name,
        "title": table.title,
        "facts": sheet.facts,
        "panels": [_panel(panel, table.kind == "grid") for panel in sheet.panels],
        "notes": [(mark, text) for text, mark in sheet.notes.items()],
        "remarks": [HOW_TO_READ, *(each for each in sheet.remarks[1:] if PAIRED not in each)],
        "files": {
            "CSV": to_csv(frame),
            "Markdown": to_markdown(sheet),
            "LaTeX": to_latex(sheet),
        },
    }


def interval(low: float, high: float, sign: bool = False) -> str:
    """`[29.83, 32.10]`, or nothing where there is none."""
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"[{number(low, sign)}, {number(high, sign)}]"


def _value(cell: Any) -> str:
    """The value of a cell, of a quoted one what the paper prints; "" where none is meant to be."""
    if cell.kind == "quoted":
        return str(cell.published)
    if pd.isna(cell.value):
        return "" if cell.kind == "absent" else ABSENT
    return number(cell.value) + "×" * (cell.metric == FLOPS)


def _below(cell: Any) -> Iterator[tuple[str, str]]:
    """What stands below the value of a cell, each with its marks; "" for what it does not have: its
    interval, the difference, what the paper prints."""
    yield interval(cell.ci_low, cell.ci_high), ""
    gap = "no difference" * bool(cell.diff_reason)
    if not pd.isna(cell.diff):
        gap = f"{number(cell.diff, True)} {interval(cell.diff_low, cell.diff_high, True)}".strip()
        gap += " not significant" * bool(cell.diff_low <= 0 <= cell.diff_high)
    yield gap, cell.diff_marks
    if cell.published and cell.kind != "quoted":
        delta = "" if pd.isna(cell.delta) else f" ({number(cell.delta, True)})"
        yield f"paper {cell.published}{delta}", cell.printed_marks


def _panel(panel: Panel, heat: bool) -> Facts:
    cells = {(cell.down, cell.across): cell for cell in panel.cells.itertuples()}
    values = panel.cells["value"]
    low, span = values.min(), values.max() - values.min()

    def shown(cell: Any) -> Facts:
        value = _value(cell)
        return {
            "text": value,
            "best": bool(cell.best),
            "marks": cell.marks,
            "more": [
                (text, marks.replace(NEAR_BEST, "").strip(","))
                for text, marks in _below(cell)
                if text
            ],
            "run": cell.run if value != ABSENT else "",
            "value": None if pd.isna(cell.value) else float(cell.value),
            "heat": round((cell.value - low) / span, 2) if heat and span > 0 else None,
        }

    return {
        "title": panel.title,
        "corner": panel.corner,
        "columns": panel.columns,
        "sections": [
            (
                title,
                [
                    {
                        "label": row.label,
                        "marks": row.label_marks,
                        "to": row.to,
                        "cells": [
                            shown(cell) if (cell := cells.get((row.down, across))) else None
                            for across in range(len(panel.columns))
                        ],
                    }
                    for row in rows
                ],
            )
            for title, rows in sections_of(panel)
        ],
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
                "worst": _worst_class(Folder(folders[best.run])),
            }


def _lead(shelf: Shelf, best: str, second: str, metric: str) -> str:
    [run, other], _ = shelf.find_all([best, second])
    gap = None if why_no_pair([run], [other]) else paired_difference([run], [other], metric)
    if gap is None:
        return "cannot be compared"
    text = f"{number(gap[0], True)} {interval(gap[1], gap[2], True)}"
    return text + (", not significant" if gap[1] <= 0 <= gap[2] else ", significant")


def _walks(table: Table, frame: pd.DataFrame) -> Iterator[Facts]:
    """The cumulative groups of a table as waterfalls, one a column: each row changes the value of
    the row above. The bars are shares of the largest value."""
    spec = read_table(table.name)
    names = [group.name for group in getattr(spec, "groups", ()) if group.cumulative]
    lines = frame[frame["group"].isin(names) & frame["kind"].isin(["run", "avg"])]
    lines = lines[lines["value"].notna() & (lines["metric"] == table.metrics[0])]
    columns = list(lines.groupby(["group", "column"], sort=False))
    for (group, column), steps in sorted(columns, key=lambda each: each[0][1] != "avg"):
        top = steps["value"].max() or 1.0
        values = [0.0, *steps["value"]]
        yield {
            "title": f"{table.title}: {group}, {column}",
            "open": column == "avg",
            "metric": table.metrics[0],
            "steps": [
                {
                    "label": line.row,
                    "value": number(line.value),
                    "change": "" if pd.isna(line.diff) else number(line.diff, True),
                    "interval": interval(line.diff_low, line.diff_high, True),
                    "zero": bool(line.diff_low <= 0 <= line.diff_high),
                    "left": round(100 * min(before, after) / top, 2),
                    "width": round(max(0.3, 100 * abs(after - before) / top), 2),
                    "kind": "whole" if not before else "down" if after < before else "up",
                }
                for line, (before, after) in zip(steps.itertuples(), pairwise(values), strict=True)
            ],
        }


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


# --- runs ----------------------------------------------------------------------------------------


class Read(NamedTuple):
    """What is kept of a run: the counts of all runs together would fill the memory.

    facts: for its dialog; truth: the same for runs of the same images and ground truth; scored:
    under its own rule.
    """

    path: Path
    facts: Facts
    truth: str
    scored: Scored


def _read(run: FinishedRun) -> Read:
    folder = Folder(run.folder)
    truth = sha256(json.dumps(folder.counts.ids.tolist()).encode())
    truth.update(folder.counts.gt.tobytes())
    own = run_report.scored(folder, folder.metrics["rule"], run.resampled)
    return Read(run.folder, _run(folder, own.by_image), truth.hexdigest(), own)


def _run(folder: Folder, by_image: NDArray[np.float64]) -> Facts:
    """A run in full, as `cliptrase show` says it, with the images that it is worst on."""
    facts = run_report.report(folder)
    order = np.argsort(np.nan_to_num(by_image, nan=np.inf), kind="stable")
    order = order[: int(np.isfinite(by_image).sum())]
    ids = folder.counts.ids.tolist()
    return {
        "names": folder.names,
        "rule": facts["rule"],
        "images": facts["images"],
        "skipped": facts["skipped"],
        "scores": {
            rule: {metric: _spanned(*scores[metric]) for metric in METRICS}
            for rule, scores in facts["scores"].items()
        },
        "classes": _classes(folder),
        "confusions": facts["confusions"],
        "errors": _errors(facts["errors"]),
        "certainty": facts["errors"] and facts["errors"]["certainty"],
        "worst": [(ids[place], round(float(by_image[place]), 1)) for place in order[:MOST]],
        "cost": facts["cost"],
        "made": facts["made"] | {key: facts[key] for key in ("working_folder", "data_folder")},
        "command": facts["command"],
        "config": (folder.path / "config.yaml").read_text(encoding="utf-8"),
        "shown": [],
    }


def _errors(errors: Facts | None) -> list[list[str]]:
    """The ledger of a run, a row of texts each category and mean; none where it keeps none."""
    if errors is None:
        return []
    rows = [
        [each["name"], *_spanned(*each["share"]), each["most"]] for each in errors["categories"]
    ]
    return rows + [[name, *_spanned(*each), ""] for name, each in errors["means"].items()]


def _spanned(value: float | None, low: float | None, high: float | None) -> list[str]:
    if value is None:
        return [ABSENT, ""]
    return [number(value), "" if low is None or high is None else interval(low, high)]


def _classes(folder: Folder) -> Facts:
    """Pixels of each class; and what most of those that are missed are taken for, an index (the
    number of classes for no class, −1 for nothing), with its per cent of the class."""
    wrong = folder.confusion.copy()
    np.fill_diagonal(wrong, 0)
    tp, gt, pred = class_counts(folder.confusion)
    most = wrong.max(axis=1)
    return {
        "tp": tp.tolist(),
        "gt": gt.tolist(),
        "pred": pred.tolist(),
        "taken": np.where(most > 0, wrong.argmax(axis=1), -1).tolist(),
        "of": np.round(100 * most / np.maximum(gt, 1), 1).tolist(),
    }


def _worst_class(folder: Folder) -> Facts | None:
    """The scored class of the lowest IoU and its share of the scored pixels, None where none is
    scored."""
    values = [each["value"] for each in folder.metrics["iou"]]
    scored = [place for place, value in enumerate(values) if value is not None]
    if not scored:
        return None
    place = min(scored, key=lambda each: values[each])
    facts, names = _classes(folder), [*folder.names, "no class"]
    return {
        "name": names[place],
        "iou": f"{values[place]:.1f}",
        "share": f"{100 * facts['gt'][place] / max(1, sum(facts['gt'])):.2f}",
        "taken": names[facts["taken"][place]] if facts["taken"][place] >= 0 else "",
        "of": f"{facts['of'][place]:.1f}",
    }


# --- pairs of runs -------------------------------------------------------------------------------


def _groups(read: Mapping[str, Read]) -> Iterator[Facts]:
    """Runs that may be compared image by image, as `run_report.compare` refuses others, with all
    their pairs."""
    alike: dict[str, list[str]] = {}
    for name, each in read.items():
        alike.setdefault(each.truth, []).append(name)
    for names in alike.values():
        first = Folder(read[names[0]].path)
        yield {
            "runs": names,
            "images": first.counts.ids.tolist(),
            "classes": first.names,
            **_pairs([read[name] for name in names]),
        }


def _pairs(read: Sequence[Read]) -> Facts:
    """Each run less each that follows it, and the other way round where their rules differ, as
    `run_report.compare` has them, rounded as the command prints them.

    A pair is [number of its notes; gap, low, high, … of each metric, in hundredths; better, worse:
    how many images; image, value, other, difference, … of the images that differ most, in tenths].
    """
    runs = [Folder(each.path) for each in read]  # for what is small: metrics and provenance
    rules = [run.metrics["rule"] for run in runs]
    noted: dict[tuple[str, ...], int] = {(): 0}
    pairs: list[list[Any]] = []

    @cache
    def scored(place: int, rule: str) -> Scored:
        own = rule == rules[place]
        return read[place].scored if own else run_report.scored(Folder(read[place].path), rule)

    for place, rule in enumerate(rules):
        others = [
            other
            for other, its in enumerate(rules)
            if other > place or (its != rule and other != place)
        ]
        rows = _less(scored(place, rule), [scored(other, rule) for other in others])
        for other, row in zip(others, rows, strict=True):
            notes = tuple(run_report.notes(runs[place], runs[other]))
            pairs.append([noted.setdefault(notes, len(noted)), *row])
    return {"pairs": pairs, "notes": [list(notes) for notes in noted]}


def _less(run: Scored, others: Sequence[Scored]) -> Iterator[list[int | None]]:
    """`run` less each of the others, as a pair of `_pairs` after its notes."""
    if not others:
        return
    gaps = {metric: _gaps(run, others, metric) for metric in METRICS}
    for place, other in enumerate(others):
        pair = [_rounded(value, 2) for metric in METRICS for value in gaps[metric][place]]
        difference = run.by_image - other.by_image
        pair += [int((difference > 0).sum()), int((difference < 0).sum())]
        for image in run_report.by_difference(run.by_image, other.by_image)[:MOST]:
            if difference[image]:
                values = (run.by_image[image], other.by_image[image], difference[image])
                pair += [int(image), *(_rounded(value, 1) for value in values)]
        yield pair


def _gaps(run: Scored, others: Sequence[Scored], metric: str) -> NDArray[np.float64]:
    """The paired differences to the others with their intervals, (others, 3), as
    `bootstrap.difference`, of all at once."""
    values = np.stack([run.resampled[metric] - other.resampled[metric] for other in others])
    if np.isnan(values).any():
        return np.array(
            [
                bootstrap.difference(
                    run.points[metric],
                    run.resampled[metric],
                    other.points[metric],
                    other.resampled[metric],
                )
                for other in others
            ]
        )
    gap = np.array([run.points[metric] - other.points[metric] for other in others])
    low, middle, high = np.quantile(values, QUANTILES, axis=1)
    return np.stack([gap, gap + (low - middle), gap + (high - middle)], axis=1)


def _rounded(value: float, digits: int) -> int | None:
    """The digits that the command prints, without the point; None for no number."""
    return None if np.isnan(value) else int(f"{value:.{digits}f}".replace(".", ""))
