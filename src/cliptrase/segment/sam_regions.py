"""Region of every pixel: masks of SAM, which each cluster of patches prompts with its points."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.config.method_regions import SamOptions
from cliptrase.model.sam import Sam, Size, decode, framed_size, patch_centres
from cliptrase.segment import ways
from cliptrase.segment.argmax import first_argmax
from cliptrase.segment.tiles import bilinear

PROMPTS = 8  # decoded at once on a GPU; a constant, so that no mask depends on its company


def sam_regions(
    sam: Sam,
    embedding: Tensor,
    clusters: NDArray[np.int64],
    grid: Size,
    seen: Size,
    out_size: Size,
    options: SamOptions,
) -> Tensor:
    """Region (H, W) int64 of every pixel of one image: of the clusters whose mask holds it the one
    with the highest score, the lowest on ties; −1 where none does.

    embedding: (1, C, g, g) of SAM. clusters: of each patch (N,), −1 for none, the others numbered
    without gaps. seen: (h, w) of the picture that CLIP sees. A mask's score is SAM's own estimate
    of its IoU, or its logit at the pixel. Raises UserError for masks that are not finite.
    """
    if clusters.max() < 0:
        return torch.full(out_size, -1, device=sam.device)
    framed = framed_size(seen, sam.side)
    points, labels = prompts(clusters, grid, framed, options.points)
    at_once = 1 if ways.one_by_one(sam.device) else PROMPTS
    place = torch.from_numpy(points).to(sam.device)

    def scores() -> Iterator[Tensor]:
        """Maps (1, k, H, W): of no region, then of each cluster; −∞ outside its mask."""
        yield torch.full((1, 1, *out_size), -torch.inf, device=sam.device)
        for some in torch.from_numpy(labels).to(sam.device).split(at_once):
            masks, ious = decode(sam, embedding, place, some, multimask=options.multimask)
            fine = whole_masks(masks, sam.side, framed, out_size)
            value = fine if options.score == "logit" else ious[:, None, None]
            yield torch.where(fine > options.threshold, value, -torch.inf)[None]

    return first_argmax(scores())[0] - 1


def prompts(
    clusters: NDArray[np.int64], grid: Size, framed: Size, points: int | str = "all"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points (m, 2) that the prompts of all clusters share, centres of patches in ascending order,
    and their labels (K, m): 1 where a point is of the prompt's own cluster, else 0.

    framed: the size of the picture in SAM's frame. points: "all" patches of a cluster, or at most
    how many.
    """
    count = int(clusters.max()) + 1
    chosen = clusters >= 0
    if points != "all":
        rows_columns = np.stack(np.divmod(np.arange(len(clusters)), grid[1]), axis=1)
        chosen = np.zeros(len(clusters), dtype=bool)
        for cluster in range(count):
            members = np.flatnonzero(clusters == cluster)
            chosen[members[farthest_points(rows_columns[members], int(points))]] = True
    labels = clusters[chosen] == np.arange(count)[:, None]
    return patch_centres(grid, framed)[chosen], labels.astype(np.int64)


def farthest_points(places: NDArray[np.int64], most: int) -> list[int]:
    """Indices of at most `most` of the `places` (n, 2), spread out: first the place nearest their
    mean, then always the one farthest from those chosen, the lowest index on ties."""
    from_mean = len(places) * places - places.sum(axis=0)  # times n: whole numbers, whose ties hold
    chosen = [int((from_mean**2).sum(axis=1).argmin())]
    nearest = np.full(len(places), np.iinfo(np.int64).max)
    while len(chosen) < min(most, len(places)):
        np.minimum(nearest, ((places - places[chosen[-1]]) ** 2).sum(axis=1), out=nearest)
        chosen.append(int(nearest.argmax()))
    return chosen


def whole_masks(masks: Tensor, side: int, framed: Size, out_size: Size) -> Tensor:
    """Mask logits (K, l, l) over SAM's frame as (K, H, W) over the picture: bilinear to the frame's
    `side`, what is beside the picture cut off, bilinear to `out_size`."""
    height, width = framed
    whole = bilinear(masks[None], (side, side))[..., :height, :width]
    return bilinear(whole, out_size)[0]
