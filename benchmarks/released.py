"""The released procedure, image by image, as slowly as it is published: the point of reference.

Written from the paper's description of the released code alone and using nothing of the package's
model or segment code: correlations by broadcasting head by head, scikit-learn's DBSCAN, a SciPy
median for each cluster, a loop over the regions for the vote.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from sklearn.cluster import DBSCAN
from torch import Tensor

from cliptrase.runs.provenance import Stages

UPSAMPLE, MEDIAN = 4, 7


@torch.inference_mode()
def segment(
    model: Any,
    pixels: Tensor,
    text: Tensor,
    eps: float,
    min_samples: int,
    classes: int | None = None,
    stages: Stages | None = None,
) -> np.ndarray:
    """Label map (n, n) int64 of one picture, `pixels` (1, 3, n, n) normalised.

    `model` is open_clip's CLIP, `text` (K, E) its normalised text features. Names from `classes` on
    are words for the background, which is class `classes`. Seconds are added to `stages`.
    """
    stages = stages or Stages()
    size = pixels.shape[-1]
    side = size // model.visual.patch_size[0]
    with stages("features"):
        features, last_but_one = encode(model.visual, pixels)
    with stages("correlation"):
        w = correlation(*last_but_one)
    with stages("logits and upsampling"):
        logits = 100 * features @ text.T  # (N, K)
        maps = logits.T.reshape(1, -1, side, side)
        maps = F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)
        prediction = maps[0].argmax(dim=0).numpy()
        if classes is not None:
            prediction[prediction >= classes] = classes
    with stages("clustering"):
        rows = (w[1:, 1:] - w[0, 1:]).clamp(min=0)
        labels = DBSCAN(eps=eps, min_samples=min_samples).fit(rows.numpy()).labels_
    with stages("regions"):
        regions = region_map(rows, labels, side, size)
    with stages("vote"):
        return prediction if regions is None else vote(prediction, regions)


def encode(visual: Any, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Normalised patch features (N, E), and q, k, v (heads, L, d) of the last block but one."""
    grid = visual.conv1(pixels)
    x = grid.reshape(1, grid.shape[1], -1).permute(0, 2, 1)
    cls = visual.class_embedding.reshape(1, 1, -1)
    x = torch.cat([cls, x], dim=1) + positions(visual, grid.shape[-2], grid.shape[-1])
    x = visual.ln_pre(x)
    *before, last_but_one, last = visual.transformer.resblocks
    for block in before:
        x = block(x)
    correlated = queries_keys_values(last_but_one, x)
    x = last_but_one(x)
    q, k, v = queries_keys_values(last, x)
    scale = q.shape[-1] ** -0.5
    a, b, c = (torch.softmax(scale * part @ part.transpose(1, 2), dim=-1) for part in (q, k, v))
    mixed = ((a + b + c) @ v).transpose(0, 1).reshape(1, x.shape[1], -1)
    x = x + last.attn.out_proj(mixed)
    x = x + last.mlp(last.ln_2(x))
    features = (visual.ln_post(x) @ visual.proj)[0, 1:]
    return features / features.norm(dim=-1, keepdim=True), correlated


def positions(visual: Any, rows: int, columns: int) -> Tensor:
    """Position embedding (L, D): bicubic, with the given scale, where the grid is another one."""
    trained = visual.positional_embedding
    side = round((len(trained) - 1) ** 0.5)
    if rows == columns == side:
        return trained
    square = trained[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    resized = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([trained[:1], resized.permute(0, 2, 3, 1).reshape(rows * columns, -1)])


def queries_keys_values(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(heads, L, d) each, of the tokens (1, L, D) entering a block."""
    attn = block.attn
    joint = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)[0]
    q, k, v = (
        part.reshape(len(part), attn.num_heads, -1).transpose(0, 1) for part in joint.chunk(3, -1)
    )
    return q, k, v


def correlation(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """W (L, L): the mean over heads of a third of the cosines of q, k and v."""
    total = torch.zeros(q.shape[1], q.shape[1])
    for part in (q, k, v):
        for head in part:
            total += F.cosine_similarity(head[:, None, :], head[None, :, :], dim=-1)
    return total / (3 * len(q))


def region_map(rows: Tensor, labels: np.ndarray, side: int, size: int) -> np.ndarray | None:
    """Region (n, n) of each pixel; None where all patches are noise."""
    maps = []
    for cluster in range(labels.max() + 1):
        mean = rows[torch.from_numpy(labels == cluster)].mean(dim=0)
        larger = F.interpolate(
            mean.reshape(1, 1, side, side),
            size=(side * UPSAMPLE, side * UPSAMPLE),
            mode="bilinear",
            align_corners=False,
        )
        smooth = torch.from_numpy(median_filter(larger[0, 0].numpy(), size=MEDIAN))
        maps.append(
            F.interpolate(smooth[None, None], (size, size), mode="bilinear", align_corners=False)
        )
    return torch.cat(maps)[:, 0].argmax(dim=0).numpy() if maps else None


def vote(prediction: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Each region takes its most frequent label; of equally frequent ones the smallest."""
    voted = prediction.copy()
    for region in np.unique(regions):
        inside = regions == region
        labels, counts = np.unique(prediction[inside], return_counts=True)
        voted[inside] = labels[counts.argmax()]
    return voted
