"""The paper's figures of pictures, by name: each is drawn from `Quantities` alone, and written with
its numbers as arrays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cliptrase.publish.figures.between_patches import (
    global_numbers,
    global_patches,
    heat_maps,
    heat_numbers,
    local_global,
    local_numbers,
)
from cliptrase.publish.figures.cluster_figures import (
    cluster_numbers,
    clusters,
    denoising,
    denoising_numbers,
)
from cliptrase.publish.figures.parts import Wanted
from cliptrase.publish.figures.quantities import Quantities
from cliptrase.publish.figures.style import Numbers, save


def shown_blocks(depth: int) -> tuple[int, ...]:
    """The blocks that Figure 2 shows of a model of so many, counted as in a 12-block model."""
    blocks = (3, 6, 9, 11, 12) if depth >= 10 else (7, 9, 11, 12)
    return tuple(block for block in blocks if block > 12 - depth)


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
