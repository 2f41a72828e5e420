"""Inside each region all pixels take one class: the most frequent one, or of the mean logits."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cliptrase.segment import ways

AT_ONCE = 8  # regions of each image whose masks a GPU makes at once: bounds memory


def hard_vote(classes: Tensor, regions: Tensor, most: tuple[int, int] | None = None) -> Tensor:
    """Classes (B, H, W) int64 after the vote of `regions` (B, H, W); region −1 stays as it is.

    Ties go to the smallest class. most: how many regions and classes there can be at most, so that
    a GPU need not be asked; None: what there is.
    """
    batch = len(classes)
    if most is None or ways.one_by_one(classes.device):
        most = int(regions.max()) + 1, int(classes.max()) + 1
    count, width = most[0] + 1, most[1]  # region −1 has a row of its own, unused
    image = torch.arange(batch, device=classes.device).view(-1, 1, 1)
    row = image * count + regions + 1
    votes = _numbers((row * width + classes).flatten(), batch * count * width)
    winners = votes.view(batch * count, width).argmax(dim=-1)
    voted = winners.index_select(0, row.flatten()).view_as(classes)
    return torch.where(regions >= 0, voted, classes)


def _numbers(cells: Tensor, size: int) -> Tensor:
    """How often each of 0 … size − 1 is among `cells` (n,) int64."""
    if ways.one_by_one(cells.device):
        return torch.bincount(cells, minlength=size)
    # a GPU's bincount looks for the largest first, and is waited for
    ones = torch.ones_like(cells, dtype=torch.int32)
    return torch.zeros(size, dtype=torch.int32, device=cells.device).scatter_add_(0, cells, ones)


def region_means(logits: Tensor, regions: Tensor) -> Tensor:
    """Mean (R, K) over each region's pixels of one image's logits (K, h, w), bilinearly upsampled
    to `regions` (H, W) int64 with values −1 … R − 1; 0 for a region without a pixel.

    Upsampling is linear: the mean is a weighting of the patches, by the adjoint of upsampling a
    region's mask, and no upsampled logit is ever made.
    """
    height, width = regions.shape
    count = int(regions.max()) + 1
    if not count:
        return logits.new_zeros((0, len(logits)))
    numbers = torch.arange(count, device=regions.device).view(-1, 1, 1)
    masks = (regions == numbers).double().unsqueeze(1)
    size = [count, 1, *logits.shape[-2:]]
    weights = torch.ops.aten.upsample_bilinear2d_backward(masks, [height, width], size, False)
    pixels = masks.sum(dim=(1, 2, 3)).clamp_min(1)
    sums = weights.flatten(1) @ logits.flatten(1).double().T
    return (sums / pixels.unsqueeze(1)).to(logits.dtype)


def means_of_all(logits: Tensor, regions: Tensor) -> Tensor:
    """`region_means` (B, R, K) of a batch, logits (B, K, h, w) and regions (B, H, W), with R of the
    image that has most; at least one of them has a region.

    All at once with the adjoint as two matrix products: that of CUDA adds up in any order.
    """
    if ways.one_by_one(logits.device):
        some = [region_means(*image) for image in zip(logits, regions, strict=True)]
        return pad_sequence(some, batch_first=True)
    across = [
        _upsampling(logits.device, small, large)
        for small, large in zip(logits.shape[-2:], regions.shape[-2:], strict=True)
    ]
    patches = logits.flatten(2).double().transpose(1, 2)
    means = []
    for numbers in torch.arange(int(regions.max()) + 1, device=regions.device).split(AT_ONCE):
        masks = (regions.unsqueeze(1) == numbers.view(-1, 1, 1)).double()
        weights = across[0].T @ (masks @ across[1])
        pixels = masks.sum(dim=(2, 3)).clamp_min(1)
        means.append(weights.flatten(2) @ patches / pixels.unsqueeze(2))
    return torch.cat(means, dim=1).to(logits.dtype)


@lru_cache(maxsize=64)
def _upsampling(device: torch.device, small: int, large: int) -> Tensor:
    """The matrix (large, small) float64 that upsamples a side bilinearly."""
    unit = torch.eye(small, dtype=torch.float64)[None, None]
    matrix = F.interpolate(unit, size=(large, small), mode="bilinear", align_corners=False)[0, 0]
    return matrix.to(device)


def soft_vote(logits: Tensor, owner: Tensor, classes: Tensor, regions: Tensor) -> Tensor:
    """Classes (B, H, W) int64: in each region the owner of the name with the largest mean logit.

    `logits` (B, K, h, w) of names, `owner` (K,) their classes; pixels of region −1 keep `classes`.
    The first name wins ties.
    """
    if int(regions.max()) < 0:
        return classes
    winners = owner[means_of_all(logits, regions).argmax(dim=2)]
    voted = winners.gather(1, regions.clamp_min(0).flatten(1)).view_as(classes)
    return torch.where(regions >= 0, voted, classes)


class Names(Protocol):
    """The names that logits are of: the class that each belongs to, and how many classes."""

    owner: Tensor

    @property
    def classes(self) -> int: ...


def hard(winners: Tensor, regions: Tensor, logits: Tensor, names: Names) -> Tensor:
    """The vote `hard`: a region takes the class that most of its pixels have."""
    patches = logits.shape[-2] * logits.shape[-1]
    return hard_vote(winners, regions, most=(patches, names.classes))


def soft(winners: Tensor, regions: Tensor, logits: Tensor, names: Names) -> Tensor:
    """The vote `soft`: a region takes the class of its largest mean logit."""
    return soft_vote(logits, names.owner, winners, regions)
