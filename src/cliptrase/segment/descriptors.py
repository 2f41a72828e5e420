"""What a region looks like, as one vector: the mean feature of its patches."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.segment.regions import prototypes
from cliptrase.segment.vote import region_means


@dataclass(frozen=True, eq=False)
class Described:
    """The regions of a batch of images. Every pixel is in one of the R regions of its image."""

    regions: Tensor  # (B, H, W) int64, 0 … R − 1
    descriptors: list[Tensor]  # (R, E) of each image, normalised


def described(
    patches: Tensor,
    grid: tuple[int, int],
    clusters: Tensor,
    numbers: NDArray[np.integer],
    regions: Tensor,
) -> Described:
    """Descriptors of `regions` (B, H, W), each the mean of the features of its cluster's patches.

    `patches` (B, N, E) are features, normalised, on a grid of `grid`; `clusters` (B, N) the cluster
    of each, which is the number of its region, −1 for none; `numbers` (B,) how many clusters an
    image has. Pixels of region −1 become one region more, the last, which has no patches of its
    own: its descriptor is the mean of the features at its pixels, bilinearly upsampled.
    """
    counts = numbers.tolist()
    images = np.repeat(np.arange(len(counts)), numbers).tolist()
    which = [cluster for count in counts for cluster in range(count)]
    means = patches.new_zeros(0, patches.shape[-1])
    if images:
        means = prototypes(patches, clusters, images, which)
    outside = regions < 0
    features = patches.transpose(1, 2).unflatten(2, grid)
    others = region_means(features, torch.where(outside, 0, -1))  # (B, 0 or 1, E)
    last = torch.as_tensor(numbers, device=regions.device).view(-1, 1, 1)
    some = outside.flatten(1).any(dim=1).tolist()
    parts = zip(means.split(counts), others, some, strict=True)
    of_images = [torch.cat([own, other[:any_outside]]) for own, other, any_outside in parts]
    return Described(
        torch.where(outside, last, regions), [F.normalize(each, dim=-1) for each in of_images]
    )
