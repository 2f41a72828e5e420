"""Class of every pixel: cosine logits on the patch grid, upsampled, argmax over the classes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cliptrase.segment import ways
from cliptrase.segment.argmax import first_argmax
from cliptrase.segment.cells import CHUNK, classes_of
from cliptrase.segment.tiles import Span, bilinear, is_even, tiles

FEW = 4  # names that are sooner upsampled map by map than cell by cell; changes no result
MANY = 128  # names of which it pays to drop some before cells are looked at; changes no result
# Of the largest logit M, no less than rounding can move the difference of two names by, in units of
# 2^-24 M. torch's value of a pixel is at most 4 units from the exact one, that of a cell 4 + 2 (its
# corners are rounded twice): two names in both ways 20, less the margin 1, and what is of second
# order. The weights are exact.
ROUNDING = 24 * 2**-24
TINY = torch.finfo(torch.float32).tiny  # below it a unit is no smaller


def patch_logits(
    patches: Tensor, text: Tensor, grid: tuple[int, int], scale: float, cls: Tensor | None = None
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
    parts = tiles((logits.shape[-2], logits.shape[-1]), out_size)
    if ways.one_by_one(logits.device) and is_even(parts):
        return torch.stack([_cell_by_cell(each, out_size, owner, parts) for each in logits])
    kept = contenders(logits)
    return _map_by_map(logits[:, kept], out_size, owner[kept])


def _cell_by_cell(
    logits: Tensor, out_size: tuple[int, int], owner: Tensor, parts: list[tuple[Span, Span]]
) -> Tensor:
    """Class (H, W) int64 of one picture's logits (K, h, w), where cells pay or else map by map."""
    largest = float(logits.abs().max())
    if len(logits) <= FEW or logits.dtype != torch.float32 or not math.isfinite(largest):
        return _map_by_map(logits[None], out_size, owner)[0]
    if len(logits) > MANY:
        kept = contenders(logits[None])
        logits, owner = logits[kept], owner[kept]
    margin = ROUNDING * max(largest, TINY)
    return torch.from_numpy(classes_of(logits, owner.numpy(), margin, parts))


def _map_by_map(logits: Tensor, out_size: tuple[int, int], owner: Tensor) -> Tensor:
    """Class (B, H, W) int64 of the largest, each name upsampled as a whole."""
    upsampled = (bilinear(part, out_size) for part in logits.split(CHUNK, dim=1))
    return owner[first_argmax(upsampled)]


def contenders(logits: Tensor) -> Tensor:
    """Classes, in order, that can be the largest at some pixel between patches of (B, K, h, w).

    Between four patches an upsampled logit lies between its four corners. A class whose largest
    corner is below the best smallest corner of another never wins there; float rounding has a
    margin.
    """
    largest = _over_corners(logits, torch.maximum)
    smallest = _over_corners(logits, torch.minimum)
    bound = smallest.amax(dim=1, keepdim=True) - ROUNDING * logits.abs().max()
    return (largest >= bound).any(dim=0).flatten(1).any(dim=1).nonzero().squeeze(1)


def _over_corners(maps: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest or smallest of each 2 × 2 neighbourhood; a side of one patch stays."""
    for dim in (2, 3):
        size = maps.shape[dim]
        if size > 1:
            maps = choose(maps.narrow(dim, 0, size - 1), maps.narrow(dim, 1, size - 1))
    return maps
