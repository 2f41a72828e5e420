"""DBSCAN and the median are scikit-learn's and SciPy's for whatever numbers come."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter as scipy_median
from sklearn.cluster import DBSCAN

from cliptrase.model.affinity import squared_distances
from cliptrase.segment.clustering import dbscan, neighbours
from cliptrase.segment.median import median_filter

# Eighths: sums of their squares are exact, so every implementation must agree at eps itself.
EIGHTHS = st.integers(-12, 12).map(lambda n: n / 8)
ROWS = st.integers(1, 6).flatmap(
    lambda columns: st.lists(
        st.lists(EIGHTHS, min_size=columns, max_size=columns), min_size=1, max_size=24
    )
)


@settings(deadline=None, max_examples=200)
@given(rows=ROWS, eps=st.integers(1, 16).map(lambda n: n / 8), min_samples=st.integers(1, 6))
def test_labels_are_scikit_learns(rows, eps, min_samples):
    matrix = np.array(rows, dtype=np.float32)
    near = neighbours(squared_distances(torch.from_numpy(matrix)[None]), eps)
    expected = DBSCAN(eps=eps, min_samples=min_samples).fit(matrix).labels_
    np.testing.assert_array_equal(dbscan(near, min_samples)[0].numpy(), expected)


def labels(rows: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """Ours, (B, N) of (B, N, C) float32."""
    near = neighbours(squared_distances(torch.from_numpy(rows)), eps)
    return dbscan(near, min_samples).numpy()


def lattice(rng: np.random.Generator, size: int, images: int) -> tuple[np.ndarray, int, int]:
    """Rows (images, size, C) of whole numbers, eps and min_samples: every distance is exact, many
    are equal, to each other, to eps and to 0."""
    eps, min_samples = int(rng.integers(1, 6)), int(rng.integers(1, 9))
    columns = int(rng.choice([1, 1, 1, 1, 2, 3, 8, 20, 40]))
    spread = int(rng.choice([1, 2, 4, 9]))
    if columns == 1 and rng.random() < 0.8:  # about min_samples in reach: clusters barely apart
        spread = size * (2 * eps + 1) // (2 * min_samples) + 1
    steps = rng.integers(-spread, spread + 1, (images, size, columns))
    if rng.random() < 0.3:
        steps[:, rng.integers(size, size=size // 3 + 1)] = steps[:, :1]
    far = rng.random((images, size, 1)) < rng.choice([0, 0, 0.2, 0.9])
    steps = steps + far * rng.integers(-60, 60, steps.shape)
    return steps.astype(np.float32), eps, min_samples


def test_thousands_of_lattices():
    """Whole numbers, batches of several images, label for label."""
    rng = np.random.default_rng(10)
    kinds = dict.fromkeys(
        ("noise only", "one cluster", "several", "border", "contested", "at eps", "doubled"), 0
    )
    sizes = [*rng.integers(1, 61, 600), 196, 196, 196, 441, 441]
    for size in map(int, sizes):
        rows, eps, min_samples = lattice(rng, size, images=5)
        for own, ours in zip(rows, labels(rows, eps, min_samples), strict=True):
            expected = DBSCAN(eps=eps, min_samples=min_samples).fit(own).labels_
            np.testing.assert_array_equal(ours, expected)
            squared = ((own[:, None] - own[None]) ** 2).sum(axis=-1)  # exact
            near = squared <= eps**2
            core = near.sum(axis=1) >= min_samples
            in_reach = [set(expected[core & reach]) for reach in near[~core]]
            kinds["noise only"] += int(expected.max() < 0)
            kinds["one cluster"] += int(expected.max() == 0)
            kinds["several"] += int(expected.max() > 0)
            kinds["border"] += any(in_reach)
            kinds["contested"] += any(len(clusters) > 1 for clusters in in_reach)
            kinds["at eps"] += bool((squared == eps**2).any())
            kinds["doubled"] += int((squared == 0).sum()) > size
    assert min(kinds.values()) > 60, kinds


def test_without_its_noise_points_a_matrix_clusters_alike():
    """A noise point is no neighbour of a core point, so nothing hangs on it, also where other
    points are dropped with it.

    Why the paper's second clustering changes nothing where Eq. 7 removes nothing: columns stay.
    """
    rng = np.random.default_rng(11)
    removed, changed = 0, 0
    for size in map(int, [*rng.integers(2, 61, 600), 196, 441]):
        rows, eps, min_samples = lattice(rng, size, images=1)
        rows = rows + rng.choice([0, 0.2]) * rng.normal(size=rows.shape).astype(np.float32)
        first = labels(rows, eps, min_samples)
        kept = first[0] >= 0
        if kept.any():
            again = labels(rows[:, kept], eps, min_samples)
            np.testing.assert_array_equal(again[0], first[0, kept])
            removed += not kept.all()
        near = neighbours(squared_distances(torch.from_numpy(rows)), eps)
        others = torch.from_numpy(rng.random((1, size)) < 0.7)
        second = dbscan(near, min_samples, others)
        assert torch.equal(dbscan(near, min_samples, others & torch.from_numpy(kept)), second)
        changed += not np.array_equal(second[0, others[0]], first[0, others[0]])
    assert removed > 150 and changed > 150


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    window=st.sampled_from([3, 5, 7, 9]),
    levels=st.integers(1, 50),
)
def test_median_is_scipys(seed, height, width, window, levels):
    """Few levels: many ties."""
    rng = np.random.default_rng(seed)
    image = (rng.integers(0, levels, (height, width)) / 7).astype(np.float32)
    expected = scipy_median(image, size=window, mode="reflect")
    ours = median_filter(torch.from_numpy(image)[None], window)[0]
    np.testing.assert_array_equal(ours.numpy(), expected)
