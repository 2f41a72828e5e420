"""Four panels of how the cost grows: classes, image size, clusters, threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cliptrase.publish.style import GREY, INK, PALE, ROWS, SETTINGS, save

ENCODER, OURS = ROWS[1], ROWS[2]
SMALL = 8.5


def draw(found: dict[str, Any], path: Path) -> list[Path]:
    """Write the picture of a growth.json beside `path` as .svg and .png."""
    with matplotlib.rc_context(SETTINGS):
        return save(figure(found), path.parent, path.stem)


def figure(found: dict[str, Any]) -> Figure:
    """Medians as lines, the least and the most of the rounds as bars."""
    made = Figure(figsize=(8.6, 5.8), layout="constrained")
    ((classes, size), (clusters, threads)) = made.subplots(2, 2)
    at = f"{found['size']} px"
    _beside_encoder(classes, found["by_classes"], "classes")
    _named(classes, "Classes", f"ms an image, {at}; × bare encoder", "classes")
    _beside_encoder(size, found["by_size"], "size")
    _named(size, "Image size", "ms an image, 171 classes; × bare encoder", "pixels a side")
    x = [median(one["clusters"]) for one in found["by_clusters"]]
    _line(clusters, x, [one["regions_ms"] for one in found["by_clusters"]], OURS)
    clusters.set_xlim(0, 1.08 * max(x))
    clusters.xaxis.set_major_locator(MaxNLocator(integer=True))
    _named(clusters, "Clusters", f"ms of an image's regions, {at}, one thread", "clusters")
    counts = [one["threads"] for one in found["by_threads"]]
    for key, colour in (("encoder_rate", ENCODER), ("rate", OURS)):
        rates = [one[key] for one in found["by_threads"]]
        if rates:
            ideal = [rates[0]["median"] * count / counts[0] for count in (0, counts[-1])]
            threads.plot((0, counts[-1]), ideal, color=colour, lw=0.9, ls=(0, (4, 3)), alpha=0.7)
        _line(threads, counts, rates, colour)
    threads.set_xticks(counts)
    threads.set_xlim(0, 1.12 * max(counts, default=1))
    _named(threads, "Threads", f"images a second, {at}; dashed: in proportion", "threads")
    handles = [
        Line2D([], [], color=OURS, marker="o", ms=4, label="CLIPtrase"),
        Line2D([], [], color=ENCODER, marker="o", ms=4, label="bare encoder"),
    ]
    made.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=SMALL)
    made.suptitle("How the cost grows", fontsize=11, fontweight="bold", x=0.01, ha="left")
    return made


def _beside_encoder(axes: Axes, steps: Sequence[dict[str, Any]], key: str) -> None:
    """CLIPtrase over the bare encoder, with the multiple at each step."""
    x = [one[key] for one in steps]
    _line(axes, x, [one["encoder_ms"] for one in steps], ENCODER)
    _line(axes, x, [one["ms"] for one in steps], OURS)
    axes.margins(x=0.09)
    right, labels = None, dict.fromkeys(x, "")
    for place, one in sorted(zip(x, steps, strict=True), key=lambda pair: -pair[0]):
        if right is not None and right - place < 0.14 * (x[-1] - x[0]):
            continue  # no room for its words
        right = place
        labels[place] = str(place)
        axes.annotate(
            f"× {one['ratio']['median']:.2f}",
            (place, one["ms"]["max"]),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            color=INK,
        )
    axes.set_xticks(x, list(labels.values()))


def _line(axes: Axes, x: Sequence[float], spreads: Sequence[dict[str, float]], colour: str) -> None:
    y = [one["median"] for one in spreads]
    below = [one["median"] - one["min"] for one in spreads]
    above = [one["max"] - one["median"] for one in spreads]
    axes.errorbar(x, y, (below, above), color=colour, marker="o", ms=4, lw=1.6, elinewidth=1)


def _named(axes: Axes, title: str, about: str, along: str) -> None:
    """Title, unit and a scale that begins at 0."""
    axes.set_title(f"{title}\n", fontsize=9.5, fontweight="bold", pad=2)
    axes.annotate(
        about,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 5),
        textcoords="offset points",
        fontsize=SMALL,
        color=GREY,
    )
    axes.set_xlabel(along, fontsize=SMALL, color=GREY)
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(axis="y", color=PALE, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
