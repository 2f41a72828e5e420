"""A table's rows as horizontal bars, one panel a column: many methods, or step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cliptrase.plan.settings import in_words
from cliptrase.publish.cells import Line
from cliptrase.publish.frames import Frame, frames, titles
from cliptrase.publish.remarks import NEAR_BEST, sizes_of, unique
from cliptrase.publish.style import GREY, INK, PALE, ROWS

ACROSS = 5  # panels side by side
Row = tuple[str, str]  # group and name
BASE, PLAIN, BEST = ROWS[0], ROWS[1], ROWS[2]


def row_bars(title: str, lines: Sequence[Line]) -> Figure:
    """Bars of every row with 95 % whiskers, a panel for each column of each protocol and rule.

    Of several metrics the first is drawn. Grey: a group's first row, where others are compared
    with it; orange: the best of its group; ≈: not significantly below it. Rows that stand in no
    column are left out.
    """
    metric = next((line.metric for line in lines if line.kind in ("run", "avg")), "")
    found = {frame: _panels(own, metric) for frame, own in frames(lines).items()}
    heads = dict(zip(found, titles(list(found)), strict=True))
    panels = [(frame, column, own) for frame, part in found.items() for column, own in part.items()]
    rows = unique((line.group, line.row) for _, _, own in panels for line in own)
    across = max(1, min(ACROSS, len(panels)))
    down = max(1, -(-len(panels) // across))
    height = down * (0.21 * max(1, len(rows)) + 0.5) + 0.9
    figure = Figure(figsize=(2.6 + 1.75 * across, height), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (frame, column, own) in zip(grid.flat, panels, strict=False):
        _draw(axes, own, rows)
        axes.set_title("\n".join(filter(None, [heads[frame], column])), fontsize=9.5)
    for axes in grid[:, 0]:
        axes.set_yticks(np.arange(len(rows)), [name for _, name in rows], fontsize=8.5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(
        _about(list(found), panels, metric), fontsize=8.5, color=GREY, x=0.01, ha="left"
    )
    return figure


def _panels(lines: Sequence[Line], metric: str) -> dict[str, list[Line]]:
    """column → its lines, in order, those that are meant to be empty left out."""
    own = [line for line in lines if line.metric == metric and line.kind in ("run", "avg")]
    return {name: [line for line in own if line.column == name] for name in _columns(own)}


def _columns(lines: Sequence[Line]) -> list[str]:
    """The columns in order, the average last."""
    return sorted(unique(line.column for line in lines), key=lambda name: name == "avg")


def _draw(axes: Axes, lines: Sequence[Line], rows: Sequence[Row]) -> None:
    compared = {(line.group, line.versus) for line in lines}
    for group in unique(line.group for line in lines):
        there = [line for line in lines if line.group == group and line.value is not None]
        comparable = len(there) > 1 and len({(line.code, line.rule) for line in there}) == 1
        best = max(there, key=lambda line: line.value or 0.0) if comparable else None
        for line in there:
            first = line.row == there[0].row and (group, line.row) in compared
            colour = BEST if line is best else BASE if first else PLAIN
            _bar(axes, rows.index((group, line.row)), line, colour)
    groups = [group for group, _ in rows]
    for place in range(1, len(groups)):
        if groups[place] != groups[place - 1]:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.6)
    most = max((line.whisker[1] for line in lines), default=0.0)
    axes.set_xlim(0, 1.3 * most or 1)
    axes.grid(axis="x", color=PALE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8)


def _bar(axes: Axes, place: int, line: Line, colour: str) -> None:
    value = line.value or 0.0
    low, high = line.whisker
    axes.barh(
        place,
        value,
        0.74,
        xerr=[[value - low], [high - value]],
        color=colour,
        error_kw={"ecolor": INK, "elinewidth": 0.9, "capsize": 1.8, "capthick": 0.9},
    )
    axes.annotate(
        f"{value:.1f}" + f" {NEAR_BEST}" * line.near_best,
        (high, place),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=INK,
    )


def _about(
    found: Sequence[Frame], panels: Sequence[tuple[Frame, str, list[Line]]], metric: str
) -> str:
    lines = [line for _, _, own in panels for line in own]
    parts = [f"{metric} (%)", *unique(line.model for line in lines)]
    parts += [f"protocol {in_words(frame.protocol)}" for frame in found] if len(found) == 1 else []
    parts += sizes_of(lines)
    parts += ["95 % intervals", "grey: the first row", "orange: the best of its group"]
    if any(line.near_best for line in lines):
        parts.append(f"{NEAR_BEST}: not significantly below it")
    return " · ".join(filter(None, parts))
