"""Inside each region all pixels take one class: the most frequent one, or of the mean logits.

A vote as config/kinds.py names it takes the classes (B, H, W) int64 that pixels have without a
vote, their regions (B, H, W) int64 with −1 for none, the logits (B, K, h, w) of all names on the
patch grid, and whose names these are. It returns classes (B, H, W).
"""

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.segment import ways
from cliptrase.segment.uncounted import uncounted

AT_ONCE = 8  # regions of each image whose masks exist at once: bounds memory, changes no result


class Names(Protocol):
    """The names that logits are of: the class that each belongs to, and how many classes."""

    owner: Tensor

    @property
    def classes(self) -> int: ...


def hard(winners: Tensor, regions: Tensor, logits: Tensor, names: Names) -> Tensor:
    """The vote `hard`: a region takes the class that most of its pixels have."""
    return hard_vote(winners, regions)


def soft(winners: Tensor, regions: Tensor, logits: Tensor, names: Names) -> Tensor:
    """The vote `soft`: a region takes the class of its largest mean logit."""
    return soft_vote(logits, names.owner, winners, regions)


def hard_vote(classes: Tensor, regions: Tensor) -> Tensor:
    """Classes (B, H, W) int64 after the vote of `regions` (B, H, W); region −1 stays as it is.

    Ties go to the smallest class.
    """
    if ways.one_by_one(classes.device):
        return torch.from_numpy(_hard_vote_on_cpu(classes.numpy(), regions.numpy()))
    count, width = int(regions.max()) + 1, int(classes.max()) + 1
    rows = len(classes) * (count + 1)  # of each image; its region −1 has a row, unused
    first = torch.arange(0, rows, count + 1, device=classes.device)
    row = (regions + (first + 1).view(-1, 1, 1)).flatten()
    cells = (row * width).add_(classes.flatten())
    # bincount looks for the largest first: it would be waited for
    votes = torch.zeros(rows * width, dtype=torch.int32, device=classes.device)
    votes.scatter_add_(0, cells, votes.new_ones(()).expand(len(cells)))
    winners = votes.view(rows, width).argmax(dim=-1)
    return torch.where(regions >= 0, winners.index_select(0, row).view_as(classes), classes)


def _hard_vote_on_cpu(classes: NDArray[np.int64], regions: NDArray[np.int64]) -> NDArray[np.int64]:
    """`hard_vote` by NumPy, which takes half the time of torch there."""
    count, width = regions.max() + 2, classes.max() + 1
    first = np.arange(0, len(classes) * count, count).reshape(-1, 1, 1)
    row = regions + (first + 1)
    cells = row * width
    cells += classes
    votes = np.bincount(cells.ravel(), minlength=len(classes) * count * width)
    winners = votes.reshape(-1, width).argmax(axis=1)[row]
    return winners if regions.min() >= 0 else np.where(regions >= 0, winners, classes)


def soft_vote(logits: Tensor, owner: Tensor, classes: Tensor, regions: Tensor) -> Tensor:
    """Classes (B, H, W) int64: in each region the owner of the name with the largest mean logit.

    `logits` (B, K, h, w) of names, `owner` (K,) their classes; pixels of region −1 keep `classes`.
    The first name wins ties.
    """
    return vote_by_means(region_means(logits, regions), owner, classes, regions)


def vote_by_means(means: Tensor, owner: Tensor, classes: Tensor, regions: Tensor) -> Tensor:
    """The same of the mean logits (B, R, K) of the regions."""
    if not means.shape[1]:
        return classes
    winners = owner[means.argmax(dim=2)]
    voted = winners.gather(1, regions.clamp_min(0).flatten(1)).view_as(classes)
    return torch.where(regions >= 0, voted, classes)


def region_means(logits: Tensor, regions: Tensor) -> Tensor:
    """Mean (B, R, K) over each region's pixels of logits (B, K, h, w), bilinearly upsampled to
    `regions` (B, H, W) int64 with values −1 … R − 1; 0 for a region without a pixel.

    Upsampling is linear: the mean is a weighting of the patches, by the adjoint of upsampling a
    region's mask, and no upsampled logit is ever made.
    """
    across = [
        upsampling(logits.device, small, large)
        for small, large in zip(logits.shape[-2:], regions.shape[-2:], strict=True)
    ]
    patches = logits.flatten(2).double().transpose(1, 2)
    means = [patches.new_zeros((len(logits), 0, logits.shape[1]))]
    for numbers in torch.arange(int(regions.max()) + 1, device=regions.device).split(AT_ONCE):
        masks = (regions.unsqueeze(1) == numbers.view(-1, 1, 1)).double()
        weights = _adjoint(masks, *across)
        pixels = masks.sum(dim=(2, 3)).clamp_min(1)
        means.append(weights.flatten(2) @ patches / pixels.unsqueeze(2))
    return torch.cat(means, dim=1).to(logits.dtype)


@uncounted
def _adjoint(masks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weights (B, R, h, w) of patches, of masks (B, R, H, W): the adjoint of `upsampling` a side.

    torch's own takes four times as long on a CPU, and on a GPU adds up in any order.
    """
    return rows.T @ (masks @ columns)


@lru_cache(maxsize=64)
def upsampling(device: torch.device, small: int, large: int) -> Tensor:
    """The matrix (large, small) float64 that upsamples a side bilinearly."""
    unit = torch.eye(small, dtype=torch.float64)[None, None]
    matrix = F.interpolate(unit, size=(large, small), mode="bilinear", align_corners=False)[0, 0]
    return matrix.to(device)
