"""DBSCAN against scikit-learn, label for label, and its contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN

from cliptrase.model.affinity import squared_distances
from cliptrase.segment import ways
from cliptrase.segment.clustering import dbscan, neighbours


@pytest.fixture(autouse=True, params=[True, False], ids=["a CPU's way", "a GPU's way"])
def either_way(request, monkeypatch):
    monkeypatch.setattr(ways, "one_by_one", lambda device: request.param)


def labels(rows: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """(N,) of one matrix, or (B, N) of a batch."""
    batch = torch.from_numpy(rows if rows.ndim == 3 else rows[None])
    found = dbscan(neighbours(squared_distances(batch), eps), min_samples)
    return found.numpy() if rows.ndim == 3 else found[0].numpy()


def oracle(rows: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    return DBSCAN(eps=eps, min_samples=min_samples).fit(rows).labels_


def scattered(rng: np.random.Generator, points: int, columns: int) -> np.ndarray:
    """Blobs, bridges between them, stray points, duplicates: (points, columns) float32."""
    centres = rng.normal(0, 2, (rng.integers(1, 6), columns))
    rows = centres[rng.integers(len(centres), size=points)]
    rows = rows + rng.normal(0, rng.choice([0.02, 0.1, 0.3]), (points, columns))
    far = rng.random(points) < 0.15
    rows[far] += rng.normal(0, 3, (far.sum(), columns))
    doubled = rng.integers(points, size=points // 5)
    rows[doubled] = rows[rng.permutation(doubled)]
    return rows.astype(np.float32)


@pytest.mark.parametrize("eps", [0.7, 1.1, 0.3, 0.55, 2**0.5, 1.0])
def test_a_distance_at_the_last_bits_of_eps(eps):
    """scikit-learn squares eps in float32: 0.7 is then less far than float32's own 0.7."""
    for step in range(-6, 7):
        rows = np.zeros((2, 16), dtype=np.float32)  # so many columns that it takes no tree
        rows[1, 0] = np.float32(eps) * np.float32(1 + step * 2**-24)
        np.testing.assert_array_equal(labels(rows, eps, 2), oracle(rows, eps, 2))


def test_thousands_of_matrices():
    rng = np.random.default_rng(0)
    kinds = {"noise only": 0, "one cluster": 0, "several": 0, "border points": 0}
    for _ in range(1200):
        points, columns = int(rng.integers(1, 60)), int(rng.choice([1, 2, 5, 16, 40]))
        rows = scattered(rng, points, columns)
        distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
        eps = float(np.quantile(distances, rng.choice([0.02, 0.1, 0.3, 0.6]))) + 1e-3
        min_samples = int(rng.integers(1, 8))
        ours, expected = labels(rows, eps, min_samples), oracle(rows, eps, min_samples)
        np.testing.assert_array_equal(ours, expected)
        core = (distances <= eps).sum(axis=1) >= min_samples
        kinds["noise only"] += expected.max() < 0
        kinds["one cluster"] += expected.max() == 0
        kinds["several"] += expected.max() > 0
        kinds["border points"] += bool((~core & (expected >= 0)).any())
    assert min(kinds.values()) > 60, kinds


def test_exact_ties_at_eps():
    """On a grid of eighths every distance is exact, so eps is met exactly, and it is inclusive."""
    rng = np.random.default_rng(1)
    met = 0
    for _ in range(500):
        points, columns = int(rng.integers(2, 50)), int(rng.choice([1, 2, 3, 20]))
        rows = (rng.integers(0, 5, (points, columns)) / 8).astype(np.float32)
        eps = float(rng.integers(1, 9)) / 8
        min_samples = int(rng.integers(1, 7))
        squared = ((rows[:, None].astype(float) - rows[None]) ** 2).sum(axis=-1)
        met += bool((squared == eps**2).any())
        np.testing.assert_array_equal(
            labels(rows, eps, min_samples), oracle(rows, eps, min_samples)
        )
    assert met > 150


@pytest.mark.parametrize(("size", "eps", "min_samples"), [(196, 0.7, 3), (441, 1.1, 7)])
def test_matrices_of_the_released_sizes(size, eps, min_samples):
    rng = np.random.default_rng(2)
    several = 0
    for _ in range(10):
        centres = rng.random((8, size)).astype(np.float32) * 0.2
        noise = rng.normal(0, rng.choice([0.01, 0.025, 0.035]), (size, size))
        rows = np.maximum(centres[rng.integers(8, size=size)] + noise, 0).astype(np.float32)
        ours, expected = labels(rows, eps, min_samples), oracle(rows, eps, min_samples)
        np.testing.assert_array_equal(ours, expected)
        several += expected.max() > 0
    assert several > 2


def test_a_batch_is_its_images():
    rng = np.random.default_rng(3)
    rows = np.stack([scattered(rng, 40, 20) for _ in range(6)])
    together = labels(rows, 1.0, 3)
    for image, own in zip(rows, together, strict=True):
        np.testing.assert_array_equal(own, oracle(image, 1.0, 3))


def test_clusters_are_numbered_by_their_first_core_point():
    rows = np.array([[9.0], [0.0], [0.1], [0.2], [5.0], [5.1], [5.2], [-5.0]], dtype=np.float32)
    np.testing.assert_array_equal(labels(rows, 0.15, 2), [-1, 0, 0, 0, 1, 1, 1, -1])
    np.testing.assert_array_equal(labels(rows[::-1].copy(), 0.15, 2), [-1, 0, 0, 0, 1, 1, 1, -1])


def test_a_border_point_goes_to_the_first_cluster():
    """Point 0 is no core point and lies within eps of one core point of either cluster."""
    rows = np.array(
        [[0.0], [1.0], [1.1], [1.2], [1.3], [-1.0], [-1.1], [-1.2], [-1.3]], dtype=np.float32
    )
    found = labels(rows, 1.0, 4)
    np.testing.assert_array_equal(found, oracle(rows, 1.0, 4))
    np.testing.assert_array_equal(found, [0, 0, 0, 0, 0, 1, 1, 1, 1])


def test_a_long_chain_is_one_cluster():
    order = np.random.default_rng(4).permutation(300)
    rows = order[:, None].astype(np.float32)
    assert (labels(rows, 1.0, 2) == 0).all()
    assert (labels(rows, 0.99, 2) == -1).all()


def test_input_is_not_changed():
    rows = torch.rand(1, 20, 20)
    kept = rows.clone()
    squared = squared_distances(rows)
    near = neighbours(squared, 1.0)
    before = (squared.clone(), near.clone())
    dbscan(near, 3)
    assert torch.equal(rows, kept)
    assert torch.equal(squared, before[0]) and torch.equal(near, before[1])


def test_distances_are_as_exact_as_float64():
    """Rows that float32 arithmetic could not tell apart: 1e-4 between rows of norm 100."""
    rows = torch.full((1, 2, 16), 25.0)
    rows[0, 1, 0] += 2**-13
    assert squared_distances(rows)[0, 0, 1].item() == pytest.approx(2**-26, rel=1e-3)
