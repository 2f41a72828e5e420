"""Class of every pixel: cosine logits on the patch grid, upsampled, argmax over the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.segment.argmax import first_argmax

CHUNK = 8  # classes upsampled at once: bounds memory, changes no result


def patch_logits(
    patches: Tensor,
    text: Tensor,
    grid: tuple[int, int],
    scale: float,
    cls: Tensor | None = None,
) -> Tensor:
    """Logits (B, K, h, w) of normalised patch features (B, N, E) and text features (K, E).

    With `cls` (B, E), normalised: times scale·cos(cls, t_c), a negative factor as it is (what the
    released code does on VOC20).
    """
    logits = scale * (patches @ text.T).transpose(1, 2).unflatten(2, grid)
    if cls is not None:
        logits = logits * (scale * (cls @ text.T))[:, :, None, None]
    return logits


def classify(logits: Tensor, out_size: tuple[int, int], owner: Tensor) -> Tensor:
    """Class (B, H, W) int64 of the largest logit, bilinearly upsampled from (B, K, h, w).

    `owner` (K,) int64: the class of each name, so that a class with several names has the largest
    of theirs, and all background words are one class. The first name wins ties.
    """
    kept = contenders(logits)

    def upsampled() -> Iterator[Tensor]:
        for part in logits[:, kept].split(CHUNK, dim=1):
            yield F.interpolate(part, size=out_size, mode="bilinear", align_corners=False)

    return owner[kept[first_argmax(upsampled())]]


def contenders(logits: Tensor) -> Tensor:
    """Classes, in order, that can be the largest at some pixel between the patches of (B, K, h, w).

    Between four patches an upsampled logit lies between its four corners. A class whose largest
    corner is, in every cell, below the best smallest corner of another never wins; float rounding
    has a margin.
    """
    largest = _over_corners(logits, torch.maximum)
    smallest = _over_corners(logits, torch.minimum)
    bound = smallest.amax(dim=1, keepdim=True) - 1e-5 * logits.abs().max()
    return (largest >= bound).any(dim=3).any(dim=2).any(dim=0).nonzero().squeeze(1)


def _over_corners(maps: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest or smallest of each 2 × 2 neighbourhood; a side of one patch stays."""
    for dim in (2, 3):
        size = maps.shape[dim]
        if size > 1:
            maps = choose(maps.narrow(dim, 0, size - 1), maps.narrow(dim, 1, size - 1))
    return maps
