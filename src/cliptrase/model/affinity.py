"""How like the patches of a picture are, which of them stand out, and averages over like ones.

Shapes: B images, h × w patches, N = h·w, D width. Means and quantiles are of one picture.
"""

from fractions import Fraction
from math import ceil, floor

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 30  # that a patch is compared with where its local density is measured
SHARPNESS = 3.0  # what centred similarities are multiplied by before their softmax
SINK = 1.5  # what the attention of [CLS] to a patch is multiplied by before it is compared


def cosines(patches: Tensor) -> Tensor:
    """S (B, N, N) of patches (B, N, D): S_ij = cos(x_i, x_j)."""
    unit = F.normalize(patches, dim=-1)
    return unit @ unit.transpose(1, 2)


def squared_distances(rows: Tensor) -> Tensor:
    """Squared Euclidean distances (B, N, N) float64 of float32 `rows` (B, N, C).

    In float64 and by the expansion |a|² − 2ab + |b|², clamped at 0: what scikit-learn computes for
    float32 input, so that eps decides alike.
    """
    exact = rows.double()
    norms = exact.square().sum(dim=-1)
    products = exact @ exact.transpose(1, 2)
    return (norms.unsqueeze(2) - 2 * products + norms.unsqueeze(1)).clamp_min(0)


def thresholded(similarity: Tensor, threshold: float) -> Tensor:
    """`similarity` with zeros where it is below `threshold`."""
    return similarity.masked_fill(similarity < threshold, 0)


def averaged(patches: Tensor, similarity: Tensor, threshold: float) -> Tensor:
    """Patches (B, N, D) averaged over like ones: S·x, entries of the `similarity` S (B, N, N) below
    `threshold` set to 0, its rows divided by (their sum + 1e-6) (SC-CLIP)."""
    weights = thresholded(similarity, threshold)
    return (weights / (weights.sum(dim=2, keepdim=True) + 1e-6)) @ patches


def centred_attention(similarity: Tensor, times: float = 1.0, together: bool = False) -> Tensor:
    """A (B, N, N) = softmax(3·(S − m)) over the entries that are at least 0 (SC-CLIP, ProxyCLIP).

    m is the mean of all entries of a picture's S, `times` a factor; together: of all B, windows of
    one picture. A patch always attends to itself: all of S may be below m, and rounding may put
    equal patches below their mean.
    """
    mean = similarity.mean(dim=2).mean(dim=1)[:, None, None]
    mean = mean.mean() if together else mean
    centred = SHARPNESS * (similarity - times * mean)
    itself = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
    return centred.masked_fill((centred < 0) & ~itself, -torch.inf).softmax(dim=2)


def local_outliers(patches: Tensor, quantile: float) -> Tensor:
    """Which patches (B, N) bool of (B, N, D) lie apart from their neighbours (SC-CLIP).

    With r_i the squared distance to the 30th nearest other patch (of fewer patches to the last),
    at least 1e-12, the local outlier factor is the mean of r_i/r_j over these neighbours j. An
    outlier's is above the `quantile` of the picture's factors, linearly interpolated.
    """
    count = patches.shape[1]
    neighbours = min(NEIGHBOURS, count - 1)
    squared = squared_distances(patches).to(patches.dtype)
    distances, order = squared.sort(dim=2, stable=True)
    reach = distances[:, :, neighbours].clamp_min(1e-12)
    nearest = order[:, :, 1 : neighbours + 1]
    # in order: two patches with the same neighbours have equal factors to the last bit
    of_nearest = reach[:, None].expand(-1, count, -1).gather(2, nearest).sort(dim=2).values
    # a single patch has no neighbour: its factor is NaN, which is above nothing
    factors = (reach[:, :, None] / of_nearest).mean(dim=2).double()
    rank = Fraction(str(quantile)) * (count - 1)  # exact: a rank may be a whole number
    ascending = factors.sort(dim=1).values
    below, above = ascending[:, floor(rank)], ascending[:, ceil(rank)]
    limit = below + float(rank - floor(rank)) * (above - below)
    return factors > limit[:, None]


def attention_sinks(attention: Tensor, most: int) -> Tensor:
    """Which patches (B, N) bool draw the attention of [CLS] more than their own (SFP).

    Of A (B, 1 + N, 1 + N), [CLS] first: those with 1.5·A[CLS, j] > A[j, j], at `most` the given
    number, with the largest A[CLS, j]; of equal ones the first.
    """
    of_cls = SINK * attention[:, 0, 1:]
    drawn = of_cls > attention.diagonal(dim1=1, dim2=2)[:, 1:]
    ranked = of_cls.masked_fill(~drawn, -1).sort(dim=1, descending=True, stable=True).indices
    first = torch.zeros_like(drawn).scatter_(1, ranked[:, :most], True)
    return drawn & first


def repaired(patches: Tensor, outliers: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches (B, N, D) of a `grid` (h, w); each of the `outliers` (B, N) becomes the mean of those
    of its 8 neighbours that are none. One that has no such neighbour stays (SC-CLIP, SFP)."""
    kept = (~outliers).to(patches.dtype).unsqueeze(2)
    both = torch.cat([patches * kept, kept], dim=2).transpose(1, 2).unflatten(2, grid)
    sums = F.avg_pool2d(both, 3, stride=1, padding=1, divisor_override=1)
    sums = sums.flatten(2).transpose(1, 2).contiguous()  # or later products round otherwise
    total, number = sums[:, :, :-1], sums[:, :, -1:]
    mend = outliers.unsqueeze(2) & (number > 0)
    return torch.where(mend, total / number.clamp_min(1), patches)
