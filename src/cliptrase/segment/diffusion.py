"""Logits that spread over a graph of patches: the label propagation of LPOSS (CVPR 2025)."""

import torch
from torch import Tensor

NEIGHBOURS = 400  # of each patch, itself included
SHARPNESS = 3  # the power of a likeness
NEARNESS = 0.01  # by which strengths fall with each pixel of distance
SPREAD = 0.95  # of the logits of a patch, how much comes from others
STEPS, TOLERANCE = 10, 1e-6  # of conjugate gradients; of a residual, as a share of the right side


def affinity(features: Tensor, places: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Ŵ (N, N) float64, symmetric, of the normalised features (N, D) of patches and the `places`
    (N, 2) of their centres in pixels (LPOSS, section 3.2).

    S_ij = max(v_i·v_j, 0)³·exp(−0.01·‖p_i − p_j‖) for the `neighbours` j whose v_i·v_j is largest
    (all where there are fewer patches; of equal ones the first), else 0. W = S + Sᵀ, its diagonal
    set to 0; Ŵ = D^−½·W·D^−½ with the row sums D of W, a sum of 0 taken for 1.
    """
    likeness = features @ features.T
    count = min(neighbours, len(likeness))
    least = likeness.topk(count, dim=1).values[:, -1:]
    near, tied = likeness > least, likeness == least
    first = tied.cumsum(dim=1, dtype=torch.int32) <= count - near.sum(dim=1, keepdim=True)
    # in place: the windows of a large picture have 7,000 patches, 400 MB a matrix
    strength = likeness.masked_fill_(~(near | tied & first), 0).clamp_min_(0).double()
    strength.pow_(SHARPNESS)
    distance = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist").double()
    strength.mul_(distance.mul_(-NEARNESS).exp_())
    weights = (strength + strength.T).fill_diagonal_(0)
    sums = weights.sum(dim=1)
    root = torch.where(sums > 0, sums, 1).rsqrt()
    return weights.mul_(root[:, None]).mul_(root)


def diffused(affinity: Tensor, seeds: Tensor, solver: str) -> Tensor:
    """Z (N, M) float64 that solves (I − 0.95·Ŵ)·Z = Y, of `affinity` Ŵ and `seeds` Y (N, M).

    solver: `exact`, or `cg10`, conjugate gradients of each column from 0, at most 10 steps, until
    ‖residual‖ is at most 1e-6·‖Y_c‖ (LPOSS as released: it is not run to convergence).
    """
    seeds = seeds.double()
    if solver == "exact":
        whole = torch.eye(len(affinity), dtype=seeds.dtype, device=seeds.device)
        return torch.cholesky_solve(seeds, torch.linalg.cholesky(whole - SPREAD * affinity))
    solution, residual, direction = torch.zeros_like(seeds), seeds, seeds
    squared = seeds.square().sum(dim=0)
    enough = TOLERANCE**2 * squared
    for _ in range(STEPS):
        moving = squared > enough  # a column that is done stays as it is
        along = direction - SPREAD * (affinity @ direction)
        step = torch.where(moving, squared / (direction * along).sum(dim=0), 0)
        solution = solution + step * direction
        residual = residual - step * along
        left = residual.square().sum(dim=0)
        direction = residual + torch.where(moving, left / squared, 0) * direction
        squared = left
    return solution
