"""The paper's figures of pairs of patches: what patches attend to, and what they correlate with
(Figures 1b, 2, 4, 6 and 9); each with its numbers as arrays."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cliptrase.publish.figures.label_maps import Labels, add_legend, legend_size
from cliptrase.publish.figures.parts import (
    CELL,
    RING,
    Wanted,
    dot,
    grid_of,
    legend,
    overlay,
    rings,
    shape_of,
    show,
)
from cliptrase.publish.figures.quantities import CLUSTERED, LAST, Map, Quantities, moved
from cliptrase.publish.figures.style import INK, Numbers

BRIGHTEST = 0.995  # quantile of a map between patches at which its colours end


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
        max(map(shape_of, pictures[at : at + across])) for at in range(0, len(pictures), across)
    ]
    figure, grid = grid_of([heads, *[[""] * len(heads)] * (down - 1)], shapes, title)
    places = grid.reshape(down * across, 3)
    for axes, each in zip(places, pictures, strict=False):
        before, after, shape = _of_patch(each, wanted.after)
        patches = each.patch, each.patch if shape == each.grid else each.correlated_patch
        show(axes[0], each.pixels, each.name)
        show(axes[1], overlay(each.pixels, before, patches[0], each.grid))
        show(axes[2], overlay(each.pixels, after, patches[1], shape))
        for ax in axes:
            dot(ax, each, each.patch, each.grid)
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
        colours, entries = legend([*maps.values()], words)
        columns, room = legend_size(entries, CELL * across)
    shapes = [1.0, *[shape_of(each)] * (len(heads) - 1)]
    figure, grid = grid_of(heads, shapes, title, below=0.02, legend=room)
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
        show(axes[1], overlay(each.pixels, attention[0, 1:], None, each.grid))
        own = attention[1 + each.patch, 1:]
        show(axes[2], overlay(each.pixels, own, each.patch, each.grid))
        dot(axes[2], each, each.patch, each.grid)
        below = f"{int(looks.is_global.sum())} global, {100 * looks.share:.0f} %"
        show(axes[3], overlay(each.pixels, looks.by_patches, None, each.grid), below)
        rings(axes[3], each, np.flatnonzero(looks.is_global))
    for ax in chain(*(row[len(blocks) :] for row in grid[:4])):
        ax.set_visible(False)
    if words:
        images: list[NDArray[Any]] = [each.pixels, *(colours[labels] for labels in maps.values())]
        for ax, image in zip(grid[4], images, strict=False):
            show(ax, image)
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


def local_global(pictures: Sequence[Quantities], wanted: Wanted) -> Figure:
    """Picture, correlation of the shown patch, that of the patch which is looked at most, and what
    this one attends to (Figure 6)."""
    heads = ["two patches", "correlation, local", "correlation, global", "attention, global"]
    of = f"correlation of {pictures[0].correlated}, attention of block {CLUSTERED}"
    title = f"{wanted.about} · {of} · red: the patch; blue: the most looked at"
    rows = [heads, *[[""] * 4] * (len(pictures) - 1)]
    figure, grid = grid_of(rows, [*map(shape_of, pictures)], title)
    for axes, each in zip(grid, pictures, strict=True):
        top = most_looked_at(each)
        there = each.correlated_grid
        local, far = each.correlated_patch, moved(top, each.grid, each.correlated_grid)
        show(axes[0], each.pixels, each.name)
        for ax, patch in ((axes[1], local), (axes[2], far)):
            show(ax, overlay(each.pixels, each.correlation[1 + patch, 1:], patch, there))
        rings(axes[2], each, np.flatnonzero(each.looks[CLUSTERED].is_global))
        seen = each.attention[CLUSTERED][1 + top, 1:]
        show(axes[3], overlay(each.pixels, seen, top, each.grid))
        for ax in axes[:2]:
            dot(ax, each, each.patch, each.grid)
        for ax in (axes[0], *axes[2:]):
            dot(ax, each, top, each.grid, RING)
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
