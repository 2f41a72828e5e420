"""How far the logits of methods can be trusted: a chart of reliability and of risk."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cliptrase.publish import CERTAINTY_METRIC
from cliptrase.publish.figures.style import GREY, NOTHING, PALE, headed_with_legend, row_colour
from cliptrase.publish.ledger import COVERAGES, read_ledger, reliability, risk
from cliptrase.publish.results import Shelf
from cliptrase.publish.tables.captions import sizes_of
from cliptrase.runs.ledger import Ledger

ACROSS = 5  # benchmarks in a row of panels
PANEL = 1.9  # inches
LEAST = 20  # pixels of a group that is drawn: the share of fewer says nothing


def certainty(title: str, frame: pd.DataFrame, shelf: Shelf) -> Figure:
    """Of each column two panels: how much is right by confidence, and how much is wrong of the
    surest pixels; a line for each row whose logits decide."""
    lines = frame[(frame["metric"] == CERTAINTY_METRIC) & (frame["column"] != "avg")]
    columns = list(lines["column"].unique())
    across = min(ACROSS, len(columns))
    down = -(-len(columns) // across)
    size = max(5.6, PANEL * across), 2 * PANEL * down
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(2 * down, across, squeeze=False)
    drawn: dict[str, Line2D] = {}
    for place in range(across * down):
        row, column = divmod(place, across)
        upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
        if place >= len(columns):
            upper.set_visible(False)
            lower.set_visible(False)
            continue
        here = lines[lines["column"] == columns[place]]
        drawn |= _draw(upper, lower, columns[place], _ledgers(here, shelf), first=column == 0)
    about = ["every eleventh pixel, down and across", *dict.fromkeys(lines["model"])]
    about += [*sizes_of(lines), "rows without logits of pixels are not drawn (docs/errors.md)"]
    drawn = drawn or {NOTHING: Line2D([], [], color=GREY)}
    said = " · ".join(filter(None, about))
    headed_with_legend(figure, title, said, list(drawn.values()), list(drawn))
    return figure


def _ledgers(lines: pd.DataFrame, shelf: Shelf) -> dict[str, Ledger]:
    """Row → the ledger of its run, where that has counted logits."""
    found = {}
    for line in lines[lines["value"].notna()].itertuples():
        run, _ = shelf.find(str(line.run))
        if run is not None and (ledger := read_ledger(run.folder)) is not None:
            found[str(line.row)] = ledger
    return found


def _draw(
    upper: Axes, lower: Axes, head: str, ledgers: Mapping[str, Ledger], first: bool
) -> dict[str, Line2D]:
    """Both panels of a benchmark; returns a line of each row."""
    style: Any = {"linewidth": 1.3, "markersize": 3}
    drawn = {}
    upper.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="--")
    for row, ledger in ledgers.items():
        groups, colour = reliability(ledger.by_confidence), row_colour(row)
        some = groups.pixels >= LEAST
        upper.plot(groups.confidence[some], groups.right[some], "o-", color=colour, **style)
        covered = 100 * np.arange(1, COVERAGES + 1) / COVERAGES
        (drawn[row],) = lower.plot(covered, risk(ledger.by_confidence), color=colour, **style)
    upper.set_title(head, fontsize=8.5)
    upper.set(xlim=(0, 100), ylim=(0, 100))
    upper.set_xlabel("confidence (%)", fontsize=8)
    lower.set(xlim=(0, 100))
    lower.set_ylim(bottom=0)
    lower.set_xlabel("surest pixels (%)", fontsize=8)
    if first:
        upper.set_ylabel("right (%)", fontsize=8)
        lower.set_ylabel("wrong (%)", fontsize=8)
    for axes in (upper, lower):
        axes.grid(color=PALE, linewidth=1)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0, labelsize=7.5)
    return drawn
