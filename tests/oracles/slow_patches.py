"""Outliers among patches, their repair, and averages over like patches, one patch after the other.

Written from the formulas in float64; shares no line with the package. Patches are rows (N, D).
"""

import math

import numpy as np


def cosine_matrix(patches: np.ndarray) -> np.ndarray:
    unit = [row / math.sqrt(row @ row) for row in patches]
    return np.array([[a @ b for b in unit] for a in unit])


def averaged_over_like(similarity: np.ndarray, patches: np.ndarray, threshold: float) -> np.ndarray:
    out = []
    for row in similarity:
        weights = [s if s >= threshold else 0.0 for s in row]
        total = sum(w * patch for w, patch in zip(weights, patches, strict=True))
        out.append(total / (sum(weights) + 1e-6))
    return np.array(out)


def centred_softmax(similarity: np.ndarray, times: float = 1) -> np.ndarray:
    mean, rows = times * similarity.mean(), []
    for i, row in enumerate(similarity):
        scores = [3 * (s - mean) for s in row]
        powers = [math.exp(s) if s >= 0 or j == i else 0.0 for j, s in enumerate(scores)]
        rows.append([p / sum(powers) for p in powers])
    return np.array(rows)


def factor_outliers(patches: np.ndarray, quantile: float) -> set[int]:
    """Local outlier factors of 30 neighbours, above a quantile (NumPy's linear one)."""
    count = len(patches)
    neighbours = min(30, count - 1)
    nearest, reach = [], []
    for i, patch in enumerate(patches):
        others = sorted((((patch - patches[j]) ** 2).sum(), j) for j in range(count) if j != i)
        nearest.append([j for _, j in others[:neighbours]])
        reach.append(max(others[neighbours - 1][0], 1e-12))
    factors = [
        math.fsum(reach[i] / reach[j] for j in nearest[i]) / neighbours for i in range(count)
    ]
    limit = np.quantile(factors, quantile)
    return {i for i, factor in enumerate(factors) if factor > limit}


def sink_outliers(attention: np.ndarray, most: int) -> set[int]:
    """Patches to which [CLS] attends, times 1.5, more than they do themselves: at most `most`."""
    found = []
    for j in range(1, len(attention)):
        drawn = 1.5 * attention[0, j]
        if drawn > attention[j, j]:
            found.append((-drawn, j - 1))
    return {j for _, j in sorted(found)[:most]}


def repaired_patches(patches: np.ndarray, outliers: set[int], grid: tuple[int, int]) -> np.ndarray:
    rows, columns = grid
    out = patches.copy()
    for place in outliers:
        y, x = divmod(place, columns)
        around = [
            (y + dy) * columns + x + dx
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < rows and 0 <= x + dx < columns
        ]
        good = [patches[other] for other in around if other not in outliers]
        if good:
            out[place] = sum(good) / len(good)
    return out


def resized_patches(
    patches: np.ndarray, grid: tuple[int, int], other: tuple[int, int]
) -> np.ndarray:
    """Bilinear, corners not aligned, not antialiased."""
    out = []
    for y in range(other[0]):
        for x in range(other[1]):
            weights = np.zeros(grid)
            for row, down in _between(y, grid[0], other[0]):
                for column, across in _between(x, grid[1], other[1]):
                    weights[row, column] += down * across
            out.append(weights.reshape(-1) @ patches)
    return np.array(out)


def _between(place: int, old: int, new: int) -> list[tuple[int, float]]:
    """The two places of `old` that a place of `new` lies between, and their weights."""
    at = max((place + 0.5) * old / new - 0.5, 0.0)
    first = math.floor(at)
    return [(first, 1 - (at - first)), (min(first + 1, old - 1), at - first)]
