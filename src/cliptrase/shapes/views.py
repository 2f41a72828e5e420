"""What a training step shows of a scene: a window of its patches, and what is in that window."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from cliptrase.shapes.captions import Content
from cliptrase.shapes.model import GRID, PATCH, from_patches, to_patches
from cliptrase.shapes.scenes import SIZE, Thing
from cliptrase.shapes.stream import Stream

POINTS = 16  # along a side of a window, at which it is asked what is there
NAMED = 0.06  # of a window, or of its own disc, that a thing must fill to be named
WHOLE = 0.5


class View(NamedTuple):
    """Scenes as `grid` × `grid` patches (14: 224 px, 21: 336 px), of which a square window of
    `smallest` to `largest` patches a side is shown."""

    grid: int = GRID
    smallest: int = GRID
    largest: int = GRID

    @property
    def whole(self) -> bool:
        """Whether all of a scene is seen."""
        return self.smallest == self.grid


class Window(NamedTuple):
    """A square window of a scene: first row, first column and side, in patches of a grid."""

    row: int
    column: int
    side: int

    def cells(self, places: np.ndarray, grid: int) -> np.ndarray:
        """Positions in the grid of places (n,), numbered row by row within the window."""
        row, column = np.divmod(places, self.side)
        return (self.row + row) * grid + self.column + column


def window(view: View, stream: Stream) -> Window:
    """A random window."""
    side = view.smallest + stream.integer(view.largest - view.smallest + 1)
    row, column = (stream.integer(view.grid - side + 1) for _ in range(2))
    return Window(row, column, side)


def shown(patches: np.ndarray, at: Window, grid: int, places: np.ndarray) -> np.ndarray:
    """Patches (n, 768) of a scene (196, 768) at places of a window; the scene is resized, bicubic,
    where the grid is not its own."""
    if grid == GRID:
        return patches[at.cells(places, grid)]
    unit = SIZE / grid
    left, top, side = at.column * unit, at.row * unit, at.side * unit
    box = (left, top, left + side, top + side)
    size = (at.side * PATCH, at.side * PATCH)
    scene = Image.fromarray(from_patches(patches))
    return to_patches(np.asarray(scene.resize(size, Image.Resampling.BICUBIC, box)))[places]


def content(whole: Content, things: Sequence[Thing], at: Window, grid: int) -> Content:
    """What of a scene is in a window, by the discs in which its things were laid out.

    A thing is named if, in front of others, it fills NAMED of the window or if WHOLE of its disc is
    there; the background if nothing else fills NAMED of the window.
    """
    unit = SIZE / grid
    across = (np.arange(POINTS) + 0.5) / POINTS * at.side * unit
    x, y = at.column * unit + across[None, :], at.row * unit + across[:, None]
    owner = np.full((POINTS, POINTS), -1)
    for index, thing in enumerate(things):
        owner[(x - thing.x) ** 2 + (y - thing.y) ** 2 < thing.radius**2] = index
    share = np.bincount(owner.ravel() + 1, minlength=len(things) + 1) / POINTS**2
    area = (at.side * unit) ** 2
    objects = tuple(
        thing.raw
        for thing, part in zip(things, share[1:], strict=True)
        if thing.raw in whole.objects
        and (part >= NAMED or part * area >= WHOLE * np.pi * thing.radius**2)
    )
    return Content(objects, whole.background if share[0] >= NAMED or not objects else None)
