"""The pictures of docs/performance.md, drawn by pandas from cost.json and growth.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.per_image import STAGES
from cliptrase.publish.figures.style import GREY, ROWS, SETTINGS, save

MS = {"ms": "CLIPtrase", "encoder_ms": "bare encoder"}
GROWTH = {  # by what grows: the title of its panel, and the names of the lines
    "classes": ("ms an image", MS),
    "size": ("ms an image, 171 classes", MS),
    "clusters": ("ms of an image's regions", {"regions_ms": "CLIPtrase"}),
    "threads": ("images a second", {"rate": "CLIPtrase", "encoder_rate": "bare encoder"}),
}


def cost(figures: dict[str, Any], folder: Path) -> list[Path]:
    """Where an image's time goes: a panel a size, a bar for each contender."""
    released = figures["released"]
    with matplotlib.rc_context(SETTINGS):
        picture = Figure(figsize=(8.6, 1.6 * len(released) + 0.8), layout="constrained")
        for axes, size in zip(picture.subplots(len(released)), released, strict=True):
            classes, slow = released[size]["classes"], released[size]["released_ms"]
            bars = {
                "bare encoder": {"features": figures["encoder_ms"][size]["median"]},
                "CLIPtrase here": figures["cliptrase_ms"][size][str(classes)],
                "released code's procedure": slow,
            }
            frame = pd.DataFrame(bars).T.reindex(columns=list(STAGES.values())).astype(float)
            frame.plot.barh(
                stacked=True, ax=axes, color=[*ROWS.values(), GREY], width=0.66, legend=False
            )
            for row, total in enumerate(frame.sum(axis=1)):
                axes.text(total, row, f" {total:.0f} ms", va="center")
            axes.set(title=f"{size} px, {classes} classes", xlabel="milliseconds an image")
        picture.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return save(picture, folder, "cost")


def growth(figures: dict[str, Any], folder: Path) -> list[Path]:
    """How the cost grows: the medians, over scales that begin at 0."""
    with matplotlib.rc_context(SETTINGS):
        picture = Figure(figsize=(8.6, 5.8), layout="constrained")
        panels = zip(picture.subplots(2, 2).flat, GROWTH.items(), strict=True)
        for axes, (x, (title, lines)) in panels:
            frame = pd.json_normalize(figures[f"by_{x}"])
            frame[x] = frame[x].map(np.median)  # clusters: of all pictures of a step
            frame = frame.set_index(x)[[f"{key}.median" for key in lines]]
            frame.columns = list(lines.values())
            frame.plot(ax=axes, marker="o", color=[ROWS["CLIPtrase"], ROWS["SCLIP"]], title=title)
            axes.set(xlim=(0, None), ylim=(0, None))
        return save(picture, folder, "growth")
