"""Figure 1a: CLIP and CLIPtrase on every benchmark of the main table, as a radar and as bars."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cliptrase.publish import OVERVIEW_ROWS
from cliptrase.publish.figures.charts import (
    DIAMOND,
    HEAD,
    PAPER,
    head_of,
    printed_numbers,
    upright_bars,
)
from cliptrase.publish.figures.style import (
    GREY,
    INK,
    MISSING,
    NOTHING,
    PALE,
    ROWS,
    Numbers,
    headed_with_legend,
)
from cliptrase.publish.tables.captions import sizes_of
from cliptrase.publish.tables.comparable import comparables

GROUP = 0.8  # inches of the two bars of a benchmark
RADAR, BARS = 3.5, 2.1  # inches down
BESIDE = 1.5  # inches across that a name beside the radar may fill
POLYGON = 3  # benchmarks that a radar needs


def overview_numbers(frame: pd.DataFrame) -> Numbers:
    """The arrays of Figure 1a, per cent and NaN where there is no number.

    benchmarks (K,) and rows (2,) are names; values, low, high (ends of the 95 % interval) and
    published are (2, K); scale (K,) is the larger of the two published numbers, or of the two
    values where none is published.
    """
    lines, benchmarks = _compared(frame), list(_rows(frame)["column"].unique())
    lines = lines.assign(published=printed_numbers(lines))

    def by_row(key: str) -> NDArray[np.float64]:
        grid = lines.pivot(index="row", columns="column", values=key)
        return grid.reindex(index=OVERVIEW_ROWS, columns=benchmarks).to_numpy(np.float64)

    values, published = by_row("value"), by_row("published")
    scale = np.fmax(*published)
    unprinted = np.isnan(scale)
    scale[unprinted] = np.fmax(*values)[unprinted]
    return {
        "benchmarks": np.array(benchmarks),
        "rows": np.array(OVERVIEW_ROWS),
        "values": values,
        "low": by_row("ci_low"),
        "high": by_row("ci_high"),
        "published": published,
        "scale": scale,
    }


def overview(frame: pd.DataFrame) -> Figure:
    """A radar whose axes are the benchmarks, and below it the same numbers as bars.

    On the radar a number is a share of its benchmark's scale (`overview_numbers`). A benchmark
    without a number is a gap, and its name says so.
    """
    lines, numbers = _compared(frame), overview_numbers(frame)
    benchmarks, metric = list(numbers["benchmarks"]), lines["metric"].iloc[0]
    radar, printed = len(benchmarks) >= POLYGON, bool(np.isfinite(numbers["published"]).any())
    heights = [RADAR] * radar + [BARS]
    size = max(5.6, GROUP * len(benchmarks) + 0.8), sum(heights)
    figure = Figure(size, layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    if radar:
        _radar(figure.add_subplot(grid[0], projection="polar"), numbers)
    axes = figure.add_subplot(grid[-1])
    for row, side in zip(OVERVIEW_ROWS, (-0.2, 0.2), strict=True):
        own = lines[lines["row"] == row]
        places = own["column"].map(benchmarks.index) + side
        upright_bars(axes, own, places, 0.4, {"facecolor": ROWS[row], "edgecolor": "white"})
    heads = [head_of([name], GROUP) for name in benchmarks]
    axes.set_xticks(range(len(benchmarks)), heads, fontsize=HEAD)
    middle, half = (len(benchmarks) - 1) / 2, max(len(benchmarks), 4) / 2 + 0.05
    axes.set(xlim=(middle - half, middle + half), ylabel=f"{metric} (%)", axisbelow=True)
    axes.set_ylim(0, max(1, axes.get_ylim()[1]))  # all may be 0 or missing
    axes.grid(axis="y", color=PALE, linewidth=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    handles: list[Any] = [Patch(facecolor=ROWS[row]) for row in OVERVIEW_ROWS]
    handles += [Line2D([], [], **DIAMOND | {"linestyle": ":", "color": INK})] * printed
    of_paper = " of the paper" * printed
    ring = f"ring: the larger number{of_paper}, under each name"
    about = [lines["model"].iloc[0], *sizes_of(lines), *[ring] * radar, "95 % intervals"]
    about += [f"{MISSING} no number"] * bool(lines["value"].isna().any())
    title = f"Figure 1a. {' and '.join(OVERVIEW_ROWS)}, {metric}"
    names = [*OVERVIEW_ROWS, *[PAPER] * printed]
    headed_with_legend(figure, title, " · ".join(filter(None, about)), handles, names)
    return figure


def _radar(axes: Any, numbers: Numbers) -> None:
    """The values as shares of the scale, a polygon a row; that of the paper is dotted."""
    benchmarks, values, scale = (numbers[key] for key in ("benchmarks", "values", "scale"))
    ring = np.where(scale == 0, 1.0, scale)
    angles = np.linspace(0, 2 * np.pi, len(benchmarks), endpoint=False)
    closed = [*range(len(angles)), 0]
    for row, own, paper in zip(numbers["rows"], values / ring, numbers["published"], strict=True):
        style: Any = {"color": ROWS[row], "clip_on": False}
        axes.plot(angles[closed], own[closed], marker="o", markersize=4, **style)
        if np.isfinite(own).all():
            axes.fill(angles, own, alpha=0.15, **style)
        axes.plot(angles[closed], (paper / ring)[closed], linestyle=":", **style)
    heads = [
        f"{head_of([name], BESIDE)}\n{_said(own, limit)}"
        for name, own, limit in zip(benchmarks, values.T, scale, strict=True)
    ]
    axes.set(theta_zero_location="N", theta_direction=-1)
    axes.set_xticks(angles, heads, fontsize=HEAD)
    for text, angle in zip(axes.get_xticklabels(), angles, strict=True):
        right, up = round(2 * np.sin(angle)), round(1.4 * np.cos(angle))
        text.set_horizontalalignment(("center", "left", "right")[np.sign(right)])
        text.set_verticalalignment(("center", "bottom", "top")[np.sign(up)])
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], [""] * 4)
    axes.set_ylim(0, np.nanmax([1.0, *(values / ring).flat]))
    axes.grid(color=PALE, linewidth=1)
    axes.get_ygridlines()[-1].set(color=GREY, linewidth=0.8)
    axes.spines["polar"].set_visible(False)


def _said(values: NDArray[np.float64], limit: float) -> str:
    """What stands under a benchmark's name: its scale, and what is missing."""
    gone = [f"no {row}" for row, value in zip(OVERVIEW_ROWS, values, strict=True) if value != value]
    scale = [] if np.isnan(limit) else [f"{limit:.1f}"]
    return "\n".join([*scale, *([NOTHING] if len(gone) == len(values) else gone)])


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of the two rows in the columns of benchmarks, of several metrics the first."""
    lines = frame[frame["row"].isin(OVERVIEW_ROWS) & frame["kind"].isin(["run", "absent"])]
    return lines[lines["metric"] == lines["metric"].iloc[0]]


def _compared(frame: pd.DataFrame) -> pd.DataFrame:
    """At most a line for each of the two rows and benchmark, all of one protocol and rule."""
    return comparables(_rows(frame))[0].lines.drop_duplicates(["row", "column"])
