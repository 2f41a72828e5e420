"""Class of every pixel: cosine logits on the patch grid, upsampled, argmax over the classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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


def classify(logits: Tensor, out_size: tuple[int, int], classes: int) -> Tensor:
    """Class (B, H, W) int64 of the largest logit, bilinearly upsampled from (B, K, h, w).

    The first class wins ties; winners ≥ `classes` (background words) become `classes`.
    """
    best: Tensor | None = None
    for start in range(0, logits.shape[1], CHUNK):
        part = F.interpolate(
            logits[:, start : start + CHUNK], size=out_size, mode="bilinear", align_corners=False
        )
        value, index = part.max(dim=1)
        if best is None:
            best, winner = value, index
        else:
            better = value > best
            best = torch.where(better, value, best)
            winner = torch.where(better, index + start, winner)
    return winner.clamp_max(classes)
