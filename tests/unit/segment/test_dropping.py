"""Patches that take no part in the clustering: scikit-learn on the rows that are left."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import DBSCAN

from cliptrase.model.affinity import squared_distances
from cliptrase.segment.clustering import dbscan, neighbours, without


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Points on a line, which of them are kept, eps, min_samples."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.uniform(0, 12, (2, 40, 1)).astype(np.float32), axis=1)
    return rows, rng.random((2, 40)) < 0.8, float(rng.uniform(0.3, 0.8)), int(rng.integers(2, 5))


def test_dropped_points_are_nobodys_neighbours():
    split = 0
    for seed in range(100):
        rows, kept, eps, min_samples = drawn(seed)
        near = neighbours(squared_distances(torch.from_numpy(rows)), eps)
        once = without(dbscan(near, min_samples), torch.from_numpy(kept))
        twice = dbscan(near, min_samples, torch.from_numpy(kept))
        for image in range(2):
            points, left = rows[image], kept[image]
            expected = np.full(len(points), -1)
            whole = DBSCAN(eps=eps, min_samples=min_samples).fit(points).labels_
            expected[left] = DBSCAN(eps=eps, min_samples=min_samples).fit(points[left]).labels_
            np.testing.assert_array_equal(twice[image], expected)
            numbers = sorted(set(whole[left]) - {-1})
            compact = [numbers.index(c) if c >= 0 else -1 for c in np.where(left, whole, -1)]
            np.testing.assert_array_equal(once[image], compact)
            split += int(twice[image].max() > once[image].max())
    assert split > 20


def test_clustering_again_without_noise_changes_no_label():
    """Noise is no neighbour of a core point, so the second of two passes has nothing to do."""
    noisy = 0
    for seed in range(100):
        rows, _, eps, min_samples = drawn(seed)
        near = neighbours(squared_distances(torch.from_numpy(rows)), eps)
        first = dbscan(near, min_samples)
        noisy += int((first == -1).any())
        assert torch.equal(dbscan(near, min_samples, first >= 0), first)
    assert noisy > 50
