"""Masks that are cut out of the graph of a picture's patches, one after the other (LaVG).

N = h·w patches of a grid. Eigenvectors are of float64, by LAPACK on the CPU, whatever the device.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.ndimage import label
from torch import Tensor

from cliptrase.config.method_regions import CutOptions

WEAK = 1e-5  # weight of the edge between patches that are not alike; alike ones have 1
FEWEST = 5  # free patches that are not cut any more
CORNERS = 3  # of the grid's four, so many are in the background
TIE = 1e-9  # relative: equal entries of an eigenvector differ by less, by rounding


def spectral_cuts(correlation: Tensor, grid: tuple[int, int], options: CutOptions) -> Tensor:
    """The mask of each patch (B, N) int64, numbered in the order in which they are cut out; what no
    mask took is one more, the last. Of M (B, N, N), how patches are correlated.

    Panoptic Cut of LaVG (Lazy Visual Grounding, ECCV 2024), without its CRF.
    """
    alike = (correlation > options.threshold).cpu().numpy()
    labels = [_cut(each & each.T, grid, options.most) for each in alike]
    return torch.from_numpy(np.stack(labels)).to(correlation.device)


def _cut(alike: NDArray[np.bool_], grid: tuple[int, int], most: int) -> NDArray[np.int64]:
    """The masks (N,) of one picture, of which patches are alike (N, N)."""
    labels = np.full(len(alike), -1)
    for number in range(most):
        free = np.flatnonzero(labels < 0)
        among = alike[np.ix_(free, free)]
        if len(free) <= FEWEST or among.all():
            break
        labels[_mask(free, second_eigenvector(np.where(among, 1.0, WEAK)), grid)] = number
    rest = labels < 0
    labels[rest] = labels.max() + 1
    return labels


def second_eigenvector(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """y (n,) of the second smallest eigenvalue of (D − E)·y = λ·D·y, D the row sums of the weights
    E (n, n); positive where its magnitude is largest.

    As D^-½·z, z of the symmetric D^-½·(D − E)·D^-½: the same, and quicker.
    """
    root = np.sqrt(weights.sum(axis=1))
    laplacian = np.eye(len(root)) - weights / root[:, None] / root
    y = eigh(laplacian, subset_by_index=[1, 1], overwrite_a=True, check_finite=False)[1][:, 0]
    y /= root
    return y if y[_largest(np.abs(y))] > 0 else -y


def _mask(
    free: NDArray[np.int64], y: NDArray[np.float64], grid: tuple[int, int]
) -> NDArray[np.int64]:
    """Which of the patches that are `free` (n,) an eigenvector y (n,) cuts out.

    Those above its mean, or, if most corners of the grid are among them, the others: of these the
    4-connected ones around the most extreme.
    """
    height, width = grid
    corners = [0, width - 1, (height - 1) * width, height * width - 1]
    part = y > y.mean() + TIE * np.abs(y).max()
    if np.isin(corners, free[part]).sum() >= CORNERS:
        y, part = -y, ~part
    inside = np.zeros(height * width, dtype=bool)
    inside[free[part]] = True
    components = label(inside.reshape(grid))[0].ravel()
    return np.flatnonzero(components == components[free[_largest(y)]])


def _largest(values: NDArray[np.float64]) -> int:
    """Index of the largest of the values (n,), the first of those that rounding may tell apart."""
    return int((values >= values.max() - TIE * np.abs(values).max()).argmax())
