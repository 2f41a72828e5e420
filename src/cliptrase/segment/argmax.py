"""Argmax over many maps that are never in memory together: the first of the largest wins."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.segment import ways


def first_argmax(chunks: Iterable[Tensor]) -> Tensor:
    """Index (B, H, W) int64 of the largest of all maps in `chunks`, each (B, k, H, W), in order.

    Equal to torch.cat(chunks, 1).argmax(1), ties included. On a CPU a running maximum by NumPy,
    which there takes a tenth of the time of torch's reduction over a dimension.
    """
    best: Tensor | None = None
    start = 0
    for chunk in chunks:
        if best is None:
            best = torch.full_like(chunk[:, 0], -torch.inf)
            winner = torch.zeros_like(best, dtype=torch.int64)
        update = _update_on_cpu if ways.one_by_one(chunk.device) else _update
        update(best, winner, chunk, start)
        start += chunk.shape[1]
    if best is None:
        raise ValueError("no maps to choose from")
    return winner


def clear_argmax(
    values: NDArray[np.float32], margin: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.intp]]:
    """Index (…) of the largest of `values` (…, K), where the second largest is not within `margin`
    (…) bool, and the indices, in order, of all within it anywhere else.

    `values` are overwritten.
    """
    winner = values.argmax(axis=-1)
    place = winner[..., None]
    best = np.take_along_axis(values, place, axis=-1)
    np.put_along_axis(values, place, -np.inf, axis=-1)
    bound = best[..., 0] - margin
    clear = values.max(axis=-1) < bound
    close = (values[~clear] >= bound[~clear, None]).any(axis=0)
    close[winner[~clear]] = True
    return winner, clear, close.nonzero()[0]


def _update(best: Tensor, winner: Tensor, chunk: Tensor, start: int) -> None:
    value, index = chunk.max(dim=1)
    torch.where(value > best, index + start, winner, out=winner)
    torch.maximum(best, value, out=best)


def _update_on_cpu(best: Tensor, winner: Tensor, chunk: Tensor, start: int) -> None:
    highest, place, maps = best.numpy(), winner.numpy(), chunk.numpy()
    better = np.empty(highest.shape, dtype=bool)
    for index in range(maps.shape[1]):
        np.greater(maps[:, index], highest, out=better)
        np.copyto(place, start + index, where=better)
        np.maximum(maps[:, index], highest, out=highest)
