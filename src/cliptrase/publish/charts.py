"""Charts of a tidy frame: the heat map of a grid, bars of the main results, bars of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cliptrase.plan.tables import in_words
from cliptrase.publish.compare import comparables
from cliptrase.publish.remarks import NEAR_BEST, sizes_of, texts
from cliptrase.publish.render import distinctly_named
from cliptrase.publish.style import ACCENT, GREY, INK, PALE, ROWS, caption

PAPER = "paper"
ACROSS = 5  # panels of `row_bars` side by side
BASE, PLAIN, BEST = ROWS[0], ROWS[1], ROWS[2]
HATCHED: Any = {"fill": False, "edgecolor": GREY, "linewidth": 0, "hatch": "///"}
FRAMED: Any = {"fill": False, "edgecolor": ACCENT, "linewidth": 2.6, "clip_on": False}
IN_A_CELL: Any = {"ha": "center", "va": "center", "fontsize": 9}
AT_A_BAR: Any = {"textcoords": "offset points", "fontsize": 7.5, "color": INK}
DIAMOND: Any = {"linestyle": "none", "marker": "D", "markersize": 4, "markerfacecolor": "white"}
LEGEND: Any = {"ncols": 4, "loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False}


def heat_map(title: str, frame: pd.DataFrame) -> Figure:
    """eps × min_samples: the metric in every cell, the chosen point framed, the best in bold.

    A cell without a value stays hatched. Of several benchmarks the first is drawn.
    """
    benchmark, metric = frame.iloc[0][["benchmark", "metric"]]
    lines = frame[(frame["benchmark"] == benchmark) & (frame["metric"] == metric)]
    points = lines[lines["kind"] != "best"]
    grid = points.pivot(index="eps", columns="min_samples", values="value")
    values = grid.to_numpy()
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor(PALE)
    image = axes.imshow(values, cmap="YlGnBu", origin="lower", aspect="auto")
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **HATCHED))
            continue
        shade = (value - low) / (high - low) if high > low else 0.0
        colour, weight = "white" if shade > 0.6 else INK, "bold" if value == high else "normal"
        axes.text(column, row, f"{value:.1f}", color=colour, fontweight=weight, **IN_A_CELL)
    chosen = points[points["row"].isin(texts(lines["versus"]))]
    for point in chosen.itertuples():
        column, row = grid.columns.get_loc(point.min_samples), grid.index.get_loc(point.eps)
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **FRAMED))
    axes.set_xticks(range(len(grid.columns)), [f"{n}" for n in grid.columns])
    axes.set_yticks(range(len(grid.index)), [f"{eps:.1f}" for eps in grid.index])
    axes.set(xlabel="min_samples", ylabel="eps")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(grid.columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(grid.index)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
    bar.set_label(f"{metric} (%)")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    about = [benchmark, lines["model"].iloc[0], *sizes_of(lines)]
    about += [f"framed: the chosen point{_in_brackets(value)}" for value in chosen["value"]]
    best = lines.loc[(lines["kind"] == "best") & lines["value"].notna(), "value"]
    about += [f"bold: the best{_in_brackets(value)}" for value in best]
    caption(axes, title, " · ".join(filter(None, about)))
    return figure


def _in_brackets(value: float) -> str:
    return "" if np.isnan(value) else f" ({value:.1f})"


def bars(title: str, frame: pd.DataFrame) -> Figure:
    """One group of bars a column, one bar a row, whiskers the 95 % interval.

    A group is of one protocol and rule: a table of several has a group of each a column. Where the
    paper's numbers are comparable, a diamond marks each.
    """
    numbers = _numbers(frame)
    metric, blocks = numbers["metric"].iloc[0], comparables(numbers)
    lines = pd.concat(block.lines.assign(title=block.title) for block in blocks)
    lines = distinctly_named(lines)
    groups = lines.drop_duplicates(["title", "column"])[["title", "column"]]
    groups["spot"] = np.arange(len(groups)) + 0.25 * (groups["column"] == "avg")
    lines = lines.merge(groups)  # an average stands a little apart
    rows = list(lines.groupby("row", sort=False))
    figure = Figure(figsize=(max(5.6, 1.15 * len(groups) + 2.2), 3.9), layout="constrained")
    axes = figure.subplots()
    width = 0.82 / len(rows)
    for index, (_, row) in enumerate(rows):
        offset = (index - (len(rows) - 1) / 2) * width
        _bars_of(axes, row, row["spot"] + offset, width, index)
    heads = [[group.column, *group.title.split(", ")] for group in groups.itertuples()]
    labels = ["\n".join(filter(None, head)) for head in heads]
    axes.set_xticks(list(groups["spot"]), labels)
    axes.set(ylabel=f"{metric} (%)", axisbelow=True)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=PALE, linewidth=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    if (lines["value"].notna() | lines["published"].ne("")).any():
        entries = zip(*axes.get_legend_handles_labels(), strict=True)
        ordered = sorted(entries, key=lambda entry: entry[1] == PAPER)  # the diamonds last
        axes.legend(*zip(*ordered, strict=True), borderaxespad=0.2, **LEGEND)
    about = [lines["model"].iloc[0], *sizes_of(lines), "95 % intervals"]
    caption(axes, title, " · ".join(filter(None, about)), above=0.13)
    return figure


def _numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of runs and averages, of several metrics those of the first."""
    numbers = frame[frame["kind"].isin(["run", "avg"])]
    return numbers[numbers["metric"] == numbers["metric"].iloc[0]]


def _whiskers(lines: pd.DataFrame) -> tuple[pd.Series, list[pd.Series]]:
    """The upper end of each interval, and its reach below and above the value; 0 without one."""
    low, high = lines["ci_low"].fillna(lines["value"]), lines["ci_high"].fillna(lines["value"])
    return high, [lines["value"] - low, high - lines["value"]]


def _bars_of(axes: Axes, lines: pd.DataFrame, places: pd.Series, width: float, index: int) -> None:
    drawn = lines[lines["value"].notna()]
    if len(drawn):
        highs, spread = _whiskers(drawn)
        style: Any = {"color": ROWS[index % len(ROWS)], "label": lines["row"].iloc[0]}
        whisker = {"ecolor": INK, "elinewidth": 1, "capsize": 2.5, "capthick": 1}
        x, values = places[drawn.index], drawn["value"]
        axes.bar(x, values, width * 0.92, yerr=spread, error_kw=whisker, **style)
        for place, value, high in zip(x, values, highs, strict=True):
            axes.annotate(f"{value:.1f}", (place, high), xytext=(0, 2.5), ha="center", **AT_A_BAR)
    printed = lines.loc[lines["published"] != "", "published"].astype(float)
    if len(printed):
        label = PAPER if index == 0 else None
        places = places[printed.index]
        axes.plot(places, printed, markeredgecolor=INK, label=label, zorder=5, **DIAMOND)


def row_bars(title: str, frame: pd.DataFrame) -> Figure:
    """Bars of every row with 95 % whiskers, a panel for each column of each protocol and rule.

    Of several metrics the first is drawn. Grey: a group's first row, where others are compared
    with it; orange: the best of its group; ≈: not significantly below it. Rows that stand in no
    column are left out.
    """
    numbers = _numbers(frame)
    blocks, panels = comparables(numbers), []
    for block in blocks:
        columns = dict(list(block.lines.groupby("column", sort=False)))
        ordered = sorted(columns, key=lambda name: name == "avg")
        panels += [(block.title, name, columns[name]) for name in ordered]
    drawn = pd.concat([part for _, _, part in panels])
    rows = list(drawn[["group", "row"]].drop_duplicates().itertuples(index=False, name=None))
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    height = down * (0.21 * len(rows) + 0.5) + 0.9
    figure = Figure(figsize=(2.6 + 1.75 * across, height), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (head, column, part) in zip(grid.flat, panels, strict=False):
        _draw_rows(axes, part, rows)
        axes.set_title("\n".join(filter(None, [head, column])), fontsize=9.5)
    for axes in grid[:, 0]:
        axes.set_yticks(np.arange(len(rows)), [name for _, name in rows], fontsize=8.5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    about = [f"{numbers['metric'].iloc[0]} (%)", *dict.fromkeys(drawn["model"])]
    about += [f"protocol {in_words(block.protocol)}" for block in blocks] * (len(blocks) == 1)
    about += sizes_of(drawn)
    about += ["95 % intervals", "grey: the first row", "orange: the best of its group"]
    about += [f"{NEAR_BEST}: not significantly below it"] * bool(drawn["near_best"].any())
    about_text = " · ".join(filter(None, about))
    figure.supxlabel(about_text, fontsize=8.5, color=GREY, x=0.01, ha="left")
    return figure


def _draw_rows(axes: Axes, lines: pd.DataFrame, rows: Sequence[tuple[str, str]]) -> None:
    """One bar for each row that has a value; a thin line between groups."""
    for group, members in lines.groupby("group", sort=False):
        drawn = members[members["value"].notna()]
        colours = pd.Series(PLAIN, drawn.index)
        colours[drawn["row"].isin(members["versus"]) & (np.arange(len(drawn)) == 0)] = BASE
        if len(drawn) > 1 and len(drawn[["code", "rule"]].drop_duplicates()) == 1:
            colours[drawn["value"].idxmax()] = BEST
        highs, spread = _whiskers(drawn)
        places = [rows.index((group, row)) for row in drawn["row"]]
        whisker = {"ecolor": INK, "elinewidth": 0.9, "capsize": 1.8, "capthick": 0.9}
        axes.barh(places, drawn["value"], 0.74, xerr=spread, error_kw=whisker, color=colours)
        for place, high, line in zip(places, highs, drawn.itertuples(), strict=True):
            text = f"{line.value:.1f}" + f" {NEAR_BEST}" * line.near_best
            axes.annotate(text, (high, place), xytext=(3, 0), va="center", **AT_A_BAR)
    groups = [group for group, _ in rows]
    for place in range(1, len(groups)):
        if groups[place] != groups[place - 1]:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.6)
    most = _whiskers(lines)[0].fillna(0.0).max()
    axes.set_xlim(0, 1.3 * most or 1)
    axes.grid(axis="x", color=PALE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
