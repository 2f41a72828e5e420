"""Parts of the paper's figures of pictures: what is asked of them, axes in rows, heat maps over a
picture, marks of patches, the legend of label maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from PIL import Image

from cliptrase.publish.figures.label_maps import (
    Entry,
    Labels,
    class_colours,
    class_shares,
    legend_entries,
)
from cliptrase.publish.figures.quantities import Map, Predictions, Quantities
from cliptrase.publish.figures.style import INK, image_grid, shortened

Rgb = NDArray[np.float64]

DOT, RING = "#ff2d2d", "#3ddbff"
OVERLAY = 0.6  # of a heat map over the grey picture
CELL = 1.75  # inches across


@dataclass(frozen=True)
class Wanted:
    """What is asked of the figures. blocks: of Figure 2. after: the second map of Figures 4 and 9,
    the `correlation` or the released `attention`. about: the model and the size, for titles."""

    about: str
    blocks: tuple[int, ...] = ()
    after: str = "correlation"


def overlay(pixels: NDArray[np.uint8], values: Map, own: int | None, shape: tuple[int, int]) -> Rgb:
    """A heat map (N,) of a grid of patches over the grey picture (H, W, 3): RGB in 0..1.

    own: the patch whose map it is; it gets the largest value of the others. Bilinear, and then
    from its smallest to its largest value; a map that is constant is drawn at 0.
    """
    heat = values.astype(np.float32)
    if own is not None:
        heat = heat.copy()
        heat[own] = np.delete(heat, own).max()
    height, width = pixels.shape[:2]
    patches = Image.fromarray(heat.reshape(shape))
    smooth = np.asarray(patches.resize((width, height), Image.Resampling.BILINEAR))
    low, high = float(smooth.min()), float(smooth.max())
    level = (smooth - low) / (high - low) if high > low else np.zeros_like(smooth)
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)[..., None] / 255
    magma = matplotlib.colormaps["magma"](level)[..., :3]
    return (1 - OVERLAY) * grey + OVERLAY * magma


def shape_of(each: Quantities) -> float:
    """Height over width of a picture, as far as a row of a figure follows it."""
    height, width = each.pixels.shape[:2]
    return min(max(height / width, 0.4), 2.0)


def grid_of(
    heads: Sequence[Sequence[str]],
    shapes: Sequence[float],
    title: str,
    *,
    below: float = 0.17,
    legend: float = 0.0,
) -> tuple[Figure, NDArray[Any]]:
    """Axes in rows and columns. shapes: height over width of each row's images; below: inches for a
    line below each."""
    height = CELL * sum(shapes) / len(shapes) + below
    figure, grid = image_grid(heads, (CELL, height), title, legend)
    grid[0, 0].get_gridspec().set_height_ratios(shapes)
    return figure, grid


def show(ax: Axes, image: NDArray[Any], below: str = "") -> None:
    ax.imshow(image, interpolation="nearest")
    if below:
        ax.set_xlabel(shortened(below, 26), fontsize=8, color=INK, labelpad=2)


def _centre(each: Quantities, patch: int, shape: tuple[int, int]) -> tuple[float, float, float]:
    """x, y of the middle of a patch in pixels of the picture, and its smaller side."""
    (height, width), (rows, columns) = each.pixels.shape[:2], shape
    row, column = divmod(patch, columns)
    down, across = height / rows, width / columns
    return (column + 0.5) * across - 0.5, (row + 0.5) * down - 0.5, min(down, across)


def dot(ax: Axes, each: Quantities, patch: int, shape: tuple[int, int], colour: str = DOT) -> None:
    x, y, side = _centre(each, patch, shape)
    radius = max(side / 4, 0.015 * max(each.pixels.shape))  # to be seen in a long picture too
    ax.add_patch(Circle((x, y), radius, fc=colour, ec="white", linewidth=0.8))


def rings(ax: Axes, each: Quantities, patches: NDArray[np.intp]) -> None:
    for patch in patches:
        x, y, side = _centre(each, int(patch), each.grid)
        ax.add_patch(Circle((x, y), 0.6 * side, fill=False, ec=RING, linewidth=1.0))


def legend(maps: Sequence[Labels], words: Predictions) -> tuple[Rgb, list[Entry]]:
    """The colour of each class in label maps, and the entries of the legend."""
    shares = class_shares(maps, len(words.names))
    table = class_colours(shares, shares, words.background)
    return table, legend_entries(table, shares, words.names, 30)
