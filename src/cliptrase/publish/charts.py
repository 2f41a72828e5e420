"""Charts of a table's lines: the heat map of a grid, the bars of the main results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cliptrase.publish.cells import Line
from cliptrase.publish.frames import Frame, frames, titles
from cliptrase.publish.layout import grid_point
from cliptrase.publish.remarks import sizes_of, unique
from cliptrase.publish.render import distinctly_named
from cliptrase.publish.style import ACCENT, GREY, INK, PALE, ROWS, caption, new_figure

PAPER = "paper"


def heat_map(title: str, lines: list[Line]) -> Figure:
    """eps × min_samples: the metric in every cell, the chosen point framed, the best in bold.

    A cell without a value stays hatched. Of several benchmarks the first is drawn.
    """
    benchmark, metric = lines[0].benchmark, lines[0].metric
    own = [line for line in lines if (line.benchmark, line.metric) == (benchmark, metric)]
    cells = {grid_point(line.row): line for line in own if line.kind != "best"}
    chosen = next((line.versus for line in own if line.versus), "")
    all_eps, samples = sorted({p[0] for p in cells}), sorted({p[1] for p in cells})
    values = np.array([[_value(cells.get((eps, n))) for n in samples] for eps in all_eps])
    figure, axes = new_figure(7.2, 5.4)
    axes.set_facecolor(PALE)
    image = axes.imshow(values, cmap="YlGnBu", origin="lower", aspect="auto")
    found = values[np.isfinite(values)]
    low, high = (found.min(), found.max()) if found.size else (0.0, 0.0)
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(
                Rectangle(corner, 1, 1, fill=False, hatch="///", edgecolor=GREY, linewidth=0)
            )
            continue
        shade = (value - low) / (high - low) if high > low else 0.0
        axes.text(
            column,
            row,
            f"{value:.1f}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if shade > 0.6 else INK,
            fontweight="bold" if value == high else "normal",
        )
    if chosen:
        eps, n = grid_point(chosen)
        corner = (samples.index(n) - 0.5, all_eps.index(eps) - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, fill=False, edgecolor=ACCENT, linewidth=2.6, clip_on=False)
        )
    axes.set_xticks(range(len(samples)), [f"{n}" for n in samples])
    axes.set_yticks(range(len(all_eps)), [f"{eps:.1f}" for eps in all_eps])
    axes.set_xlabel("min_samples")
    axes.set_ylabel("eps")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(samples)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(all_eps)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
    bar.set_label(f"{metric} (%)")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    caption(axes, title, _about_grid(benchmark, own, chosen))
    return figure


def _about_grid(benchmark: str, lines: list[Line], chosen: str) -> str:
    parts = [benchmark, lines[0].model, *sizes_of(lines)]
    if chosen:
        value = next((line.value for line in lines if line.row == chosen), None)
        parts.append(f"framed: the chosen point{_of(value)}")
    best = next((line for line in lines if line.kind == "best"), None)
    if best is not None and best.value is not None:
        parts.append(f"bold: the best{_of(best.value)}")
    return " · ".join(part for part in parts if part)


def _of(value: float | None) -> str:
    return "" if value is None else f" ({value:.1f})"


def bars(title: str, lines: list[Line]) -> Figure:
    """One group of bars a column, one bar a row, whiskers the 95 % interval.

    A group is of one protocol and rule: a table of several has a group of each a column. Where the
    paper's numbers are comparable, a diamond marks each.
    """
    lines = [line for line in lines if line.kind in ("run", "avg")]
    metric = lines[0].metric
    found = frames([line for line in lines if line.metric == metric])
    heads = dict(zip(found, titles(list(found)), strict=True))
    placed = [(frame, line) for frame, own in found.items() for line in own]
    lines = distinctly_named(line for _, line in placed)
    groups = [(frame, line.column) for frame, line in placed]
    rows, spots = unique(line.row for line in lines), _spots(unique(groups))
    figure, axes = new_figure(max(5.6, 1.15 * len(spots) + 2.2), 3.9)
    width = 0.82 / len(rows)
    for index, row in enumerate(rows):
        offset = (index - (len(rows) - 1) / 2) * width
        own = [
            (spots[group] + offset, line)
            for group, line in zip(groups, lines, strict=True)
            if line.row == row
        ]
        _bars_of(axes, [line for _, line in own], [place for place, _ in own], width, index)
    labels = [
        "\n".join(filter(None, [column, *heads[frame].split(", ")])) for frame, column in spots
    ]
    axes.set_xticks(list(spots.values()), labels)
    axes.set_ylabel(f"{metric} (%)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=PALE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    if lines and any(line.value is not None or line.published for line in lines):
        handles, names = axes.get_legend_handles_labels()
        order = sorted(range(len(names)), key=lambda i: names[i] == PAPER)  # the diamonds last
        axes.legend(
            [handles[i] for i in order],
            [names[i] for i in order],
            ncols=4,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            frameon=False,
            borderaxespad=0.2,
        )
    about = " · ".join(filter(None, [lines[0].model, *sizes_of(lines), "95 % intervals"]))
    caption(axes, title, about, above=0.13)
    return figure


def _bars_of(
    axes: Axes, lines: Sequence[Line], places: Sequence[float], width: float, index: int
) -> None:
    colour = ROWS[index % len(ROWS)]
    drawn = [(x, line) for x, line in zip(places, lines, strict=True) if line.value is not None]
    if drawn:
        values = [line.value or 0.0 for _, line in drawn]
        ends = [line.whisker for _, line in drawn]
        spread = [
            [value - low for value, (low, _) in zip(values, ends, strict=True)],
            [high - value for value, (_, high) in zip(values, ends, strict=True)],
        ]
        axes.bar(
            [x for x, _ in drawn],
            values,
            width * 0.92,
            yerr=spread,
            color=colour,
            label=lines[0].row,
            error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2.5, "capthick": 1},
        )
        for (x, _), value, (_, high) in zip(drawn, values, ends, strict=True):
            axes.annotate(
                f"{value:.1f}",
                (x, high),
                xytext=(0, 2.5),
                textcoords="offset points",
                ha="center",
                fontsize=7.5,
                color=INK,
            )
    printed = [
        (x, float(line.published)) for x, line in zip(places, lines, strict=True) if line.published
    ]
    if printed:
        axes.plot(
            [x for x, _ in printed],
            [value for _, value in printed],
            linestyle="none",
            marker="D",
            markersize=4,
            markerfacecolor="white",
            markeredgecolor=INK,
            label=PAPER if index == 0 else None,
            zorder=5,
        )


def _spots(groups: Sequence[tuple[Frame, str]]) -> dict[tuple[Frame, str], float]:
    """Where each group of bars stands; an average a little apart."""
    return {group: i + 0.25 * (group[1] == "avg") for i, group in enumerate(groups)}


def _value(line: Line | None) -> float:
    return float("nan") if line is None or line.value is None else line.value
