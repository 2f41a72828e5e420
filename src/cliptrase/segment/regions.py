"""Region of every pixel: prototypes of the clusters, upsampled, median-filtered, argmax."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.model.load import uploaded
from cliptrase.segment import ways
from cliptrase.segment.argmax import first_argmax, largest_map
from cliptrase.segment.median import median_filter
from cliptrase.segment.tiles import bilinear

AT_ONCE = 8  # clusters of each image compared at once: bounds memory, changes no result


def prototype(rows: Tensor, members: Tensor) -> Tensor:
    """Mean (N,) of the `members` (N,) bool of one image's correlation rows (N, N)."""
    return rows[members].mean(dim=0)


def prototypes(
    rows: Tensor, labels: Tensor, images: Sequence[int], clusters: Sequence[int]
) -> Tensor:
    """Prototypes (S, N) of some clusters of some images, of correlation rows (B, N, N) and cluster
    labels (B, N).

    On a CPU float32 sums, cluster by cluster, as the released code's. A GPU makes all at once as
    one matrix product, in float64: its order of sums is then of no consequence.
    """
    if ways.one_by_one(rows.device):
        some = zip(images, clusters, strict=True)
        return torch.stack([prototype(rows[i], labels[i] == cluster) for i, cluster in some])
    numbers = torch.arange(max(clusters) + 1, device=rows.device).view(-1, 1)
    members = (labels.unsqueeze(1) == numbers).double()
    sums = members @ rows.double()
    means = (sums / members.sum(dim=2, keepdim=True).clamp_min(1)).to(rows.dtype)
    image, cluster = uploaded(np.array([images, clusters]), rows.device)
    return means[image, cluster]


def smooth_maps(prototypes: Tensor, grid: tuple[int, int], upsample: int, median: int) -> Tensor:
    """Prototypes (K, N) as maps (K, h·upsample, w·upsample): bilinear, then median-filtered."""
    maps = prototypes.unflatten(1, grid)
    if upsample != 1:
        maps = bilinear(maps[None], (grid[0] * upsample, grid[1] * upsample))[0]
    return median_filter(maps, median)


def region_maps(maps: Tensor, places: NDArray[np.int64]) -> Tensor:
    """Region (B, H, W) int64 of the largest of each image's `maps` (S, H, W); the lowest cluster
    first on ties, −1 in an image without any.

    `places` (B, K): which of the maps are an image's, in the order of its clusters, and −1 where it
    has fewer than K.
    """
    if ways.one_by_one(maps.device):
        return torch.from_numpy(_region_maps_on_cpu(maps.numpy(), places))
    at = uploaded(places, maps.device)
    ragged = bool((places < 0).any())

    def chosen() -> Iterator[Tensor]:
        for some in at.split(AT_ONCE, dim=1):
            fine = maps.index_select(0, some.flatten().clamp_min(0)).unflatten(0, some.shape)
            if ragged:
                fine.masked_fill_((some < 0)[:, :, None, None], -torch.inf)
            yield fine

    regions = first_argmax(chosen())
    return torch.where((at[:, 0] >= 0).view(-1, 1, 1), regions, -1) if ragged else regions


def _region_maps_on_cpu(maps: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """`region_maps`, image by image, without a copy of any map."""
    regions = np.full((len(places), *maps.shape[1:]), -1)
    for region, of_image in zip(regions, places, strict=True):
        own = of_image[of_image >= 0]
        if len(own):
            region[:] = largest_map(maps[place] for place in own)
    return regions
