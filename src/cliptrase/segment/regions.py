"""Region of every pixel: prototypes of the clusters, upsampled, median-filtered, argmax."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def median_filter(maps: Tensor, window: int) -> Tensor:
    """Median of every window × window neighbourhood of `maps` (K, H, W), the border mirrored with
    its edge repeated (scipy.ndimage's mode="reflect"), exactly."""
    if window == 1:
        return maps
    reach = window // 2
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), reach, mode="symmetric")).to(maps.device)
        for side in maps.shape[1:]
    )
    padded = maps[:, rows][:, :, columns]
    windows = padded.unfold(1, window, 1).unfold(2, window, 1).flatten(3)
    return windows.median(dim=-1).values


def prototype_maps(
    prototypes: Tensor, grid: tuple[int, int], upsample: int, median: int, out_size: tuple[int, int]
) -> Tensor:
    """Maps (K, H, W) of `prototypes` (K, N): bilinear × upsample, median, bilinear to `out_size`."""
    maps = prototypes.unflatten(1, grid).unsqueeze(0)
    size = (grid[0] * upsample, grid[1] * upsample)
    maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    maps = median_filter(maps[0], median).unsqueeze(0)
    return F.interpolate(maps, size=out_size, mode="bilinear", align_corners=False)[0]


def region_map(maps: Tensor) -> Tensor:
    """Region (H, W) int64 of the largest of `maps` (K, H, W), the lowest cluster first on ties."""
    return maps.argmax(dim=0)
