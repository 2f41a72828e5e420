"""Where a table's cell is filled: the plan of a suite and its finished runs → one tidy frame.

`tidy` gives a line for each cell. A cell whose run is missing or cannot be trusted has no value but
a reason. CSV, Markdown, LaTeX, charts and W&B are all made of this frame.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from cliptrase.config import Run
from cliptrase.config.error_names import OF_BACKGROUND, OF_LEDGER, OF_LOGITS
from cliptrase.config.kinds import has_background
from cliptrase.config.metric_names import FALLING
from cliptrase.config.schema import Crop, Slide
from cliptrase.plan import Plan, Table
from cliptrase.plan.files import SUMMARIES
from cliptrase.plan.tables import Cell, Row
from cliptrase.publish import compare
from cliptrase.publish.results import FinishedRun, Shelf
from cliptrase.publish.tables.printed import Key, Printed, read_peers, read_published
from cliptrase.runs import bootstrap
from cliptrase.runs.scoring import vocabulary_digest

# what stands before a reason: of missing runs, and of runs that cannot be taken together
SUMMARISED: dict[str, Callable[..., Any]] = {"mean": np.mean, "worst": np.min, "range": np.ptp}
REASONS = {
    **dict.fromkeys(
        SUMMARIES, ("it needs every row above it: ", "the rows above do not compare: ")
    ),
    "avg": ("an average needs every benchmark: ", "no average: "),
    "best": ("the best needs the whole grid: ", "no best: "),
}


@dataclass(frozen=True)
class Line:
    """One line of the tidy frame: the CSV's columns, up to `run`, then what only others need.

    Values are per cent (flops: times the group's first row); `published` keeps the printed digits.
    `kind` is the plan's: run, avg, mean, worst, range, flops, quoted, best or absent. `benchmark`
    is what was scored, `column` where it stands in the table. `reason` says why there is no value,
    `diff_reason` why there is no difference though there are two values, `note` where the paper
    contradicts itself, `versions_note` that the number compares runs made under other versions.
    `protocol` is `Run.protocol_text`; `short_side` is that of whole pictures. `row_note` is the
    footnote of the row, `best_of` the row that `best` stands for. `near_best`: the difference to
    the best of the column is not significant (only where the table asks). `runs`: every run that
    the value is made of. `chooses_rule`: the row itself sets its metric rule.
    """

    table: str
    row: str
    benchmark: str
    metric: str
    image_size: int
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    versus: str = ""
    diff: float | None = None
    diff_low: float | None = None
    diff_high: float | None = None
    published: str = ""
    delta: float | None = None
    model: str = ""
    protocol: str = ""
    vocabulary: str = ""
    rule: str = ""
    run: str = ""
    kind: str = "run"
    column: str = ""
    near_best: bool = False
    group: str = ""
    reason: str = ""
    diff_reason: str = ""
    versions_note: str = ""
    note: str = ""
    row_note: str = ""
    short_side: int | None = None
    stride: int | None = None
    eps: float | None = None
    min_samples: int | None = None
    chooses_rule: bool = False
    best_of: str = ""
    runs: tuple[str, ...] = ()
    images: int | None = None
    commit: str = ""
    code: str = ""


FIELDS = [field.name for field in fields(Line)]
COLUMNS = tuple(FIELDS[: FIELDS.index("run") + 1])  # of the CSV
NUMBERS: Any = {float | None: "float64", int | None: "Int64"}
OF_CELL = ("table", "row", "benchmark", "metric", "image_size", "kind", "column", "protocol")
OF_ROW = ("group", "eps", "min_samples", "chooses_rule")
pd.set_option("mode.string_storage", "python")  # Arrow's strings make tables three times as slow
TYPES = {field.name: NUMBERS[field.type] for field in fields(Line) if field.type in NUMBERS}


def tidy(plan: Plan, shelf: Shelf, table: Table) -> pd.DataFrame:
    """The cells of one table, a line each, in the plan's order; the columns are those of `Line`."""
    printed = read_published() | read_peers()
    frame = to_frame(
        _fill(plan, shelf, table, printed, row, cell) for row in table.rows for cell in row.cells
    )
    if table.compare_to_best:
        _mark_near_best(frame, shelf)
    return frame


def to_frame(lines: Iterable[Line]) -> pd.DataFrame:
    """The lines as a frame: NaN where there is no number, "" where there is no text."""
    return pd.DataFrame(list(lines), columns=FIELDS).astype(TYPES)


def missing(frame: pd.DataFrame) -> tuple[int, int, dict[str, int]]:
    """Missing cells, all cells, and how many cells each reason empties.

    Quoted cells and those that are meant to be empty are not counted.
    """
    wanted = frame[~frame["kind"].isin(["quoted", "absent"])]
    gone = wanted[wanted["value"].isna()]
    return len(gone), len(wanted), gone["reason"].value_counts().to_dict()


def _counterpart(table: Table, row: Row, cell: Cell) -> Cell | None:
    """The cell that a cell is compared with: in the same column of another row of its group."""
    rows = [other for other in table.rows if (other.group, other.name) == (row.group, cell.versus)]
    place = (cell.column, cell.metric)
    cells = (each for other in rows for each in other.cells if cell.kind != "flops")
    return next((each for each in cells if (each.column, each.metric) == place), None)


def _fill(
    plan: Plan, shelf: Shelf, table: Table, printed: dict[Key, Printed], row: Row, cell: Cell
) -> Line:
    """The line of one cell."""
    protocols = [run.protocol for run in cell.settings]
    same: dict[str, Any] = {key: getattr(cell, key) for key in OF_CELL}
    same |= {key: getattr(row, key) for key in OF_ROW}
    line = Line(
        **same,
        model=_joined(map(model_of, cell.settings)),
        vocabulary=_joined(map(vocabulary_of, cell.settings)),
        rule=_joined(protocol.rule for protocol in protocols),
        short_side=_common(protocols, "short_side"),
        stride=_common(protocols, "stride"),
        row_note=row.note,
    )
    if cell.kind == "absent":
        return replace(line, reason=cell.reason)
    paper = printed.get((cell.table, cell.row, cell.benchmark, cell.metric))
    if cell.kind == "quoted":
        assert paper is not None  # the plan makes quoted cells from the same file
        return replace(line, published=paper.text, note=paper.note)
    versus = _counterpart(table, row, cell)
    line = replace(line, run=cell.run, versus=versus.row if versus else "")
    line = _compute(shelf, table, line, cell, versus)
    if paper and plan.published and paper.image_size in (None, cell.image_size):
        delta = None if line.value is None else line.value - paper.value
        line = replace(line, published=paper.text, delta=delta, note=paper.note)
    return line


def _compute(shelf: Shelf, table: Table, line: Line, cell: Cell, versus: Cell | None) -> Line:
    """The number of a cell from its run, or from those that it is the mean, best, ratio, … of."""
    runs, reason = shelf.find_all(_runs_of(cell))
    not_all, not_together = REASONS.get(cell.kind, ("", ""))
    if reason:
        return replace(line, reason=not_all + reason)
    if reason := compare.different_code(runs):
        return replace(line, reason=not_together + reason)
    line = replace(line, runs=_runs_of(cell), versions_note=compare.different_versions(runs))
    if cell.kind == "flops":
        flops, first = (run.metrics.get("flops") for run in runs)
        if not flops or not first:
            return replace(line, reason="the run counted no operations")
        return replace(line, value=flops / first)
    if cell.kind == "best":
        # of equals the first; a run without a scored pixel is not the best
        values = [-1.0 if (v := run.value(cell.metric)) is None else v for run in runs]
        runs = [runs[values.index(max(values))]]
        best = runs[0].name
        rows = [row.name for row in table.rows for each in row.cells if each.run == best]
        line = replace(line, run=best, runs=(best,), best_of=rows[-1])
    if cell.metric in OF_LEDGER and (bare := [run for run in runs if run.errors is None]):
        return replace(line, reason=f"{bare[0].folder}: keeps no ledger of its errors")
    if cell.kind in SUMMARIES:
        return _summary(line, cell.kind, runs)
    if reason := _why_absent(cell, runs):
        return replace(line, kind="absent", reason=reason)
    value, ends = compare.mean_value(runs, cell.metric), runs[0].interval(cell.metric)
    if cell.kind == "avg":
        if value is None:
            return replace(line, reason="an average needs a value on every benchmark")
        if cell.metric not in OF_LOGITS:
            ends = bootstrap.interval(value, compare.mean_resampled(runs, cell.metric))
    else:
        line = replace(line, images=int(runs[0].metrics["images"]))
        if value is None:
            return replace(line, reason=f"{runs[0].folder}: no pixel was scored")
        line = replace(line, commit=runs[0].commit)
    line = replace(line, value=value, ci_low=ends[0], ci_high=ends[1], code=runs[0].code)
    return line if versus is None else _compare(shelf, line, runs, versus)


def _summary(line: Line, kind: str, runs: list[FinishedRun]) -> Line:
    """The mean, the worst or the range of a metric over runs of one benchmark, with the interval of
    the same of their resamples."""
    values = [value for run in runs if (value := run.value(line.metric)) is not None]
    if len(values) < len(runs):
        return replace(line, reason="it needs a value in every row above it")
    of = np.max if kind == "worst" and line.metric in FALLING else SUMMARISED[kind]
    value = float(of(values))
    ends: tuple[float | None, float | None] = (None, None)
    if line.metric not in OF_LOGITS:
        ends = bootstrap.interval(
            value, of([run.in_resamples(line.metric) for run in runs], axis=0)
        )
    return replace(line, value=value, ci_low=ends[0], ci_high=ends[1], code=runs[0].code)


def _why_absent(cell: Cell, runs: list[FinishedRun]) -> str:
    """Why a number of a ledger is meant to be empty, "" where it is not."""
    if cell.metric in OF_BACKGROUND and not all(map(has_background, cell.settings)):
        return "no background is scored"
    if cell.metric in OF_LOGITS and any(run.value(cell.metric) is None for run in runs):
        return "no logit of a pixel decides: regions vote, or label maps come from files"
    return ""


def _compare(shelf: Shelf, line: Line, runs: list[FinishedRun], versus: Cell) -> Line:
    """The paired difference to the cell compared with, where there is a number in it."""
    others, reason = shelf.find_all(_runs_of(versus))
    if reason:
        return line  # the row compared with shows its reason itself
    if why := compare.why_no_pair(runs, others):
        return replace(line, diff_reason=f"no difference: {why}")
    difference = compare.paired_difference(runs, others, line.metric)
    if difference is None:
        return line
    diff, low, high = difference
    note = compare.different_versions([*runs, *others]) or line.versions_note
    return replace(line, diff=diff, diff_low=low, diff_high=high, versions_note=note)


def _runs_of(cell: Cell) -> tuple[str, ...]:
    return (cell.run,) if cell.run else cell.runs


def _mark_near_best(frame: pd.DataFrame, shelf: Shelf) -> None:
    """Mark every cell that may be as good as the best of its column in its group.

    That is where the interval of best − cell, from the same resamples, holds 0. The best itself,
    the first of equals, is not marked, nor is what cannot be compared with it.
    """
    numbers = frame[frame["kind"].isin(["run", "avg"]) & frame["value"].notna()]
    places = numbers.groupby(["group", "column", "metric", "protocol", "rule"], sort=False)
    for (_, _, metric, _, _), lines in places:
        if lines["code"].nunique() > 1 or metric in FALLING:
            continue  # nothing is the best of what different code made; nor is the highest error
        place = lines["value"].idxmax()
        best, _ = shelf.find_all(lines["runs"][place])
        for index, names in lines["runs"].drop(place).items():
            runs, _ = shelf.find_all(names)
            if compare.why_no_pair(best, runs):
                continue
            difference = compare.paired_difference(best, runs, metric)
            if difference is not None and difference[1] <= 0 <= difference[2]:
                frame.loc[index, "near_best"] = True
                if note := compare.different_versions([*runs, *best]):
                    frame.loc[index, "versions_note"] = note


def _joined(values: Iterable[str]) -> str:
    """Each that differs, in the order of the columns."""
    return " ".join(dict.fromkeys(values))


def _common(protocols: list[Crop | Slide], key: str) -> int | None:
    """What all have, None where they differ."""
    values = {getattr(protocol, key, None) for protocol in protocols}
    return values.pop() if len(values) == 1 else None


def model_of(run: Run) -> str:
    """`vit_b16`, or `vit_b16(precision=bf16)`: the model and what of it is not at its default."""
    changed = ",".join(f"{key}={value}" for key, value in run.model.changed.items())
    return run.model.label + (f"({changed})" if changed else "")


def vocabulary_of(run: Run) -> str:
    """`voc20+voc21_background@1a2b3c4d5e`: what a run's classes are called.

    The name of its class list, of its background list after a plus, `distractors50` where there are
    so many, and ten digits of the digest of all these names and the templates.
    """
    lists, drawn = (run.vocabulary.classes, run.vocabulary.background), run.vocabulary.distractors
    names = "+".join(each.name for each in lists if each is not None)
    names += f"+distractors{drawn.count}" if drawn else ""
    return f"{names}@{vocabulary_digest(run)[: compare.SHORT]}"
