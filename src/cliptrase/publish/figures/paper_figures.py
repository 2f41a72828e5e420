"""The paper's figures of pictures: what patches attend to, correlate with, and cluster by.

Each is drawn from `Quantities` alone, and each has its numbers as arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from cliptrase.publish.figures.label_maps import (
    PALETTE,
    Entry,
    Labels,
    add_legend,
    class_colours,
    class_shares,
    legend_entries,
    legend_size,
)
from cliptrase.publish.figures.quantities import (
    CLUSTERED,
    LAST,
    Clusters,
    Map,
    Predictions,
    Quantities,
    moved,
)
from cliptrase.publish.figures.style import INK, Numbers, image_grid, save, shortened

Rgb = NDArray[np.float64]

DOT, BOX, RING = "#ff2d2d", "#ff2d2d", "#3ddbff"
NO_CLUSTER = "#c9ced4"
OVERLAY = 0.6  # of a heat map over the grey picture
BRIGHTEST = 0.995  # quantile of a map between patches at which its colours end
CELL = 1.75  # inches across


@dataclass(frozen=True)
class Wanted:
    """What is asked of the figures. blocks: of Figure 2. after: the second map of Figures 4 and 9,
    the `correlation` or the released `attention`. about: the model and the size, for titles."""

    about: str
    blocks: tuple[int, ...] = ()
    after: str = "correlation"


def shown_blocks(depth: int) -> tuple[int, ...]:
    """The blocks that Figure 2 shows of a model of so many, counted as in a 12-block model."""
    blocks = (3, 6, 9, 11, 12) if depth >= 10 else (7, 9, 11, 12)
    return tuple(block for block in blocks if block > 12 - depth)


def heat_maps(pictures: Sequence[Quantities], wanted: Wanted, across: int = 1) -> Figure:
    """Picture, attention of its patch in the last block, and what that becomes (Figures 1b, 4, 9);
    `across` pictures side by side."""
    second, of = "correlation", pictures[0].correlated
    if wanted.after == "attention":
        second, of = "SCR attention", f"block {LAST}"
    heads = ["a patch", f"attention, block {LAST}", f"{second}, {of}"] * across
    down = -(-len(pictures) // across)
    title = f"{wanted.about} · before: what the patch attends to; after: its {second}"
    shapes = [
        max(map(_shape, pictures[at : at + across])) for at in range(0, len(pictures), across)
    ]
    figure, grid = _grid([heads, *[[""] * len(heads)] * (down - 1)], shapes, title)
    places = grid.reshape(down * across, 3)
    for axes, each in zip(places, pictures, strict=False):
        before, after, shape = _of_patch(each, wanted.after)
        patches = each.patch, each.patch if shape == each.grid else each.correlated_patch
        _show(axes[0], each.pixels, each.name)
        _show(axes[1], overlay(each.pixels, before, patches[0], each.grid))
        _show(axes[2], overlay(each.pixels, after, patches[1], shape))
        for ax in axes:
            _dot(ax, each, each.patch, each.grid)
    for axes in places[len(pictures) :]:
        for ax in axes:
            ax.set_visible(False)
    return figure


def _of_patch(each: Quantities, after: str) -> tuple[Map, Map, tuple[int, int]]:
    before = each.attention[LAST][1 + each.patch, 1:]
    if after == "attention":
        return before, each.released[1 + each.patch, 1:], each.grid
    return before, each.correlation[1 + each.correlated_patch, 1:], each.correlated_grid


def heat_numbers(each: Quantities, wanted: Wanted) -> Numbers:
    before, after, shape = _of_patch(each, wanted.after)
    return {"before": before, "after": after, "after_grid": np.array(shape)}


def global_patches(pictures: Sequence[Quantities], wanted: Wanted) -> Figure:
    """Blocks across: attention between patches, of [CLS], of the shown patch, and how much patches
    are looked at, global ones ringed (Figure 2); below them label maps, where there are words."""
    (each,) = pictures
    blocks = [block for block in wanted.blocks if block in each.attention]
    words = each.predictions
    maps: dict[str, Labels] = {}
    if words:
        maps = {"CLIP": words.plain, "the method": words.final}
        if words.voted and each.clusters:
            maps = {"CLIP": words.plain, "before votes": words.scr, "with votes": words.final}
    across = max(len(blocks), 1 + len(maps))
    heads = [[f"block {block}" for block in blocks] + [""] * (across - len(blocks))]
    heads += [[""] * across] * 3
    if words:
        heads += [["picture", *maps] + [""] * (across - 1 - len(maps))]
    shares = ", ".join(
        f"{100 * each.looks[block].share:.0f}\N{NO-BREAK SPACE}%" for block in blocks
    )
    title = f"{wanted.about} · share of the attention that global patches draw, by block: {shares}"
    columns, room = 0, 0.0
    if words:
        colours, entries = _legend([*maps.values()], words)
        columns, room = legend_size(entries, CELL * across)
    shapes = [1.0, *[_shape(each)] * (len(heads) - 1)]
    figure, grid = _grid(heads, shapes, title, below=0.02, legend=room)
    sides = ("patch\nby patch", "[CLS]\nattends", "the patch\nattends", "how much\nlooked at")
    for ax, side in zip(grid[:, 0], sides, strict=False):
        ax.set_ylabel(side, fontsize=9, color=INK)
    for place, block in enumerate(blocks):
        attention, looks = each.attention[block], each.looks[block]
        axes = grid[:, place]
        between = attention[1:, 1:]
        top = float(np.quantile(between, BRIGHTEST))
        drawn = axes[0].imshow(
            between, cmap="magma", vmin=0, vmax=top or 1, interpolation="nearest"
        )
        bar = figure.colorbar(drawn, ax=axes[0], location="bottom", pad=0.02, aspect=14)
        bar.ax.tick_params(labelsize=6.5)
        ends = bar.ax.set_xticks([0, top or 1], ["0", f"{top:.2g}"])
        ends[0].label1.set_horizontalalignment("left")
        ends[1].label1.set_horizontalalignment("right")
        bar.outline.set_visible(False)
        _show(axes[1], overlay(each.pixels, attention[0, 1:], None, each.grid))
        own = attention[1 + each.patch, 1:]
        _show(axes[2], overlay(each.pixels, own, each.patch, each.grid))
        _dot(axes[2], each, each.patch, each.grid)
        below = f"{int(looks.is_global.sum())} global, {100 * looks.share:.0f} %"
        _show(axes[3], overlay(each.pixels, looks.by_patches, None, each.grid), below)
        _rings(axes[3], each, np.flatnonzero(looks.is_global))
    for ax in chain(*(row[len(blocks) :] for row in grid[:4])):
        ax.set_visible(False)
    if words:
        images: list[NDArray[Any]] = [each.pixels, *(colours[labels] for labels in maps.values())]
        for ax, image in zip(grid[4], images, strict=False):
            _show(ax, image)
        for ax in grid[4, len(images) :]:
            ax.set_visible(False)
        add_legend(figure, entries, columns)
    return figure


def global_numbers(each: Quantities, wanted: Wanted) -> Numbers:
    blocks = [block for block in wanted.blocks if block in each.attention]
    numbers: Numbers = {"blocks": np.array(blocks)}
    numbers["attention"] = np.stack([each.attention[block] for block in blocks])
    numbers["looked_at"] = np.stack([each.looks[block].by_patches for block in blocks])
    numbers["is_global"] = np.stack([each.looks[block].is_global for block in blocks])
    numbers["share"] = np.array([each.looks[block].share for block in blocks])
    numbers["share_of_cls"] = np.array([each.looks[block].of_cls for block in blocks])
    if each.predictions:
        numbers |= {"plain": each.predictions.plain, "scr": each.predictions.scr}
        numbers["final"] = each.predictions.final
    return numbers


def clusters(pictures: Sequence[Quantities], wanted: Wanted) -> Figure:
    """Picture, clusters before and after the denoising, and the regions (Figure 5)."""
    heads = ["picture", "clusters", _second(pictures), "regions"]
    title = f"{wanted.about} · clusters of patches by their correlation; grey: of no cluster"
    rows = [heads, *[[""] * 4] * (len(pictures) - 1)]
    figure, grid = _grid(rows, [*map(_shape, pictures)], title)
    for axes, each in zip(grid, pictures, strict=True):
        _show(axes[0], each.pixels, each.name)
        _clusters(axes[1:3], each)
        _show(axes[3], _coloured(_of(each).regions, _matched(each)))
    return figure


def cluster_numbers(each: Quantities, wanted: Wanted) -> Numbers:
    made = _of(each)
    shape = each.correlated_grid
    return {
        "before": made.before.reshape(shape),
        "after": made.after.reshape(shape),
        "regions": made.regions,
        "noisy": np.array(made.noisy, np.int64),
    }


def local_global(pictures: Sequence[Quantities], wanted: Wanted) -> Figure:
    """Picture, correlation of the shown patch, that of the patch which is looked at most, and what
    this one attends to (Figure 6)."""
    heads = ["two patches", "correlation, local", "correlation, global", "attention, global"]
    of = f"correlation of {pictures[0].correlated}, attention of block {CLUSTERED}"
    title = f"{wanted.about} · {of} · red: the patch; blue: the most looked at"
    rows = [heads, *[[""] * 4] * (len(pictures) - 1)]
    figure, grid = _grid(rows, [*map(_shape, pictures)], title)
    for axes, each in zip(grid, pictures, strict=True):
        top = most_looked_at(each)
        there = each.correlated_grid
        local, far = each.correlated_patch, moved(top, each.grid, each.correlated_grid)
        _show(axes[0], each.pixels, each.name)
        for ax, patch in ((axes[1], local), (axes[2], far)):
            _show(ax, overlay(each.pixels, each.correlation[1 + patch, 1:], patch, there))
        _rings(axes[2], each, np.flatnonzero(each.looks[CLUSTERED].is_global))
        seen = each.attention[CLUSTERED][1 + top, 1:]
        _show(axes[3], overlay(each.pixels, seen, top, each.grid))
        for ax in axes[:2]:
            _dot(ax, each, each.patch, each.grid)
        for ax in (axes[0], *axes[2:]):
            _dot(ax, each, top, each.grid, RING)
    return figure


def most_looked_at(each: Quantities) -> int:
    """The patch that is looked at most in block 11, beyond the neighbours of the shown one."""
    by_patches = each.looks[CLUSTERED].by_patches.astype(np.float64).reshape(each.grid)
    row, column = divmod(each.patch, each.grid[1])
    near = by_patches.copy()
    near[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = -1
    if near.max() < 0:  # a picture of nine patches or fewer
        near = by_patches
        near[row, column] = -1
    return int(near.argmax())


def local_numbers(each: Quantities, wanted: Wanted) -> Numbers:
    top = most_looked_at(each)
    return {
        "global_patch": np.array(top),
        "local": each.correlation[1 + each.correlated_patch, 1:],
        "global": each.correlation[1 + moved(top, each.grid, each.correlated_grid), 1:],
        "attention": each.attention[CLUSTERED][1 + top, 1:],
        "is_global": each.looks[CLUSTERED].is_global,
    }


def denoising(pictures: Sequence[Quantities], wanted: Wanted) -> Figure:
    """As `clusters`, those of noise boxed, and the label map (Figure 10)."""
    words = all(each.predictions for each in pictures)
    heads = ["picture", "clusters, noise boxed", _second(pictures)] + ["label map"] * words
    title = f"{wanted.about} · noise: clusters of patches that correlate with [CLS]"
    rows = [heads, *[[""] * len(heads)] * (len(pictures) - 1)]
    figure, grid = _grid(rows, [*map(_shape, pictures)], title)
    finals = [each.predictions.final for each in pictures if each.predictions]
    if words and pictures[0].predictions:
        colours, _ = _legend(finals, pictures[0].predictions)
    for axes, each in zip(grid, pictures, strict=True):
        _show(axes[0], each.pixels, each.name)
        _clusters(axes[1:3], each)
        for number in _of(each).noisy:
            axes[1].add_patch(_box(each, number))
        if words and each.predictions:
            _show(axes[3], colours[each.predictions.final])
    return figure


def denoising_numbers(each: Quantities, wanted: Wanted) -> Numbers:
    numbers = cluster_numbers(each, wanted)
    numbers["boxes"] = np.array([_corners(each, number) for number in _of(each).noisy])
    if each.predictions:
        numbers["final"] = each.predictions.final
    return numbers


@dataclass(frozen=True)
class PaperFigure:
    """draw: the figure of pictures. numbers: of one of them. most: pictures in a suite's; clusters:
    whether it needs a method that makes them; of_each: whether every picture has its own."""

    draw: Callable[[Sequence[Quantities], Wanted], Figure]
    numbers: Callable[[Quantities, Wanted], Numbers]
    most: int = 4
    clusters: bool = False
    of_each: bool = False


def _two_across(pictures: Sequence[Quantities], wanted: Wanted) -> Figure:
    return heat_maps(pictures, wanted, across=min(2, len(pictures)))


FIGURES = {
    "fig1b_heatmaps": PaperFigure(heat_maps, heat_numbers, most=2),
    "fig2_global_patches": PaperFigure(global_patches, global_numbers, most=1, of_each=True),
    "fig4_scr_attention": PaperFigure(heat_maps, heat_numbers),
    "fig5_clusters": PaperFigure(clusters, cluster_numbers, clusters=True),
    "fig6_local_global": PaperFigure(local_global, local_numbers),
    "fig9": PaperFigure(_two_across, heat_numbers, most=8),
    "fig10_denoising": PaperFigure(denoising, denoising_numbers, clusters=True),
}


def numbers_of(figure: str, pictures: Sequence[Quantities], wanted: Wanted) -> Numbers:
    """The arrays of a figure: `0_grid`, `0_patch` and so on, those of picture 0."""
    numbers: Numbers = {}
    for place, each in enumerate(pictures):
        own: Mapping[str, NDArray[Any]] = {
            "name": np.array(each.name),
            "grid": np.array(each.grid),
            "patch": np.array(each.patch),
            **FIGURES[figure].numbers(each, wanted),
        }
        numbers |= {f"{place}_{key}": value for key, value in own.items()}
    return numbers


def draw(
    figures: Sequence[str],
    pictures: Sequence[Quantities],
    wanted: Wanted,
    folder: Path,
    *,
    all_pictures: bool = True,
) -> list[Path]:
    """Write figures (svg, png) and their numbers (npz) to `folder`, and what was written.

    Of all the pictures, or of as many as the paper's have. One that each picture has of its own is
    numbered where there are several; one of clusters is left out where a picture has none.
    """
    paths = []
    for name in figures:
        figure = FIGURES[name]
        some = pictures if all_pictures else pictures[: figure.most]
        if figure.clusters and any(each.clusters is None for each in some):
            continue
        groups = [[each] for each in some] if figure.of_each else [some]
        for place, group in enumerate(groups, start=1):
            file = f"{name}_{place}" if len(groups) > 1 else name
            drawn = figure.draw(group, wanted)
            engine: Any = drawn.get_layout_engine()
            engine.execute(drawn)  # it settles the second time
            paths += save(drawn, folder, file, numbers_of(name, group, wanted))
    return paths


# --- Parts of figures ----------------------------------------------------------------------


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


def _shape(each: Quantities) -> float:
    """Height over width of a picture, as far as a row of a figure follows it."""
    height, width = each.pixels.shape[:2]
    return min(max(height / width, 0.4), 2.0)


def _grid(
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


def _show(ax: Axes, image: NDArray[Any], below: str = "") -> None:
    ax.imshow(image, interpolation="nearest")
    if below:
        ax.set_xlabel(shortened(below, 26), fontsize=8, color=INK, labelpad=2)


def _centre(each: Quantities, patch: int, shape: tuple[int, int]) -> tuple[float, float, float]:
    """x, y of the middle of a patch in pixels of the picture, and its smaller side."""
    (height, width), (rows, columns) = each.pixels.shape[:2], shape
    row, column = divmod(patch, columns)
    down, across = height / rows, width / columns
    return (column + 0.5) * across - 0.5, (row + 0.5) * down - 0.5, min(down, across)


def _dot(ax: Axes, each: Quantities, patch: int, shape: tuple[int, int], colour: str = DOT) -> None:
    x, y, side = _centre(each, patch, shape)
    radius = max(side / 4, 0.015 * max(each.pixels.shape))  # to be seen in a long picture too
    ax.add_patch(Circle((x, y), radius, fc=colour, ec="white", linewidth=0.8))


def _rings(ax: Axes, each: Quantities, patches: NDArray[np.intp]) -> None:
    for patch in patches:
        x, y, side = _centre(each, int(patch), each.grid)
        ax.add_patch(Circle((x, y), 0.6 * side, fill=False, ec=RING, linewidth=1.0))


def _of(each: Quantities) -> Clusters:
    assert each.clusters is not None
    return each.clusters


def _matched(each: Quantities) -> list[int]:
    """The colour number of each cluster after the denoising: that of the one before it with which
    it shares most patches, each once; further numbers for the rest."""
    made = _of(each)
    before, after = int(made.before.max()) + 1, int(made.after.max()) + 1
    shared = np.zeros((after, before), np.int64)
    both = (made.before >= 0) & (made.after >= 0)
    np.add.at(shared, (made.after[both], made.before[both]), 1)
    numbers = [-1] * after
    for new, old in zip(*linear_sum_assignment(shared, maximize=True), strict=True):
        if shared[new, old]:
            numbers[new] = int(old)
    free = iter(range(before, before + after))
    return [next(free) if number < 0 else number for number in numbers]


def _clusters(axes: Sequence[Axes], each: Quantities) -> None:
    """Clusters before and after the denoising, patch by patch, with what there is of them."""
    made = _of(each)
    numbers = list(range(int(made.before.max()) + 1)), _matched(each)
    for ax, labels, colours in zip(axes, (made.before, made.after), numbers, strict=True):
        image = _coloured(labels.reshape(each.correlated_grid), colours)
        height, width = each.pixels.shape[:2]
        ax.imshow(image, interpolation="nearest", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        count = int(labels.max()) + 1
        noise = 100 * (labels < 0).mean()
        below = f"{count or 'no'} cluster{'s' * (count != 1)}, {noise:.0f} % in none"
        ax.set_xlabel(below, fontsize=8, color=INK, labelpad=2)


def _coloured(labels: Labels, numbers: Sequence[int]) -> Rgb:
    """RGB of cluster numbers, −1 grey; `numbers`: the colour of each."""
    colours = [to_rgb(PALETTE[number % len(PALETTE)]) for number in numbers]
    return np.array([*colours, to_rgb(NO_CLUSTER)])[labels]


def _corners(each: Quantities, number: int) -> tuple[int, int, int, int]:
    """First and last row, first and last column of the patches of a cluster before denoising."""
    rows, columns = np.divmod(np.flatnonzero(_of(each).before == number), each.correlated_grid[1])
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def _second(pictures: Sequence[Quantities]) -> str:
    """The head above the clusters that the method goes on with."""
    return "denoised" if all(_of(each).denoised for each in pictures) else "not denoised"


def _box(each: Quantities, number: int) -> Rectangle:
    top, bottom, left, right = _corners(each, number)
    (height, width), (rows, columns) = each.pixels.shape[:2], each.correlated_grid
    down, across = height / rows, width / columns
    size = (right + 1 - left) * across, (bottom + 1 - top) * down
    corner = left * across - 0.5, top * down - 0.5
    return Rectangle(corner, *size, fill=False, ec=BOX, linewidth=1.4)


def _legend(maps: Sequence[Labels], words: Predictions) -> tuple[Rgb, list[Entry]]:
    """The colour of each class in label maps, and the entries of the legend."""
    shares = class_shares(maps, len(words.names))
    table = class_colours(shares, shares, words.background)
    return table, legend_entries(table, shares, words.names, 30)
