"""The paper's observation as a figure: what a patch attends to, and what it correlates with.

In CLIP's last block the attention of nearly every patch goes to the same few places; the cosine
correlation of the patch's own queries, keys and values finds what belongs together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.stats import rankdata

from cliptrase.config import Run
from cliptrase.evaluate.graph import Graph
from cliptrase.publish.figures.label_maps import Labels
from cliptrase.publish.figures.style import INK, image_grid

PURE = 0.6  # share of a patch's pixels that make it a patch of a class
MARK = "#3ddbff"
SMALLEST = 0.02  # share of all patches that the class of the shown patch has at least

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """One image: the class of each patch (−1: none), and two ways to weigh patches by patches."""

    pixels: NDArray[np.uint8]  # (n, n, 3)
    truth: Labels  # (n, n)
    patches: Labels  # (N,), N = side²
    attention: Weights  # (N, N), rows: softmax attention of the last block, mean over heads
    correlation: Weights  # (N, N), rows: cosine correlation, of the block that is clustered


def look(graph: Graph, pixels: NDArray[np.uint8], run: Run, truth: Labels) -> Look:
    """Both weightings of an image that the model sees whole, the correlation as the `run` clusters
    it."""
    regions = run.method.regions
    assert regions is not None and regions.correlation is not None
    correlation = regions.correlation
    assert correlation.block is not None
    with torch.inference_mode():
        w = graph.correlation(correlation.block, correlation.kind, correlation.heads)[0, 1:, 1:]
        attended = graph.attention(graph.clip.depth - 1)[0, 1:, 1:]
    weights = attended.double().numpy(), w.double().numpy()
    return Look(pixels, truth, patch_classes(truth, graph.clip.patch), *weights)


def patch_classes(truth: Labels, patch: int) -> Labels:
    """The class that fills at least PURE of each patch, (N,), −1 where none does."""
    side = truth.shape[0] // patch
    tiles = truth.reshape(side, patch, side, patch).swapaxes(1, 2).reshape(side * side, -1)
    classes = np.full(len(tiles), -1, np.int64)
    for index, tile in enumerate(tiles):
        counts = np.bincount(tile[tile >= 0], minlength=1)
        if counts.max() >= PURE * tile.size:
            classes[index] = counts.argmax()
    return classes


def ranking(weights: Weights, classes: Labels) -> Weights:
    """For each patch of a class: how well its weights put that class's other patches first.

    The area under the ROC curve, 0..1, 0.5 by chance; only patches that have both kinds of others.
    """
    labelled = np.flatnonzero(classes >= 0)
    weights, classes = weights[np.ix_(labelled, labelled)], classes[labelled]
    same = classes[:, None] == classes
    np.fill_diagonal(weights, -np.inf)
    np.fill_diagonal(same, False)
    ranks = rankdata(weights, axis=1) - 1  # itself has rank 0; equal weights share a rank
    positive = same.sum(axis=1)
    pairs = positive * (len(classes) - 1 - positive)
    ahead = (ranks * same).sum(axis=1) - positive * (positive + 1) / 2
    return ahead[pairs > 0] / pairs[pairs > 0]


def shown_patch(classes: Labels) -> int | None:
    """The middle patch of the smallest class that has SMALLEST of the patches; None without one."""
    names, counts = np.unique(classes[classes >= 0], return_counts=True)
    large = counts >= max(3, SMALLEST * len(classes))
    if not large.any():
        return None
    chosen = names[large][counts[large].argmin()]
    side = round(len(classes) ** 0.5)
    members = np.flatnonzero(classes == chosen)
    places = np.stack(np.divmod(members, side), axis=1)
    return int(members[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()])


def attention_figure(looks: Sequence[Look], rows: int, title: str) -> Figure:
    """The first `rows` looks with a patch to show: image, attention, correlation of that patch.

    The headings tell the mean ranking over all the looks.
    """
    patches = [(each, shown_patch(each.patches)) for each in looks]
    shown = [(each, patch) for each, patch in patches if patch is not None][:rows]
    attention = _area([ranking(each.attention, each.patches) for each in looks])
    correlation = _area([ranking(each.correlation, each.patches) for each in looks])
    heads = ["a patch", f"last block's attention {attention}", f"cosine correlation {correlation}"]
    rows_of_heads = [heads, *[[""] * len(heads)] * (len(shown) - 1)]
    figure, grid = image_grid(rows_of_heads, (2.1, 2.05), title)
    if not shown:
        grid[0, 1].text(0.5, 0.5, "no class fills enough patches", ha="center", fontsize=9)
    for axes, (each, patch) in zip(grid, shown, strict=False):
        _draw(axes, each, patch)
    return figure


def _area(rankings: Sequence[Weights]) -> str:
    areas = np.concatenate(rankings)
    return f"AUC\N{NO-BREAK SPACE}{areas.mean():.2f}" if areas.size else ""


def _draw(axes: Sequence[Axes], shown: Look, patch: int) -> None:
    size, side = shown.pixels.shape[0], round(len(shown.patches) ** 0.5)
    step = size / side
    y, x = divmod(patch, side)
    extent = (-0.5, size - 0.5, size - 0.5, -0.5)
    member = (shown.truth == shown.patches[patch]).astype(float)
    axes[0].imshow(shown.pixels, interpolation="nearest")
    for ax, weights in zip(axes[1:], (shown.attention, shown.correlation), strict=True):
        heat = weights[patch].copy()
        heat[patch] = np.delete(heat, patch).max()  # itself: always the most, and no news
        ax.imshow(heat.reshape(side, side), cmap="magma", extent=extent, interpolation="nearest")
        ax.contour(member, levels=[0.5], colors="white", linewidths=1)
    for ax in axes:
        corner = (x * step - 0.5, y * step - 0.5)
        for colour, width in ((INK, 3.2), (MARK, 1.6)):
            frame = Rectangle(corner, step, step, fill=False, edgecolor=colour, linewidth=width)
            ax.add_patch(frame)
