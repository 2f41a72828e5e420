"""The class of every pixel, cell by cell: between four patches few names can win.

There the pixels of a name are one product of its four corners with the weights of bilinear
upsampling. That rounds otherwise than upsampling a map as a whole: where it could matter, the names
that come near are upsampled as the whole is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.segment.argmax import first_argmax
from cliptrase.segment.tiles import Span, bilinear

CHUNK = 8  # names upsampled at once: bounds memory, changes no result


class _Cells(NamedTuple):
    """C cells in the order of how many names can win there, the most first.

    place: (C,) of each in the picture. sizes: (C,) names in each. names: those of all cells, cell
    by cell. starts: (C,) where those of each begin.
    """

    place: NDArray[np.intp]
    sizes: NDArray[np.intp]
    names: NDArray[np.int64]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, alive: NDArray[np.bool_]) -> "_Cells":
        """Of which names (K, C) can win in a cell; at least one in each."""
        cell, names = alive.T.nonzero()
        sizes = np.bincount(cell, minlength=alive.shape[1])
        place = np.argsort(-sizes, kind="stable")
        starts = np.cumsum(sizes) - sizes
        return cls(place, sizes[place], names, starts[place])


def classes_of(
    logits: Tensor,
    owner: NDArray[np.int64],
    alive: NDArray[np.bool_],
    margin: float,
    parts: Sequence[tuple[Span, Span]],
) -> NDArray[np.int64]:
    """The class (h·f, w·f) that owns the largest of `logits` (K, h, w) after upsampling by an even
    f, the first name of equals.

    owner: (K,) the class of each name. alive: which names (K, h + 1, w + 1) can win in a cell,
    those around the grid included. margin: more than two ways to upsample differ by. parts: tiles
    that cover the whole.
    """
    shape, factor = alive.shape[1:], parts[0][0].factor
    cells, corners = _Cells.of(alive.reshape(len(alive), -1)), _corners(logits)
    weights = _weights(factor).to(logits)
    best, winner, unclear = _largest(cells, corners, weights, owner, margin)
    found = _laid_out(winner, cells.place, shape, factor)
    some = np.flatnonzero(unclear.any(axis=1))
    if len(some):
        close = np.zeros((len(logits), len(cells.place)), np.bool_)
        for cell in some:
            start, place, where = cells.starts[cell], cells.place[cell], unclear[cell]
            names = cells.names[start : start + cells.sizes[cell]]
            near = corners[place, names] @ weights[:, where]
            close[names, place] = (near.numpy() >= best[cell, where] - margin).any(axis=1)
        where = _laid_out(unclear, cells.place, shape, factor)
        _look_again(found, where, close.reshape(alive.shape), logits, owner, parts)
    return found


def _largest(
    cells: _Cells, corners: Tensor, weights: Tensor, owner: NDArray[np.int64], margin: float
) -> tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.bool_]]:
    """By cell and pixel (C, f²): the largest logit, the class of its name, and whether another name
    comes near."""
    shape = len(cells.place), weights.shape[1]
    best, second, values, lower = np.empty((4, *shape), corners.numpy().dtype)
    number = np.min_scalar_type(cells.sizes[0])
    winner, better = np.zeros(shape, number), np.empty(shape, np.bool_)
    ranks = np.empty(shape, number)
    second.fill(-np.inf)
    counts = np.searchsorted(-cells.sizes, -np.arange(cells.sizes[0]))  # cells with so many names
    for rank, count in enumerate(counts.tolist()):
        here, top, low = values[:count], best[:count], lower[:count]
        names = cells.names[cells.starts[:count] + rank]
        product = torch.from_numpy(here if rank else top)
        torch.mm(corners[cells.place[:count], names], weights, out=product)
        if rank:
            np.greater(here, top, out=better[:count])
            np.multiply(better[:count], number.type(rank), out=ranks[:count])
            np.maximum(winner[:count], ranks[:count], out=winner[:count])
            np.maximum(second[:count], np.minimum(here, top, out=low), out=second[:count])
            np.maximum(here, top, out=top)
    owners = owner[cells.names][cells.starts[:, None] + winner]
    return best, owners, second >= np.subtract(best, margin, out=values)


def _look_again(
    found: NDArray[np.int64],
    unclear: NDArray[np.bool_],
    close: NDArray[np.bool_],
    logits: Tensor,
    owner: NDArray[np.int64],
    parts: Sequence[tuple[Span, Span]],
) -> None:
    """Correct the classes of unclear pixels, tile by tile. close: which names (K, h + 1, w + 1)
    come near the largest in a cell."""
    for y, x in parts:
        pixels = y.pixels, x.pixels
        if not unclear[pixels].any():
            continue
        rows, columns = (slice(each.cells.start, each.cells.stop + 2) for each in (y, x))
        near = np.flatnonzero(close[:, rows, columns].any(axis=(1, 2)))
        maps = logits[None, near][..., y.patches, x.patches].split(CHUNK, dim=1)
        exact = first_argmax(
            bilinear(part, (y.size, x.size))[..., y.inner, x.inner] for part in maps
        )
        np.copyto(found[pixels], owner[near][exact[0].numpy()], where=unclear[pixels])


def around(maps: Tensor) -> Tensor:
    """Maps (…, h, w) with their borders repeated: (…, h + 2, w + 2). Beyond the middles of the
    outer patches an upsampled map is as if it went on so."""
    return F.pad(maps, (1, 1, 1, 1), mode="replicate")


def _corners(logits: Tensor) -> Tensor:
    """Of logits (K, h, w) the four corners of each cell: (C, K, 4)."""
    padded = around(logits)
    height, width = (side - 1 for side in padded.shape[1:])
    corners = [padded[:, y : y + height, x : x + width] for y in (0, 1) for x in (0, 1)]
    return torch.stack(corners, dim=-1).flatten(1, 2).transpose(0, 1)


def _weights(factor: int) -> Tensor:
    """What the pixels of a cell have of its four corners: (4, f²)."""
    second = (torch.arange(factor) + 0.5) / factor
    each = torch.stack([1 - second, second])
    return (each[:, None, :, None] * each[None, :, None, :]).reshape(4, -1)


def _laid_out(
    pixels: NDArray[Any], place: NDArray[np.intp], shape: Sequence[int], factor: int
) -> NDArray[Any]:
    """Pixels of cells (C, f²), each with its place in rows and columns of that `shape`, as a
    picture, without what lies beyond its border."""
    cells = np.empty_like(pixels)
    cells[place] = pixels
    rows, columns = shape
    picture = cells.reshape(rows, columns, factor, factor).swapaxes(1, 2)
    half = factor // 2
    return picture.reshape(rows * factor, columns * factor)[half:-half, half:-half]
