"""Inside each region every pixel takes the region's most frequent class."""

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
