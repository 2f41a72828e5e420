"""Class of every pixel: cosine logits on the patch grid, upsampled, argmax over the classes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cliptrase.segment import ways
from cliptrase.segment.argmax import clear_argmax, first_argmax
from cliptrase.segment.tiles import Span, bilinear, side_by_side, tiles

CHUNK = 8  # names upsampled at once: bounds memory, changes no result
MANY = 100  # names from which on tiles are worth their overhead; changes no result
ROUNDING = 1e-5  # of the largest logit: more than bilinear upsampling in float32 can be wrong by


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
    height, width = logits.shape[-2:]
    parts = tiles((height, width), out_size)
    if parts and ways.one_by_one(logits.device) and logits.shape[1] > MANY:
        return owner[_tile_by_tile(logits, out_size, parts)]
    kept = contenders(logits)
    upsampled = (bilinear(part, out_size) for part in logits[:, kept].split(CHUNK, dim=1))
    return owner[kept[first_argmax(upsampled)]]


def _tile_by_tile(
    logits: Tensor, out_size: tuple[int, int], parts: list[tuple[Span, Span]]
) -> Tensor:
    """Name (B, H, W) int64 of the largest logit: in a tile few names are left.

    Upsampled with the names of a pixel side by side, which takes a tenth of the time and rounds
    otherwise: where that could matter, the names that come near are upsampled as the whole is.
    """
    alive, margin = contending(logits), ROUNDING * float(logits.abs().max())
    names = logits.new_empty((len(logits), *out_size), dtype=torch.int64)
    for y, x in parts:
        kept = _anywhere(alive[:, y.cells, x.cells])
        corners = logits[..., y.patches, x.patches][:, kept]
        size, inner = (y.size, x.size), (..., y.inner, x.inner)
        rounded = side_by_side(corners, size)[inner].permute(0, 2, 3, 1)
        winner, clear, close = clear_argmax(rounded.numpy(), margin)
        if len(close):
            near = corners[:, close].split(CHUNK, dim=1)
            exact = first_argmax(bilinear(part, size)[inner] for part in near)
            np.copyto(winner, close[exact.numpy()], where=~clear)
        names[:, y.pixels, x.pixels] = kept[torch.from_numpy(winner)]
    return names


def contenders(logits: Tensor) -> Tensor:
    """Classes, in order, that can be the largest at some pixel between patches of (B, K, h, w)."""
    return _anywhere(contending(logits))


def _anywhere(alive: Tensor) -> Tensor:
    """The classes that are alive in some cell of (K, h, w) bool, in order."""
    return alive.flatten(1).any(dim=1).nonzero().squeeze(1)


def contending(logits: Tensor) -> Tensor:
    """Whether a class can be the largest at some pixel between four patches of (B, K, h, w), in any
    of the images: (K, h', w') bool, a cell between every 2 × 2 patches, h' = max(h − 1, 1).

    Between four patches an upsampled logit lies between its four corners. A class whose largest
    corner is below the best smallest corner of another never wins there; float rounding has a
    margin.
    """
    largest = _over_corners(logits, torch.maximum)
    smallest = _over_corners(logits, torch.minimum)
    bound = smallest.amax(dim=1, keepdim=True) - ROUNDING * logits.abs().max()
    return (largest >= bound).any(dim=0)


def _over_corners(maps: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest or smallest of each 2 × 2 neighbourhood; a side of one patch stays."""
    for dim in (2, 3):
        size = maps.shape[dim]
        if size > 1:
            maps = choose(maps.narrow(dim, 0, size - 1), maps.narrow(dim, 1, size - 1))
    return maps
