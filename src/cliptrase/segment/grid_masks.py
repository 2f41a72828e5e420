"""Masks of a whole picture: what SAM makes of a grid of points, without any cluster (CorrCLIP)."""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes, nms

from cliptrase.model.sam import Sam, Size, decode, framed_size, patch_centres
from cliptrase.segment import ways
from cliptrase.segment.sam_regions import PROMPTS, whole_masks

GRID = 8  # points a side
LEAST_IOU = 0.4  # that SAM predicts of a mask that is kept
STABLE = 0.4  # least share of the pixels above −1 whose logit is above 1
OVERLAP = 0.7  # IoU of boxes, above which the mask with the larger predicted IoU stays


def grid_masks(sam: Sam, embedding: Tensor, seen: Size) -> Tensor:
    """The mask (h, w) int64 of every pixel of a picture of `seen` = (h, w), 0 where none lies.

    Of its `embedding` (1, C, g, g). Each centre of an 8 × 8 grid prompts for one mask. Kept are
    those that SAM finds good (`LEAST_IOU`) and that are stable, and of those with nearly the same
    box the best. They are painted in ascending area, so that a larger one covers a smaller one, and
    numbered so from 1; of equal ones the better is painted first. Raises UserError for masks that
    are not finite.
    """
    framed = framed_size(seen, sam.side)
    points = torch.from_numpy(patch_centres((GRID, GRID), framed)).to(sam.device)
    masks, scores = [], []
    for some in points.unsqueeze(1).split(PROMPTS):  # always the same company, on a CPU too
        labels = torch.ones(some.shape[:2], dtype=torch.int64, device=sam.device)
        coarse, ious = decode(sam, embedding, some, labels)
        logits = whole_masks(coarse, sam.side, framed, seen)
        inner, outer = (_above(logits, limit) for limit in (1, -1))
        good = (ious > LEAST_IOU) & (inner > STABLE * outer)
        masks.append(logits[good] > 0)
        scores.append(ious[good])
    painted = torch.zeros(seen, dtype=torch.int64, device=sam.device)
    kept = torch.cat(masks)
    if len(kept):
        kept = kept[nms(masks_to_boxes(kept), torch.cat(scores), OVERLAP)]  # the best come first
        by_area = kept.sum(dim=(1, 2)).sort(stable=True).indices
        for number, mask in enumerate(kept[by_area], start=1):
            painted.masked_fill_(mask, number)
    return painted


def _above(maps: Tensor, limit: float) -> Tensor:
    """How many pixels of each map (K, h, w) are above a limit."""
    if ways.one_by_one(maps.device):  # torch takes ten times as long as NumPy
        return torch.tensor([np.count_nonzero(each > limit) for each in maps.numpy()])
    return (maps > limit).sum(dim=(1, 2))


def uncovered(masks: Tensor) -> Tensor:
    """Regions (B, H, W) of `masks` (B, H, W): −1 for the lowest number of a picture.

    That is no mask, or, where masks cover the picture, the smallest one, as in the released code.
    """
    lowest = masks.flatten(1).amin(dim=1).view(-1, 1, 1)
    return masks.masked_fill(masks == lowest, -1)
