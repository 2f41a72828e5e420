"""Where the time of an image goes: the bare encoder, CLIPtrase here, the released procedure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cliptrase.publish.style import GREY, ROWS, SETTINGS, save

PARTS = (
    ("features", ROWS[0]),
    ("correlation", ROWS[2]),
    ("clustering", ROWS[1]),
    ("regions", ROWS[3]),
    ("logits and upsampling", ROWS[4]),
    ("vote", ROWS[5]),
    ("confusion", GREY),
)


def draw(cost: dict[str, Any], path: Path) -> list[Path]:
    """Write the picture of a cost.json beside `path` as .svg and .png."""
    with matplotlib.rc_context(SETTINGS):
        return save(figure(cost), path.parent, path.stem)


def figure(cost: dict[str, Any]) -> Figure:
    """A panel a size, a bar each, in milliseconds an image on all threads."""
    sizes = list(cost["released"])
    made = Figure(figsize=(8.6, 1.6 * len(sizes) + 0.8), layout="constrained")
    for axes, size in zip(made.subplots(len(sizes), squeeze=False)[:, 0], sizes, strict=True):
        slow = cost["released"][size]
        here = cost["cliptrase_ms"][size][str(slow["classes"])]
        bars = {
            "released code's procedure": (slow["released_ms"], slow["released_ms"]["total"]),
            "CLIPtrase here": (here, here["total"]),
            "bare encoder": ({}, cost["encoder_ms"][size]),
        }
        longest = slow["released_ms"]["total"]["median"]
        for row, (parts, total) in enumerate(bars.values()):
            left = 0.0
            for name, colour in PARTS:
                width = parts.get(name, 0.0) if parts else total["median"] * (name == "features")
                axes.barh(row, width, 0.66, left=left, color=colour)
                left += width
            end = max(left, total["median"]) + 0.01 * longest
            axes.text(end, row, f"{total['median']:.0f} ms", va="center", fontsize=8.5)
        axes.set_yticks(range(len(bars)), list(bars))
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * longest)
        axes.set_xlabel("milliseconds an image", fontsize=8.5, color=GREY)
        axes.set_title(f"{size} px, {slow['classes']} classes", fontsize=9.5)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colour, label=name) for name, colour in PARTS]
    made.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=8.5)
    made.suptitle("Where an image's time goes", fontsize=11, fontweight="bold", x=0.01, ha="left")
    return made
