"""Region of every pixel: prototypes of the clusters, upsampled, median-filtered, argmax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

from cliptrase.segment.argmax import first_argmax
from cliptrase.segment.median import median_filter


def prototype(rows: Tensor, members: Tensor) -> Tensor:
    """Mean (N,) of the `members` (N,) bool of one image's correlation rows (N, N)."""
    return rows[members].mean(dim=0)


def smooth_maps(prototypes: Tensor, grid: tuple[int, int], upsample: int, median: int) -> Tensor:
    """Prototypes (K, N) as maps (K, h·upsample, w·upsample): bilinear, then median-filtered."""
    maps = prototypes.unflatten(1, grid).unsqueeze(1)
    size = (grid[0] * upsample, grid[1] * upsample)
    if upsample != 1:
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return median_filter(maps.squeeze(1), median)


def region_map(maps: Sequence[Tensor], out_size: tuple[int, int]) -> Tensor:
    """Region (H, W) int64 of the largest of one image's smooth maps (K × (h', w')), bilinearly
    upsampled to `out_size`; the lowest cluster first on ties."""

    def upsampled() -> Iterator[Tensor]:
        for one in maps:
            yield F.interpolate(
                one[None, None], size=out_size, mode="bilinear", align_corners=False
            )

    return first_argmax(upsampled())[0]
