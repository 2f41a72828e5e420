"""The paper's figures of clusters: before and after the denoising, as regions, and those of noise
(Figures 5 and 10); each with its numbers as arrays."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.optimize import linear_sum_assignment

from cliptrase.publish.figures.label_maps import PALETTE, Labels
from cliptrase.publish.figures.parts import Rgb, Wanted, grid_of, legend, shape_of, show
from cliptrase.publish.figures.quantities import Clusters, Quantities
from cliptrase.publish.figures.style import INK, Numbers

BOX = "#ff2d2d"
NO_CLUSTER = "#c9ced4"


def clusters(pictures: Sequence[Quantities], wanted: Wanted) -> Figure:
    """Picture, clusters before and after the denoising, and the regions (Figure 5)."""
    heads = ["picture", "clusters", _second(pictures), "regions"]
    title = f"{wanted.about} · clusters of patches by their correlation; grey: of no cluster"
    rows = [heads, *[[""] * 4] * (len(pictures) - 1)]
    figure, grid = grid_of(rows, [*map(shape_of, pictures)], title)
    for axes, each in zip(grid, pictures, strict=True):
        show(axes[0], each.pixels, each.name)
        _clusters(axes[1:3], each)
        show(axes[3], _coloured(_of(each).regions, _matched(each)))
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


def denoising(pictures: Sequence[Quantities], wanted: Wanted) -> Figure:
    """As `clusters`, those of noise boxed, and the label map (Figure 10)."""
    words = all(each.predictions for each in pictures)
    heads = ["picture", "clusters, noise boxed", _second(pictures)] + ["label map"] * words
    title = f"{wanted.about} · noise: clusters of patches that correlate with [CLS]"
    rows = [heads, *[[""] * len(heads)] * (len(pictures) - 1)]
    figure, grid = grid_of(rows, [*map(shape_of, pictures)], title)
    finals = [each.predictions.final for each in pictures if each.predictions]
    if words and pictures[0].predictions:
        colours, _ = legend(finals, pictures[0].predictions)
    for axes, each in zip(grid, pictures, strict=True):
        show(axes[0], each.pixels, each.name)
        _clusters(axes[1:3], each)
        for number in _of(each).noisy:
            axes[1].add_patch(_box(each, number))
        if words and each.predictions:
            show(axes[3], colours[each.predictions.final])
    return figure


def denoising_numbers(each: Quantities, wanted: Wanted) -> Numbers:
    numbers = cluster_numbers(each, wanted)
    numbers["boxes"] = np.array([_corners(each, number) for number in _of(each).noisy])
    if each.predictions:
        numbers["final"] = each.predictions.final
    return numbers


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


def _box(each: Quantities, number: int) -> Rectangle:
    top, bottom, left, right = _corners(each, number)
    (height, width), (rows, columns) = each.pixels.shape[:2], each.correlated_grid
    down, across = height / rows, width / columns
    size = (right + 1 - left) * across, (bottom + 1 - top) * down
    corner = left * across - 0.5, top * down - 0.5
    return Rectangle(corner, *size, fill=False, ec=BOX, linewidth=1.4)


def _second(pictures: Sequence[Quantities]) -> str:
    """The head above the clusters that the method goes on with."""
    return "denoised" if all(_of(each).denoised for each in pictures) else "not denoised"
