"""Exact median filter by minima and maxima of whole maps: no sort per pixel, any device.

Columns of the window are sorted once and shared by the windows beside each other; sorted columns
are merged to pairs, pairs to fours, and the median is selected from two sorted lists. Values that
cannot be the median any more are dropped on the way. Adams 2021, "Fast median filters using
separable sorting networks", is the same idea on tiles.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliptrase.segment import ways

Map = Any  # (…, pixels): a Tensor, or on a CPU an ndarray, whose small operations cost a third
AT_ONCE = 16_384  # pixels, on a CPU: the sorted lists of so many stay in the cache


def median_filter(maps: Tensor, window: int) -> Tensor:
    """Median of every window × window neighbourhood of `maps` (K, H, W) float, window odd.

    The border is mirrored with its edge repeated: scipy.ndimage's mode="reflect", equal to it.
    """
    if window == 1:
        return maps
    rows, columns = (_mirrored(maps.device, side, window) for side in maps.shape[1:])
    padded = maps[:, rows[:, None], columns].flatten(1)
    if ways.one_by_one(maps.device):
        parts = padded.split(max(1, AT_ONCE // padded.shape[1]))
        filtered = [_median(part.numpy(), len(columns), window) for part in parts]
        medians = torch.from_numpy(np.concatenate(filtered))
    else:
        medians = _median(padded, len(columns), window)
    return medians.unfold(-1, maps.shape[-1], len(columns))


def _median(padded: Map, side: int, window: int) -> Map:
    """The median of the window that begins at each pixel of `padded`, rows of `side` pixels one
    after the other. Windows that run over the end of a row hold nothing of use."""
    height = padded.shape[-1] // side - window + 1
    starts = height * side - window + 1
    median = window * window // 2
    rows = [padded[..., row * side : (row + height) * side] for row in range(window)]
    lists = {1: _run(_sorting(window), rows)}  # sorted values of 1, 2, 4 … neighbouring columns
    dropped = {1: 0}  # how many of the smallest a list has lost
    size = 1
    while 2 * size <= window:
        left = [values[..., :-size] for values in lists[size]]
        right = [values[..., size:] for values in lists[size]]
        lists[2 * size], dropped[2 * size] = _merge(
            left, right, 2 * dropped[size], 2 * size * window, median
        )
        size *= 2
    # A window is its largest power of two columns and, right of them, the rest in powers of two.
    rest: list[Map] = []
    lost, start, part = 0, size, size // 2
    while part:
        if window & part:
            views = [values[..., start : start + starts] for values in lists[part]]
            start += part
            rest, lost = _merge(rest, views, lost + dropped[part], (start - size) * window, median)
        part //= 2
    most = [values[..., :starts] for values in lists[size]]
    return _select(most, rest, median - dropped[size] - lost)


def _merge(
    left: list[Map], right: list[Map], dropped: int, total: int, median: int
) -> tuple[list[Map], int]:
    """Two sorted lists as one, of `total` values before any were dropped: without those that have
    more than `median` values on one side, and how many small ones are missing now."""
    lowest = max(total - 1 - median - dropped, 0)
    highest = min(median - dropped, len(left) + len(right) - 1)
    program = _merging(len(left), len(right), lowest, highest)
    return _run(program, left + right), dropped + lowest


def _select(a: list[Map], b: list[Map], rank: int) -> Map:
    """The value of `rank` (from 0) in the union of two sorted lists: the smallest, over all ways to
    take rank + 1 values from their fronts, of the largest taken."""
    low, high = _pair(a[0])
    best = None
    for taken in range(max(0, rank + 1 - len(b)), min(len(a), rank + 1) + 1):
        last = ([a[taken - 1]] if taken else []) + ([b[rank - taken]] if taken <= rank else [])
        largest = high(*last) if len(last) == 2 else last[0]
        best = largest if best is None else low(best, largest)
    return best


# A network as a straight program on a list that begins with the inputs: (is_max, x, y, place) puts
# the minimum or maximum of values x and y at a place; then the places of the outputs, and how many
# there are. A place is taken again once its value is not needed: few are in memory at a time.
Step = tuple[bool, int, int, int]
Program = tuple[tuple[Step, ...], tuple[int, ...], int]
Exchange = tuple[bool, int, int]  # a step that appends to the list


def _run(program: Program, inputs: list[Map]) -> list[Map]:
    steps, outputs, size = program
    choose = _pair(inputs[0])
    values = [*inputs, *[None] * (size - len(inputs))]
    for is_max, x, y, place in steps:
        values[place] = choose[is_max](values[x], values[y])
    return [values[place] for place in outputs]


def _pair(values: Map) -> tuple[Any, Any]:
    numpy = isinstance(values, np.ndarray)
    return (np.minimum, np.maximum) if numpy else (torch.minimum, torch.maximum)


@lru_cache
def _sorting(size: int) -> Program:
    """Sort `size` values (Batcher's merge sort)."""
    steps: list[Exchange] = []

    def sort(places: list[int]) -> list[int]:
        half = len(places) // 2
        if not half:
            return places
        return _odd_even(sort(places[:half]), sort(places[half:]), steps, size)

    return _pruned(steps, sort(list(range(size))), size)


@lru_cache
def _merging(left: int, right: int, lowest: int, highest: int) -> Program:
    """Merge two sorted lists and keep the ranks lowest … highest."""
    steps: list[Exchange] = []
    size = left + right
    merged = _odd_even(list(range(left)), list(range(left, size)), steps, size)
    return _pruned(steps, merged[lowest : highest + 1], size)


def _odd_even(a: list[int], b: list[int], steps: list[Exchange], inputs: int) -> list[int]:
    """Batcher's odd-even merge of two sorted lists of places, of any lengths (Knuth, 5.3.4)."""
    if not a or not b:
        return a + b

    def exchange(x: int, y: int) -> list[int]:
        steps.extend([(False, x, y), (True, x, y)])
        return [inputs + len(steps) - 2, inputs + len(steps) - 1]

    if len(a) == len(b) == 1:
        return exchange(a[0], b[0])
    odd = _odd_even(a[::2], b[::2], steps, inputs)
    even = _odd_even(a[1::2], b[1::2], steps, inputs)
    merged = odd[:1]
    for x, y in zip(even, odd[1:], strict=False):
        merged += exchange(x, y)
    paired = min(len(even), len(odd) - 1)
    return merged + even[paired:] + odd[1 + paired :]


def _pruned(steps: list[Exchange], outputs: list[int], inputs: int) -> Program:
    """Only the steps that some output needs, each with a place for its result."""
    needed = set(outputs)
    kept: list[tuple[int, set[int]]] = []  # a step, and the values that none after it needs
    for step in reversed(range(len(steps))):
        if inputs + step in needed:
            operands = {*steps[step][1:]}
            kept.append((step, operands - needed))
            needed |= operands
    places, free, size = {value: value for value in range(inputs)}, list[int](), inputs
    program: list[Step] = []
    for step, last_used in reversed(kept):
        is_max, x, y = steps[step]
        free += sorted(places[value] for value in last_used)
        if not free:
            free, size = [size], size + 1
        places[inputs + step] = free.pop()
        program.append((is_max, places[x], places[y], places[inputs + step]))
    return tuple(program), tuple(places[value] for value in outputs), size


@lru_cache(maxsize=64)
def _mirrored(device: torch.device, side: int, window: int) -> Tensor:
    """Indices of a side extended by window // 2 at both ends, edges repeated."""
    indices = np.pad(np.arange(side), window // 2, mode="symmetric")
    return torch.from_numpy(indices).to(device)
