"""The class of every pixel, cell by cell: in a quarter of what lies between four patches few names
can win.

Cells are such quarters, so that they cover a picture. Their corners are the middles of patches, and
what lies half-way between them. A name that another exceeds at all four corners of a cell wins
nowhere in it. Where several are left, the pixels of a name are one product of its corners with the
weights of bilinear upsampling. That rounds otherwise than upsampling a map as a whole: where it
could matter, the names that come near are upsampled as the whole is.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.segment.argmax import first_argmax
from cliptrase.segment.tiles import Span, bilinear

CHUNK = 8  # names upsampled at once: bounds memory, changes no result


class _Corners(NamedTuple):
    """Maps (K, P) of the P = (2h + 1)·(2w + 1) corners of cells, row by row.

    The corners of cell i are i, i + 1, i + width and i + width + 1. Where i is the last of a row
    they wrap into the next: that cell is computed as well, and cut off by `_laid_out`. So the maps
    need no copy for each corner.
    """

    maps: NDArray[np.float32]
    width: int  # 2w + 1

    @classmethod
    def of(cls, logits: NDArray[np.float32]) -> Self:
        """Of logits (K, h, w)."""
        middles = _middles(logits)
        return cls(middles.reshape(len(logits), -1), middles.shape[2])

    @property
    def cells(self) -> int:
        """How many cells there are, with those that are left out."""
        return self.maps.shape[1] - self.width - 1

    @property
    def offsets(self) -> tuple[int, int, int, int]:
        """Where the corners of a cell are, from the first."""
        return 0, 1, self.width, self.width + 1

    def unbeaten(self, margin: float) -> NDArray[np.bool_]:
        """Which names (K, C) no other exceeds by the margin at all corners of a cell. A name is
        compared with the largest at each corner alone: some that cannot win are left, none that
        can is dropped."""
        count, cells = self.maps.shape[1], self.cells
        largest = self.maps.argmax(axis=0) * count + np.arange(count)
        parts = [self.maps[:, offset : offset + cells] for offset in self.offsets]
        unbeaten, reaches, here = np.ones((3, *parts[0].shape), np.bool_)
        for corner in self.offsets:
            leader = largest[corner : corner + cells] - corner
            bounds = (
                self.maps.take(leader + offset) - np.float32(margin) for offset in self.offsets
            )
            np.greater_equal(parts[0], next(bounds), out=reaches)
            for values, bound in zip(parts[1:], bounds, strict=True):
                reaches |= np.greater_equal(values, bound, out=here)
            unbeaten &= reaches
        return unbeaten


class _Cells(NamedTuple):
    """C cells and the N names that can win in each of them.

    place, sizes, starts: (C,) of each cell, those with the most names first, where it is in the
    picture, how many names it has, and where they begin. names, corners: (N,) and (4, N) of all
    cells, cell by cell as they lie, names ascending, so that the first of equals wins.
    """

    place: NDArray[np.intp]
    sizes: NDArray[np.intp]
    starts: NDArray[np.intp]
    names: NDArray[np.intp]
    corners: NDArray[np.float32]

    @classmethod
    def of(cls, corners: _Corners, margin: float) -> Self:
        """All cells."""
        names, cell = np.divmod(np.flatnonzero(corners.unbeaten(margin)), corners.cells)
        order = np.argsort(cell, kind="stable")
        names, cell = names[order], cell[order]
        first = names * corners.maps.shape[1] + cell
        values = np.stack([corners.maps.take(first + offset) for offset in corners.offsets])
        sizes = np.bincount(cell, minlength=corners.cells)
        place = np.argsort(-sizes, kind="stable")
        starts = np.cumsum(sizes) - sizes
        return cls(place, sizes[place], starts[place], names, values)

    def contested(self) -> Self:
        """Those that more than one name can win."""
        count = int(np.searchsorted(-self.sizes, -1))
        some = self.place[:count], self.sizes[:count], self.starts[:count]
        return type(self)(*some, self.names, self.corners)


class _Unclear(NamedTuple):
    """A cell where names come near the largest: its row and column, the names, and the pixels
    (s, s) where they do."""

    row: int
    column: int
    names: NDArray[np.intp]
    pixels: NDArray[np.bool_]


def classes_of(
    logits: Tensor, owner: NDArray[np.int64], margin: float, parts: Sequence[tuple[Span, Span]]
) -> NDArray[np.int64]:
    """The class (h·f, w·f) that owns the largest of `logits` (K, h, w) after upsampling by an even
    f, the first name of equals.

    logits: finite float32. owner: (K,) the class of each name. margin: no less than rounding can
    move the difference of two names by. parts: tiles that cover the whole, row by row.
    """
    corners, side = _Corners.of(logits.numpy()), parts[0][0].factor // 2
    small = owner.astype(np.min_scalar_type(owner.max()))
    cells = _Cells.of(corners, margin)
    classes = np.empty((len(cells.place), side**2), small.dtype)
    classes[cells.place] = small[cells.names[cells.starts], None]
    cells = cells.contested()
    best, winners, near = _largest(cells, _weights(side), margin)
    classes[cells.place] = small[cells.names].take(winners)
    found = _laid_out(classes, corners.width, side).astype(np.int64)
    unclear = _unclear(cells, corners.width, best - np.float32(margin), near)
    _look_again(found, unclear, logits, owner, parts)
    return found


def _middles(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The corners (K, 2h + 1, 2w + 1) of all cells of maps (K, h, w) that are upsampled bilinearly:
    each value, what is half-way between neighbours, and the borders once more."""
    names, rows, columns = logits.shape
    maps = np.empty((names, 2 * rows + 1, 2 * columns + 1), np.float32)
    along = maps[:, 1::2]
    along[..., 1::2] = logits
    along[..., 2:-1:2] = (logits[..., :-1] + logits[..., 1:]) / 2
    along[..., 0], along[..., -1] = logits[..., 0], logits[..., -1]
    np.add(along[:, :-1], along[:, 1:], out=maps[:, 2:-1:2])
    maps[:, 2:-1:2] /= 2
    maps[:, 0], maps[:, -1] = maps[:, 1], maps[:, -2]
    return maps


def _largest(
    cells: _Cells, weights: Tensor, margin: float
) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.bool_]]:
    """By cell and pixel (C, s²): the largest logit, where its name is among `cells.names`, and
    whether another name comes near."""
    shape = len(cells.place), weights.shape[1]
    best, second = np.full((2, *shape), -np.inf, np.float32)
    values, lower = np.empty((2, *shape), np.float32)
    most = int(cells.sizes[0]) if len(cells.sizes) else 0
    winner, better = np.zeros(shape, np.min_scalar_type(most)), np.empty(shape, np.bool_)
    ranks = np.arange(most)
    for rank, count in enumerate(np.searchsorted(-cells.sizes, -ranks).tolist()):
        here, top, low = values[:count], best[:count], lower[:count]
        of_names = torch.from_numpy(cells.corners[:, cells.starts[:count] + rank])
        torch.mm(of_names.T, weights, out=torch.from_numpy(here))
        np.copyto(winner[:count], rank, where=np.greater(here, top, out=better[:count]))
        np.maximum(second[:count], np.minimum(here, top, out=low), out=second[:count])
        np.maximum(here, top, out=top)
    return best, cells.starts[:, None] + winner, second >= best - np.float32(margin)


def _unclear(
    cells: _Cells, width: int, bound: NDArray[np.float32], near: NDArray[np.bool_]
) -> Iterator[_Unclear]:
    """The cells with pixels (C, s²) where several names come `near`, to `bound`."""
    side = round(near.shape[1] ** 0.5)
    weights = _weights(side).numpy()
    whole = cells.place % width < width - 1  # not cut off later
    for cell in np.flatnonzero(near.any(axis=1) & whole):
        its = slice(cells.starts[cell], cells.starts[cell] + cells.sizes[cell])
        values = cells.corners[:, its].T @ weights[:, near[cell]]
        close = (values >= bound[cell, near[cell]]).any(axis=1)
        row, column = divmod(int(cells.place[cell]), width)
        yield _Unclear(row, column, cells.names[its][close], near[cell].reshape(side, side))


def _look_again(
    found: NDArray[np.int64],
    unclear: Iterable[_Unclear],
    logits: Tensor,
    owner: NDArray[np.int64],
    parts: Sequence[tuple[Span, Span]],
) -> None:
    """Correct the classes of unclear pixels, tile by tile."""
    ends = [np.unique([each[axis].pixels.stop for each in parts]) for axis in (0, 1)]
    by_tile: dict[tuple[int, int], list[_Unclear]] = {}
    for each in unclear:
        tile = (
            int(np.searchsorted(stops, place * len(each.pixels), side="right"))
            for stops, place in zip(ends, (each.row, each.column), strict=True)
        )
        row, column = tile
        by_tile.setdefault((row, column), []).append(each)
    for (row, column), cells in by_tile.items():
        y, x = parts[row * len(ends[1]) + column]
        near = np.unique(np.concatenate([each.names for each in cells]))
        maps = logits[None, near][..., y.patches, x.patches].split(CHUNK, dim=1)
        exact = first_argmax(bilinear(part, (y.size, x.size)) for part in maps)
        classes = owner[near][exact[0].numpy()]
        for each in cells:
            side = len(each.pixels)
            top, left = each.row * side, each.column * side
            at = top - y.pixels.start + y.inner.start, left - x.pixels.start + x.inner.start
            right = classes[at[0] : at[0] + side, at[1] : at[1] + side]
            np.copyto(found[top : top + side, left : left + side], right, where=each.pixels)


@lru_cache
def _weights(side: int) -> Tensor:
    """What the pixels of a cell have of its four corners: (4, side²)."""
    second = (torch.arange(side, dtype=torch.float32, device="cpu") + 0.5) / side
    each = torch.stack([1 - second, second])
    return (each[:, None, :, None] * each[None, :, None, :]).reshape(4, -1)


def _laid_out(pixels: NDArray[Any], width: int, side: int) -> NDArray[Any]:
    """Pixels (C, side²) of cells in rows of `width`, but for the very last, as a picture without
    the last cell of each row."""
    rows = (len(pixels) + 1) // width
    cells = np.empty((rows * width, side, side), pixels.dtype)
    cells[:-1] = pixels.reshape(-1, side, side)
    picture = cells.reshape(rows, width, side, side)[:, :-1].swapaxes(1, 2)
    return picture.reshape(rows * side, (width - 1) * side)
