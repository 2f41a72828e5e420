"""Class of every pixel: cosine logits on the patch grid, upsampled, argmax over the classes."""

from collections.abc import Callable

import torch
from torch import Tensor

from cliptrase.segment import ways
from cliptrase.segment.argmax import first_argmax
from cliptrase.segment.cells import CHUNK, around, classes_of
from cliptrase.segment.tiles import Span, bilinear, is_even, tiles

FEW = 8  # names that are sooner upsampled map by map than cell by cell; changes no result
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
    parts = tiles((logits.shape[-2], logits.shape[-1]), out_size)
    if ways.one_by_one(logits.device) and is_even(parts):
        return torch.stack([_cell_by_cell(each, out_size, owner, parts) for each in logits])
    return _map_by_map(logits, out_size, owner, contenders(logits))


def _cell_by_cell(
    logits: Tensor, out_size: tuple[int, int], owner: Tensor, parts: list[tuple[Span, Span]]
) -> Tensor:
    """Class (H, W) int64 of one picture's logits (K, h, w), where cells pay or else map by map."""
    alive = contending(around(logits)[None])
    kept = _anywhere(alive)
    if len(kept) <= FEW:
        return _map_by_map(logits[None], out_size, owner, kept)[0]
    margin = ROUNDING * float(logits.abs().max())
    few = logits[kept], owner[kept].numpy(), alive[kept].numpy()
    return torch.from_numpy(classes_of(*few, margin, parts))


def _map_by_map(logits: Tensor, out_size: tuple[int, int], owner: Tensor, kept: Tensor) -> Tensor:
    """Class (B, H, W) int64 of the largest of the names `kept`, each upsampled as a whole."""
    upsampled = (bilinear(part, out_size) for part in logits[:, kept].split(CHUNK, dim=1))
    return owner[kept][first_argmax(upsampled)]


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
