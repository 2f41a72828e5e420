"""Upsampling: every map by itself, and parts of one with the bits that the whole would have."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.segment import ways
from cliptrase.segment.uncounted import uncounted

SIDE = 4  # cells: few classes are left in so small a tile, and what is beside it costs little
SMALL = 64  # pixels: torch has another kernel, with other rounding, for H + W up to 128
FEW = 64  # patches a side that a CPU upsamples sooner by products of matrices
EDGES = (8, 14, 14), (224, 224)  # a shape and size at whose edges kernels for AVX2 show themselves
TRIALS = 3  # of whether these have the same values

Size = tuple[int, int]  # height, width


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


def tiles(grid: Size, out_size: Size) -> list[tuple[Span, Span]]:
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


def bilinear(maps: Tensor, size: Size) -> Tensor:
    """Maps (B, K, h, w) upsampled to (B, K, *size), each by itself; the maps themselves, no copy,
    where they have that size.

    As channels of one tensor torch's CPU kernels round a map by how many lie beside it (three have
    a kernel of their own): equal maps would not tie.
    """
    if maps.shape[-2:] == size:
        return maps
    alone = maps.reshape(-1, 1, *maps.shape[-2:])
    return _interpolate(alone, size).view(*maps.shape[:2], *size)


def nearest(maps: Tensor, size: Size) -> Tensor:
    """Maps (…, h, w) of whole numbers as (…, *size): each value that under a pixel's middle.

    In whole numbers, so that no rounding moves a border, whatever the device.
    """
    for dim, pixels in zip((-2, -1), size, strict=True):
        there = (2 * torch.arange(pixels, device=maps.device) + 1) * maps.shape[dim] // (2 * pixels)
        maps = maps.index_select(dim, there)
    return maps


def _interpolate(maps: Tensor, size: Size) -> Tensor:
    """Maps (B, 1, h, w) as (B, 1, *size)."""
    sides = list(zip(maps.shape[-2:], size, strict=True))
    small = sum(size) > 2 * SMALL and all(1 < few <= min(FEW, many) for few, many in sides)
    plain = maps.dtype == torch.float32 and ways.one_by_one(maps.device)
    # a product with an infinite value would be NaN all over the map
    if small and plain and bool(maps.isfinite().all()):
        shape = len(maps), maps.shape[-2], maps.shape[-1]
        if (weights := _exact_weights(shape, size, torch.get_num_threads())) is not None:
            return _products(maps[:, 0], *weights)[:, None]
    return _by_torch(maps, size)


def _by_torch(maps: Tensor, size: Size) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


@uncounted
def _products(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps (B, h, w) upsampled by the `_weights` of both sides, in a third of torch's time.

    Sums run from the last patch to the first, as in torch's kernel.
    """
    reverse = F.pad(maps.contiguous(), (0, 1, 0, 1), mode="replicate").flip(-2, -1)
    return rows @ (reverse @ columns.T)


@lru_cache(maxsize=256)
def _exact_weights(
    shape: tuple[int, int, int], size: Size, threads: int
) -> tuple[Tensor, Tensor] | None:
    """The weights of both sides for B maps of h × w values, or None where products with them have
    not the values of torch's kernel, to the last bit.

    They have where each sum is a chain of fused multiplications and additions. Whether it is
    depends on the shape, the machine's library of products and its threads: trials show it. Kernels
    for AVX2 add otherwise at some edges, which trials may miss: none is made if `EDGES` differs.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    if (shape, size) != EDGES and _exact_weights(*EDGES, threads) is None:
        return None
    rows, columns = (_weights(*side) for side in zip(shape[1:], size, strict=True))
    generator = torch.Generator("cpu").manual_seed(0)
    for _ in range(TRIALS):
        trial = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        expected = _by_torch(trial[:, None], size)[:, 0]
        if not torch.equal(_products(trial, rows, columns), expected):
            return None
    return rows, columns


def _weights(small: int, large: int) -> Tensor:
    """The weights (large, small + 1) that pixels of a side have of its patches, which are in
    reverse, the last of them twice: as torch computes them, in float32."""
    pixels, scale = np.arange(large) + 0.5, np.float64(np.float32(small) / np.float32(large))
    place = np.maximum(scale * pixels - 0.5, 0).astype(np.float32)
    first = np.minimum(place.astype(np.int64), small - 1)
    second = (place - first).astype(np.float32)
    weights = np.zeros((large, small + 1), np.float32)
    np.put_along_axis(weights, first[:, None], 1 - second[:, None], axis=1)
    np.put_along_axis(weights, first[:, None] + 1, second[:, None], axis=1)
    # a copy into memory aligned as torch's own: products then sum in one order
    return torch.tensor(weights[:, ::-1].copy(), device="cpu")


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
