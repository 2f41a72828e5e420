"""The stages after the encoder, slowly: one image at a time, every map resized, loops for votes.

scikit-learn's DBSCAN, SciPy's median, NumPy's argmax and mean; shares no line with the package.
Where a stage rounds (resizing, the mean of rows) the operation of torch is the plain one, so that
what comes out must be equal to the last bit, ties included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from sklearn.cluster import DBSCAN
from torch import Tensor

Size = tuple[int, int]


def upsampled(maps: Tensor, size: Size) -> np.ndarray:
    """(K, H, W) float32: torch's bilinear resize of maps (K, h, w), one call a map.

    torch's CPU kernels round a map by how many are resized with it (three by a kernel of their own;
    small ones in eights, the rest one by one), so that equal maps need not tie. For H + W above 128
    and any number of maps but three this is `plain` to the last bit.
    """
    return np.stack([plain(one[None], size)[0] for one in maps])


def plain(maps: Tensor, size: Size) -> np.ndarray:
    """(K, H, W) float32: one call for all maps (K, h, w)."""
    batch = maps.contiguous()[None]
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False)[0].numpy()


def classified(logits: Tensor, size: Size, owner: Tensor) -> np.ndarray:
    """Class (H, W) of one image's logits (K, h, w): the first of the largest names decides."""
    return owner.numpy()[upsampled(logits, size).argmax(axis=0)]


def clustered(
    rows: np.ndarray, eps: float, min_samples: int, kept: np.ndarray | None = None
) -> np.ndarray:
    """Labels (N,) of float32 rows (N, C); those not `kept` are −1 and take no part."""
    kept = np.ones(len(rows), bool) if kept is None else kept
    labels = np.full(len(rows), -1)
    if kept.any():
        found = DBSCAN(eps=eps, min_samples=min_samples, algorithm="brute").fit(rows[kept])
        labels[kept] = found.labels_
    return labels


def left(labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Labels (N,) after some points are dropped: the clusters that are left, renumbered."""
    numbers: list[int] = sorted({int(c) for c, k in zip(labels, kept, strict=True) if k and c >= 0})
    pairs = zip(labels, kept, strict=True)
    return np.array([numbers.index(c) if k and c >= 0 else -1 for c, k in pairs], dtype=np.int64)


def region_map(
    rows: Tensor, labels: np.ndarray, grid: Size, size: Size, upsample: int, median: int
) -> np.ndarray:
    """Region (H, W) of one image's correlation rows (N, N) float32; all −1 without a cluster."""
    maps = []
    for cluster in range(labels.max() + 1):
        mean = rows[torch.from_numpy(labels == cluster)].mean(dim=0).reshape(1, *grid)
        if upsample != 1:
            mean = torch.from_numpy(plain(mean, (grid[0] * upsample, grid[1] * upsample)))
        smooth = median_filter(mean[0].numpy(), size=median, mode="reflect")
        maps.append(plain(torch.from_numpy(smooth)[None], size)[0])
    return np.argmax(maps, axis=0) if maps else np.full(size, -1)


def voted(classes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Classes (H, W): each region's most frequent, the smallest of several; −1 does not vote."""
    out = classes.copy()
    for region in range(regions.max() + 1):
        inside = regions == region
        if inside.any():
            out[inside] = np.bincount(classes[inside]).argmax()
    return out


def means(logits: Tensor, regions: np.ndarray) -> np.ndarray:
    """Mean (R, K) float64 of the upsampled logits (K, h, w) over each region's pixels, or 0."""
    fine = F.interpolate(
        logits.double()[None], size=regions.shape, mode="bilinear", align_corners=False
    )[0].numpy()
    numbers = range(regions.max() + 1)
    none = np.zeros(len(fine))
    return np.array(
        [fine[:, regions == r].mean(1) if (regions == r).any() else none for r in numbers]
    )


def segmented(graph: Any, image: int, method: Any, text: Any, key: str) -> dict[str, np.ndarray]:
    """Every integer result of one image of a batch, from the encoder's own numbers for it: the
    patch logits and the correlation rows of a package's graph are all that is taken from it."""
    logits = graph.logits(method, text, key, 100.0)[image]
    found = {"classes": classified(logits, graph.out_size, text.owner)}
    r = method.regions
    if r is None or r.vote == "none":
        return found | {"prediction": found["classes"]}
    rows = graph.patch_rows(r)[image]
    points = graph.patches(method)[image] if r.cluster == "features" else rows
    points = F.normalize(points, dim=-1) if r.l2_rows else points
    kept = None
    if r.denoise == "eq7":
        kept = np.array(
            [
                row.mean() <= row[i] + 1e-6 * abs(row[i])
                for i, row in enumerate(rows.double().numpy())
            ]
        )
    if kept is not None and r.passes == 1:
        labels = left(clustered(points.numpy(), r.eps, r.min_samples), kept)
    else:
        labels = clustered(points.numpy(), r.eps, r.min_samples, kept)
    regions = region_map(rows, labels, graph.grid, graph.out_size, r.upsample, r.median)
    found |= {"clusters": labels, "regions": regions}
    return found | {"prediction": voted(found["classes"], regions)}
