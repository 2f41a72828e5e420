"""Upsampling: every map by itself, and parts of one with the bits that the whole would have."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 4  # cells: few classes are left in so small a tile, and what is beside it costs little
SMALL = 64  # pixels: torch has another kernel, with other rounding, for H + W up to 128


class Span(NamedTuple):
    """A tile of upsampled maps along one axis. A cell lies between two neighbouring patches."""

    cells: slice
    patches: slice  # the corners of the cells, and more where these alone would be SMALL
    pixels: slice  # of the whole, in these cells or at its border beside them
    inner: slice  # the same of the patches upsampled alone
    size: int  # pixels of the patches upsampled alone

    @property
    def factor(self) -> int:
        """Pixels a patch."""
        return self.size // (self.patches.stop - self.patches.start)


def tiles(grid: tuple[int, int], out_size: tuple[int, int]) -> list[tuple[Span, Span]]:
    """Tiles of about SIDE × SIDE cells that cover an upsampling from `grid` (h, w) to `out_size`.

    A tile is a span of rows and one of columns. There is none where a pixel's bits would depend on
    its tile: a patch has no power of two pixels (weights are rounded), or the whole is SMALL.
    """
    factors = [pixels // patches for pixels, patches in zip(out_size, grid, strict=True)]
    for factor, patches, pixels in zip(factors, grid, out_size, strict=True):
        if factor.bit_count() != 1 or factor * patches != pixels or pixels <= SMALL:
            return []
    rows, columns = (_spans(*side) for side in zip(grid, factors, strict=True))
    return list(product(rows, columns))


def is_even(parts: list[tuple[Span, Span]]) -> bool:
    """Whether there are tiles, and a patch has an even number of pixels, the same in both
    directions."""
    factors = {side.factor for part in parts for side in part}
    return len(factors) == 1 and factors.pop() % 2 == 0


def bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, K, h, w) upsampled to (B, K, *size), each by itself.

    As channels of one tensor torch's CPU kernels round a map by how many lie beside it (three have
    a kernel of their own): equal maps would not tie.
    """
    alone = maps.reshape(-1, 1, *maps.shape[-2:])
    return _interpolate(alone, size).view(*maps.shape[:2], *size)


def nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (…, h, w) of whole numbers as (…, *size): each value that under a pixel's middle.

    In whole numbers, so that no rounding moves a border, whatever the device.
    """
    for dim, pixels in zip((-2, -1), size, strict=True):
        there = (2 * torch.arange(pixels, device=maps.device) + 1) * maps.shape[dim] // (2 * pixels)
        maps = maps.index_select(dim, there)
    return maps


def _interpolate(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _spans(patches: int, factor: int) -> Iterator[Span]:
    cells = patches - 1
    parts = -(-cells // SIDE)
    least = SMALL // factor + 1  # patches that are not SMALL
    for part in range(parts):
        first, last = part * cells // parts, (part + 1) * cells // parts
        begin = first * factor + factor // 2 if first else 0
        end = last * factor + factor // 2 if last < cells else patches * factor
        left = max(0, min(first, patches - least))
        right = max(last + 1, left + least)
        yield Span(
            slice(first, last),
            slice(left, right),
            slice(begin, end),
            slice(begin - left * factor, end - left * factor),
            (right - left) * factor,
        )
