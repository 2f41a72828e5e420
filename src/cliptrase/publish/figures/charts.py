"""Charts of a tidy frame: the heat map of a grid, bars of the main results, bars of rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from cliptrase.plan.tables import in_words
from cliptrase.publish.figures.style import (
    ACCENT,
    GREY,
    INK,
    MISSING,
    NOTHING,
    PALE,
    PLAIN,
    ROWS,
    headed,
    headed_with_legend,
    inches_of,
    row_colour,
    shortened,
    wrapped,
)
from cliptrase.publish.tables.captions import NEAR_BEST, sizes_of, texts
from cliptrase.publish.tables.comparable import comparables
from cliptrase.publish.tables.render import distinctly_named

PAPER = "paper"
UPRIGHT = 6  # rows that `bars` draws upright, more of them lie
WIDE = 8.0  # inches that groups of bars, or names and panels of `row_bars`, may fill
LYING = 9.6
HEAD = 8.5  # points of what names a group of bars or a panel
LABEL = 90  # characters of a row's name that are shown
SAID: Any = {"ha": "center", "va": "center", "fontsize": 11, "color": INK, "zorder": 6}
SAID |= {"bbox": {"facecolor": "white", "edgecolor": "none"}}
HATCHES = ("", "////", "....", "xxxx", "++++", "oooo")  # of rows whose names have one colour
HATCHED: Any = {"fill": False, "edgecolor": GREY, "linewidth": 0, "hatch": "///"}
FRAMED: Any = {"fill": False, "edgecolor": ACCENT, "linewidth": 3, "clip_on": False, "zorder": 5}
IN_A_CELL: Any = {"ha": "center", "va": "center", "fontsize": 9}
AT_A_BAR: Any = {"textcoords": "offset points", "fontsize": 7.5, "color": INK}
DIAMOND: Any = {"linestyle": "none", "marker": "D", "markersize": 4, "markerfacecolor": "white"}
DIAMOND |= {"markeredgecolor": INK, "zorder": 5}


def heat_map(title: str, frame: pd.DataFrame) -> Figure:
    """eps × min_samples: the metric in every cell, the chosen point framed, the best in bold.

    A cell without a value stays hatched. Of several benchmarks the first is drawn.
    """
    benchmark, metric = frame.iloc[0][["benchmark", "metric"]]
    lines = frame[(frame["benchmark"] == benchmark) & (frame["metric"] == metric)]
    points = lines[lines["kind"] != "best"]
    grid = points.pivot(index="eps", columns="min_samples", values="value")
    values = grid.to_numpy()
    down, across = values.shape
    figure = Figure(
        (max(5.6, 0.48 * across + 3.2), max(2.0, 0.5 * down + 1.2)), layout="constrained"
    )
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
    axes.set_yticks(range(len(grid.index)), [f"{eps:g}" for eps in grid.index])
    axes.set(xlabel="min_samples", ylabel="eps")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(grid.columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(grid.index)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    if finite.size:
        bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
        bar.set_label(f"{metric} (%)")
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    else:
        axes.text(0.5, 0.9, NOTHING, transform=axes.transAxes, **SAID)
    about = [benchmark, lines["model"].iloc[0], *sizes_of(lines)]
    about += [f"framed: the chosen point{_in_brackets(value)}" for value in chosen["value"]]
    best = lines.loc[(lines["kind"] == "best") & lines["value"].notna(), "value"]
    about += [f"bold: the best{_in_brackets(value)}" for value in best]
    about += ["hatched: no number"] * bool(finite.size < values.size)
    headed(figure, title, " · ".join(filter(None, about)))
    return figure


def _in_brackets(value: float) -> str:
    return "" if np.isnan(value) else f" ({value:.1f})"


def bars(title: str, frame: pd.DataFrame) -> Figure:
    """One group of bars a column, one bar a row, whiskers the 95 % interval.

    A group is of one protocol and rule: a table of several has a group of each a column. Where the
    paper's numbers are comparable, a diamond marks each. A row's colour is that of its name; of two
    with one colour the second is hatched. More than UPRIGHT rows lie, as in `row_bars`.
    """
    numbers = _numbers(frame)
    metric, blocks = numbers["metric"].iloc[0], comparables(numbers)
    lines = pd.concat(block.lines.assign(title=block.title) for block in blocks)
    lines = distinctly_named(lines.assign(plain=lines["row"]))
    rows = dict(list(lines.groupby("row", sort=False)))
    if len(rows) > UPRIGHT:
        return row_bars(title, frame, row_colour)
    groups = lines.drop_duplicates(["title", "column"])[["title", "column"]]
    wide = max(1.4, 0.36 * len(rows) + 0.3)  # inches of a group
    down = -(-len(groups) // int(WIDE / wide))
    across = -(-len(groups) // down)
    groups["line"], groups["spot"] = np.divmod(np.arange(len(groups)), across)
    groups["spot"] += 0.25 * (groups["column"] == "avg")  # an average stands a little apart
    lines = lines.merge(groups)
    figure = Figure((max(5.6, wide * across + 0.8), 2.9 * down), layout="constrained")
    plots = figure.subplots(down, squeeze=False, sharey=True)[:, 0]
    width = min(0.4, 0.82 / len(rows))
    colours = [row_colour(row["plain"].iloc[0]) for row in rows.values()]
    styles: list[Any] = [
        {"facecolor": colour, "edgecolor": "white", "hatch": HATCHES[colours[:index].count(colour)]}
        for index, colour in enumerate(colours)
    ]
    for line, axes in enumerate(plots):
        for index, name in enumerate(rows):
            row = lines[(lines["row"] == name) & (lines["line"] == line)]
            offset = (index - (len(rows) - 1) / 2) * width
            upright_bars(axes, row, row["spot"] + offset, width, styles[index])
        here = groups[groups["line"] == line]
        heads = [
            head_of([group.column, *group.title.split(", ")], wide) for group in here.itertuples()
        ]
        axes.set_xticks(list(here["spot"]), heads, fontsize=HEAD)
        axes.set(ylabel=f"{metric} (%)", axisbelow=True)
        axes.set_xlim(-0.55, across - 0.3)
        axes.grid(axis="y", color=PALE, linewidth=1)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
    plots[0].set_ylim(bottom=0)
    gone = lines["value"].isna()
    if gone.all():
        plots[0].set_yticks([])
        for axes in plots:
            axes.text(0.5, 0.85, NOTHING, transform=axes.transAxes, **SAID)
    names = [shortened(name, LABEL) for name in rows]
    handles: list[Any] = [Patch(**style) for style in styles]
    if lines["published"].ne("").any():
        handles, names = [*handles, Line2D([], [], **DIAMOND)], [*names, PAPER]
    about = [lines["model"].iloc[0], *sizes_of(lines), "95 % intervals"]
    about += [f"{MISSING} no number"] * bool(gone.any())
    headed_with_legend(figure, title, " · ".join(filter(None, about)), handles, names)
    return figure


def head_of(parts: Sequence[str], inches: float) -> str:
    """What names a group of bars or a panel, each part in lines of its own."""
    return "\n".join(wrapped(part, inches, HEAD) for part in parts if part)


def _numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of runs and averages, of several metrics those of the first."""
    numbers = frame[frame["kind"].isin(["run", "avg"])]
    return numbers[numbers["metric"] == numbers["metric"].iloc[0]]


def _whiskers(lines: pd.DataFrame) -> tuple[pd.Series, list[pd.Series]]:
    """The upper end of each interval, and its reach below and above the value; 0 without one."""
    low, high = lines["ci_low"].fillna(lines["value"]), lines["ci_high"].fillna(lines["value"])
    return high, [lines["value"] - low, high - lines["value"]]


def upright_bars(
    axes: Axes, lines: pd.DataFrame, places: pd.Series, width: float, style: Any
) -> None:
    """The bars of one row, its numbers above them; a dash where there is no number."""
    drawn = lines[lines["value"].notna()]
    if len(drawn):
        highs, spread = _whiskers(drawn)
        whisker = {"ecolor": INK, "elinewidth": 1, "capsize": 2.5, "capthick": 1}
        x, values = places[drawn.index], drawn["value"]
        axes.bar(x, values, width * 0.92, yerr=spread, error_kw=whisker, **style)
        for place, value, high in zip(x, values, highs, strict=True):
            axes.annotate(f"{value:.1f}", (place, high), xytext=(0, 2.5), ha="center", **AT_A_BAR)
    for place in places.drop(drawn.index):
        axes.annotate(MISSING, (place, 0), xytext=(0, 2.5), ha="center", **AT_A_BAR)
    printed = printed_numbers(lines)  # beside the whisker and below no number
    own = DIAMOND | {"markerfacecolor": style["facecolor"]}
    axes.plot(places[printed.index] + 0.4 * width, printed, **own)


def printed_numbers(lines: pd.DataFrame) -> pd.Series:
    """What the paper prints, where it prints a number."""
    return lines.loc[lines["published"] != "", "published"].astype(float)


Colours = Callable[[str], str]


def known_colour(name: str) -> str:
    """The colour of a row that has its name beside it."""
    return ROWS.get(name, PLAIN)


def row_bars(title: str, frame: pd.DataFrame, colour: Colours = known_colour) -> Figure:
    """Bars of every row with 95 % whiskers, a panel for each column of each protocol and rule.

    Of several metrics the first is drawn. Bold: the best of its group; ≈: not significantly below
    it; `colour` is that of a name. All panels have the same axes. Rows that stand in no column are
    left out.
    """
    numbers = _numbers(frame)
    numbers = distinctly_named(numbers.assign(colour=numbers["row"].map(colour)))
    blocks, panels = comparables(numbers), []
    for block in blocks:
        columns = dict(list(block.lines.groupby("column", sort=False)))
        ordered = sorted(columns, key=lambda name: name == "avg")
        panels += [(block.title, name, columns[name]) for name in ordered]
    drawn = pd.concat([part for _, _, part in panels])
    rows = list(drawn[["group", "row"]].drop_duplicates().itertuples(index=False, name=None))
    names = [wrapped(shortened(name, LABEL), 2.4, 8.5) for _, name in rows]
    label = max(inches_of(line, 8.5) for name in names for line in name.split("\n"))
    across = min(len(panels), int((LYING - label) / 1.5))
    down = -(-len(panels) // across)
    across = -(-len(panels) // down)
    heads = [head_of((head, column), 1.45) for head, column, _ in panels]
    thick = 0.14 * max(name.count("\n") for name in names) + 0.21
    over = 0.16 * max(head.count("\n") for head in heads) + 0.6
    size = max(5.6, label + 0.3 + 1.55 * across), down * (thick * len(rows) + over)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, head, (_, _, part) in zip(grid.flat, heads, panels, strict=False):
        _draw_rows(axes, part, rows)
        axes.set_title(head, fontsize=HEAD)
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_yticks(np.arange(len(rows)), names, fontsize=8.5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
    if drawn["value"].isna().all():
        grid[0, 0].set_xticks([])
    most = pd.concat([_whiskers(drawn)[0], printed_numbers(drawn)]).max()
    grid[0, 0].set_xlim(0, 1.45 * most if most > 0 else 1)
    about = [f"{numbers['metric'].iloc[0]} (%)", *dict.fromkeys(drawn["model"])]
    about += [f"protocol {in_words(block.protocol)}" for block in blocks] * (len(blocks) == 1)
    about += sizes_of(drawn)
    about += ["95 % intervals", "bold: the best of its group"]
    about += [f"{NEAR_BEST}: not significantly below it"] * bool(drawn["near_best"].any())
    about += [f"diamond: {PAPER}"] * bool(drawn["published"].ne("").any())
    about += [f"{MISSING} no number"] * bool(drawn["value"].isna().any())
    headed(figure, title, " · ".join(filter(None, about)))
    return figure


def _draw_rows(axes: Axes, lines: pd.DataFrame, rows: Sequence[tuple[str, str]]) -> None:
    """One bar for each row that has a value, a dash for one that has none; a thin line between
    groups."""
    for group, members in lines.groupby("group", sort=False):
        drawn = members[members["value"].notna()]
        best = None
        if len(drawn) > 1 and len(drawn[["code", "rule"]].drop_duplicates()) == 1:
            best = drawn["value"].idxmax()
        highs, spread = _whiskers(drawn)
        places = pd.Series([rows.index((group, row)) for row in members["row"]], members.index)
        here = places[drawn.index]
        whisker = {"ecolor": INK, "elinewidth": 0.9, "capsize": 1.8, "capthick": 0.9}
        axes.barh(here, drawn["value"], 0.74, xerr=spread, error_kw=whisker, color=drawn["colour"])
        for place, high, line in zip(here, highs, drawn.itertuples(), strict=True):
            text = f"{line.value:.1f}" + f" {NEAR_BEST}" * line.near_best
            style = AT_A_BAR | {"fontweight": "bold" if line.Index == best else "normal"}
            axes.annotate(text, (high, place), xytext=(3, 0), va="center", **style)
        for place in places.drop(drawn.index):
            axes.annotate(MISSING, (0, place), xytext=(3, 0), va="center", **AT_A_BAR)
        printed = printed_numbers(members)
        axes.plot(printed, places[printed.index], **DIAMOND)
    groups = [group for group, _ in rows]
    for place in range(1, len(groups)):
        if groups[place] != groups[place - 1]:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.6)
    if lines["value"].isna().all():
        axes.text(0.5, 0.5, NOTHING, transform=axes.transAxes, **SAID | {"fontsize": 8.5})
    axes.grid(axis="x", color=PALE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
