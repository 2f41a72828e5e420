"""Label maps side by side: images, their ground truth, and what each method makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cliptrase.publish.figures.style import GREY, INK, image_grid, inches_of, legend_of, shortened

Labels = NDArray[np.int64]
Entry = tuple[str, tuple[float, ...]]  # of a legend: name and colour

ACROSS = 6  # images side by side
CELL = (1.75, 1.92)  # inches of an image and what is below it
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
    """For each picture: image, ground truth, a map of each method, its share of right pixels.

    `names`: the scored classes; `background`: which of them is the background, if one is. At most
    ACROSS stand side by side. The largest classes have a colour each, the rest one together.
    """
    heads = ["image", "ground truth", *(shortened(row, 60) for row in pictures[0].maps)]
    down = -(-len(heads) // ACROSS)
    across = -(-len(heads) // down)
    truth = class_shares([picture.truth for picture in pictures], len(names))
    maps = [labels for picture in pictures for labels in picture.maps.values()]
    shares = np.maximum(truth, class_shares(maps, len(names)))
    table = class_colours(truth, shares, background)
    entries = legend_entries(table, shares, names, 60)
    columns, room = legend_size(entries, CELL[0] * across)

    padded = [*heads, *[""] * (down * across - len(heads))]
    block = [padded[line * across : (line + 1) * across] for line in range(down)]
    again = block if down > 1 else [[""] * across]
    rows = [*block, *again * (len(pictures) - 1)]
    figure, grid = image_grid(rows, CELL, title, room)
    for picture, axes in zip(pictures, grid.reshape(len(pictures), -1), strict=True):
        colours = [table[labels] for labels in (picture.truth, *picture.maps.values())]
        below = ["", "", *(_right(labels, picture.truth) for labels in picture.maps.values())]
        for ax in axes[len(heads) :]:
            ax.set_visible(False)
        for ax, image, text in zip(axes, [picture.pixels, *colours], below, strict=False):
            ax.imshow(image, interpolation="nearest")
            ax.set_xlabel(text, fontsize=8, color=INK, labelpad=2)
    add_legend(figure, entries, columns)
    return figure


def _right(labels: Labels, truth: Labels) -> str:
    scored = truth >= 0
    return f"{100 * (labels == truth)[scored].mean():.0f} % of pixels right" if scored.any() else ""


def class_shares(maps: Sequence[Labels], classes: int) -> NDArray[np.float64]:
    """The largest share of a map that each class fills, (classes,)."""
    counts = [np.bincount(each[each >= 0], minlength=classes) / each.size for each in maps]
    return np.max(counts, axis=0)


def legend_entries(
    table: NDArray[np.float64], shares: NDArray[np.float64], names: Sequence[str], most: int
) -> list[Entry]:
    """The classes in a map that have a colour of their own in a `table` of class_colours, each name
    of `most` characters, and the others together, if there are any."""
    shown = np.flatnonzero((table[:-1] != to_rgb(OTHER)).any(axis=1) & (shares > 0))
    entries: list[Entry] = [(shortened(names[int(at)], most), tuple(table[at])) for at in shown]
    others = len(shown) < int(np.count_nonzero(shares))
    return entries + [("other classes", to_rgb(OTHER))] * others


def legend_size(entries: Sequence[Entry], width: float) -> tuple[int, float]:
    """How many columns a legend has in a figure of so many inches, and how high it is."""
    widest = max(inches_of(name, LEGEND["fontsize"]) for name, _ in entries) + 0.45
    columns = min(8, max(1, int(width / widest)))
    return columns, 0.19 * -(-len(entries) // columns) + 0.15


def add_legend(figure: Figure, entries: Sequence[Entry], columns: int) -> None:
    """Write the entries below the figure."""
    handles = [Patch(fc=colour, ec=GREY, linewidth=0.5) for _, colour in entries]
    legend_of(figure, handles, [name for name, _ in entries], ncols=columns, **LEGEND)


def class_colours(
    truth: NDArray[np.float64], shares: NDArray[np.float64], background: int | None
) -> NDArray[np.float64]:
    """(classes + 1, 3): a colour a class, the last row (index −1) for what is not scored.

    The largest classes of the ground truth choose first, then those of all maps: each the colour of
    its index, or the next that is free. So a method more changes no colour of the ground truth.
    """
    table = np.tile(to_rgb(OTHER), (len(shares) + 1, 1))
    free = list(range(len(PALETTE)))
    for index in np.lexsort((-shares, -truth)):
        if shares[index] >= SHARE and index != background and free:
            place = min(free, key=lambda each: (each - index) % len(PALETTE))
            free.remove(place)
            table[index] = to_rgb(PALETTE[place])
    if background is not None:
        table[background] = to_rgb(BACKGROUND)
    table[-1] = to_rgb(UNSCORED)
    return table
