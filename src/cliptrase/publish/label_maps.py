"""Label maps side by side: images, their ground truth, and what each method makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cliptrase.publish.style import GREY, INK, image_grid

Labels = NDArray[np.int64]

SHARE = 0.01  # of a map: smaller classes have no colour of their own
BACKGROUND, UNSCORED, OTHER = "#dfe3e8", "#ffffff", "#57606a"
LEGEND: Any = {"loc": "outside lower center", "frameon": False, "fontsize": 8.5}
LEGEND |= {"handlelength": 1.1, "handleheight": 1.1, "columnspacing": 1.4}

# Colours that keep apart, after Sasha Trubetskoy's list of twenty; neighbours differ most.
PALETTE = (
    *("#4363d8", "#f58231", "#3cb44b", "#e6194b", "#911eb4", "#42d4f4", "#d65db1", "#9a6324"),
    *("#a7c957", "#fabed4", "#469990", "#ffd43b", "#800000", "#aaffc3", "#808000", "#dcbeff"),
    *("#000075", "#ffd8b1", "#a0522d", "#7fb3d5"),
)


@dataclass(frozen=True)
class Picture:
    """One image as the model sees it, its ground truth, and a label map for each row."""

    pixels: NDArray[np.uint8]  # (h, w, 3)
    truth: Labels  # (H, W), −1 where nothing is scored
    maps: dict[str, Labels]  # (H, W) each


def label_maps(
    pictures: Sequence[Picture], names: list[str], background: int | None, title: str
) -> Figure:
    """A row for each picture: image, ground truth, a map of each method, its share of right pixels.

    `names`: the scored classes; `background`: which of them is the background, if one is.
    """
    rows = list(pictures[0].maps)
    shares = _shares(pictures, len(names))
    shown = [int(index) for index in np.flatnonzero(shares >= SHARE)]
    table = _colours(shown, len(names), background)
    columns = ["image", "ground truth", *rows]
    size = 1.75 * len(columns) + 0.2, 1.92 * len(pictures) + 1.0
    figure, grid = image_grid(len(pictures), columns, 10.5, size, title)
    for picture, axes in zip(pictures, grid, strict=True):
        colours = [table[labels] for labels in (picture.truth, *picture.maps.values())]
        below = ["", "", *(_right(labels, picture.truth) for labels in picture.maps.values())]
        images = [picture.pixels, *colours]
        for ax, image, text in zip(axes, images, below, strict=True):
            ax.imshow(image, interpolation="nearest")
            ax.set_xlabel(text, fontsize=8, color=INK, labelpad=2)
    entries: list[tuple[str, Any]] = [(names[index], tuple(table[index])) for index in shown]
    entries += [("other classes", OTHER)] * bool(((shares > 0) & (shares < SHARE)).any())
    handles = [Patch(fc=colour, ec=GREY, linewidth=0.5, label=name) for name, colour in entries]
    figure.legend(handles=handles, ncols=min(8, 2 + len(columns)), **LEGEND)
    return figure


def _right(labels: Labels, truth: Labels) -> str:
    scored = truth >= 0
    return f"{100 * (labels == truth)[scored].mean():.0f} % of pixels right" if scored.any() else ""


def _shares(pictures: Sequence[Picture], classes: int) -> NDArray[np.float64]:
    """The largest share of a map that each class fills, (classes,)."""
    largest = np.zeros(classes)
    for picture in pictures:
        for labels in (picture.truth, *picture.maps.values()):
            counts = np.bincount(labels[labels >= 0], minlength=classes)
            largest = np.maximum(largest, counts / labels.size)
    return largest


def _colours(shown: list[int], classes: int, background: int | None) -> NDArray[np.float64]:
    """(classes + 1, 3): a colour a class, the last row (index −1) for what is not scored."""
    table = np.tile(to_rgb(OTHER), (classes + 1, 1))
    named = [index for index in shown if index != background]
    for place, index in enumerate(named):
        table[index] = to_rgb(PALETTE[place % len(PALETTE)])
    if background is not None:
        table[background] = to_rgb(BACKGROUND)
    table[-1] = to_rgb(UNSCORED)
    return table
