"""Inside each region all pixels take one class: the most frequent one, or of the mean logits."""

from __future__ import annotations

import torch
from torch import Tensor


def hard_vote(classes: Tensor, regions: Tensor) -> Tensor:
    """Classes (B, H, W) int64 after the vote of `regions` (B, H, W); region −1 stays as it is.

    Ties go to the smallest class.
    """
    batch = len(classes)
    width = int(classes.max()) + 1
    count = int(regions.max()) + 2  # region −1 has a row of its own, unused
    image = torch.arange(batch, device=classes.device).view(-1, 1, 1)
    row = image * count + regions + 1
    votes = torch.bincount((row * width + classes).flatten(), minlength=batch * count * width)
    winners = votes.view(batch * count, width).argmax(dim=-1)
    voted = winners.index_select(0, row.flatten()).view_as(classes)
    return torch.where(regions >= 0, voted, classes)


def region_means(logits: Tensor, regions: Tensor) -> Tensor:
    """Mean (R, K) over each region's pixels of one image's logits (K, h, w), bilinearly upsampled
    to `regions` (H, W) int64 with values −1 … R − 1; 0 for a region without a pixel.

    Upsampling is linear: the mean is a weighting of the patches, by the adjoint of upsampling a
    region's mask, and no upsampled logit is ever made.
    """
    height, width = regions.shape
    count = int(regions.max()) + 1
    numbers = torch.arange(count, device=regions.device).view(-1, 1, 1)
    masks = (regions == numbers).double().unsqueeze(1)
    size = [count, 1, *logits.shape[-2:]]
    weights = torch.ops.aten.upsample_bilinear2d_backward(masks, [height, width], size, False)
    pixels = masks.sum(dim=(1, 2, 3)).clamp_min(1)
    sums = weights.flatten(1) @ logits.flatten(1).double().T
    return (sums / pixels.unsqueeze(1)).to(logits.dtype)


def soft_vote(logits: Tensor, owner: Tensor, classes: Tensor, regions: Tensor) -> Tensor:
    """Classes (B, H, W) int64: in each region the owner of the name with the largest mean logit.

    `logits` (B, K, h, w) of names, `owner` (K,) their classes; pixels of region −1 keep `classes`.
    The first name wins ties.
    """
    voted = classes.clone()
    for image, own in enumerate(regions):
        if int(own.max()) >= 0:
            winners = owner[region_means(logits[image], own).argmax(dim=1)]
            voted[image] = torch.where(own >= 0, winners[own.clamp_min(0)], classes[image])
    return voted
