"""Clusters are scikit-learn's, medians SciPy's: label for label, bit for bit, for every batch.

Beside the random lattices of test_segment_clustering.py: distances that are eps itself but for the
rounding of its square, every min_samples of a matrix, shapes that a clustering gets wrong, points
that take no part, and images of a batch that have nothing, one cluster and many.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter as scipy_median
from slow_stages import clustered, left

from cliptrase.model.affinity import squared_distances
from cliptrase.segment import ways
from cliptrase.segment.clustering import dbscan, neighbours, without
from cliptrase.segment.median import median_filter


@pytest.fixture(autouse=True, params=[True, False], ids=["a CPU's way", "a GPU's way"])
def either_way(request, monkeypatch):
    monkeypatch.setattr(ways, "one_by_one", lambda device: request.param)


def near_of(rows: np.ndarray, eps: float) -> torch.Tensor:
    return neighbours(squared_distances(torch.from_numpy(rows)), eps)


def chain(rng: np.random.Generator, size: int) -> np.ndarray:
    """Links of length 1 in any order, some missing: one cluster through all of them, or several."""
    steps = np.cumsum(rng.choice([1, 1, 1, 1, 1, 1, 1, 3], size))
    return np.stack([rng.permutation(steps), np.zeros(size)], axis=1)


def bridge(rng: np.random.Generator, size: int) -> np.ndarray:
    """Two heaps and points between them that both reach, none of them dense."""
    heaps = np.repeat([[0.0, 0.0], [4.0, 0.0]], [size // 2, size - size // 2], axis=0)
    heaps[rng.integers(size, size=max(1, size // 8))] = [2.0, 0.0]
    return heaps[rng.permutation(size)] + [[0.0, 1.0]] * rng.integers(0, 2, (size, 1))


def heaps(rng: np.random.Generator, size: int) -> np.ndarray:
    """The same few points again and again."""
    return rng.integers(0, 12, (max(1, size // 5), 3))[rng.integers(max(1, size // 5), size=size)]


def apart(rng: np.random.Generator, size: int) -> np.ndarray:
    """Everybody is alone."""
    return 50.0 * rng.permutation(size)[:, None]


def together(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.full((size, 4), rng.integers(9))


def grid(rng: np.random.Generator, size: int) -> np.ndarray:
    """Distances √1, √2, √3, 2, √5 …: float32's square decides which of them are within √n."""
    return rng.integers(0, 7, (size, int(rng.integers(2, 5))))


SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "chain": chain, "bridge": bridge, "heaps": heaps, "apart": apart, "together": together,
    "grid": grid,
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_every_min_samples_of_shapes(name):
    """min_samples from 1 to one more than there are points; eps a distance that occurs."""
    rng, cases, at_eps, counts = np.random.default_rng([4, *name.encode()]), 0, 0, set()
    for size in (1, 2, 3, 5, 8, 13, 20):
        for _ in range(2):
            rows = SHAPES[name](rng, size).astype(np.float32)
            squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)
            some = np.unique(squared[squared > 0])[:6]
            eps = float(np.sqrt(rng.choice(some))) if len(some) else 1.0
            near = near_of(rows[None], eps)
            at_eps += int(np.isclose(squared, eps * eps).sum())
            for least in range(1, size + 2):
                expected = clustered(rows, eps, least)
                np.testing.assert_array_equal(dbscan(near, least)[0], expected)
                counts.add(int(expected.max()) + 1)
                cases += 1
    assert cases == 118 and (at_eps > 20 or name == "together")
    assert {0, 1} <= counts


def test_a_distance_of_eps_is_within_it():
    for distance in (0.125, 0.5, 0.75, 3.0, 1024.0):
        rows = np.array([[0], [distance], [2 * distance], [10 * distance]], dtype=np.float32)[None]
        assert dbscan(near_of(rows, distance), 2).tolist() == [[0, 0, 0, -1]]
        less = float(np.nextafter(np.float32(distance), np.float32(0)))
        assert dbscan(near_of(rows, less), 2).tolist() == [[-1, -1, -1, -1]]


def test_images_of_a_batch_have_nothing_to_do_with_each_other():
    """Different shapes beside each other in one batch: all noise, one cluster, many; in any order,
    with and without points that take no part."""
    rng, images, mixed = np.random.default_rng(5), 0, 0
    for _ in range(120):
        size, least = int(rng.integers(2, 40)), int(rng.integers(1, 6))
        names = rng.choice(list(SHAPES), int(rng.choice([1, 2, 3, 5, 8, 16])))
        batch = np.zeros((len(names), size, 4), np.float32)
        for image, name in enumerate(names):
            rows = SHAPES[name](rng, size)
            batch[image, :, : rows.shape[1]] = rows
        eps = float(np.sqrt(rng.integers(1, 4)))
        kept = rng.random((len(names), size)) < rng.choice([0.0, 0.5, 0.9, 1.0], (len(names), 1))
        near = near_of(batch, eps)
        found = dbscan(near, least)
        second = dbscan(near, least, torch.from_numpy(kept))
        once = without(found, torch.from_numpy(kept))
        numbers = set()
        for image, rows in enumerate(batch):
            expected = clustered(rows, eps, least)
            np.testing.assert_array_equal(found[image], expected)
            np.testing.assert_array_equal(second[image], clustered(rows, eps, least, kept[image]))
            np.testing.assert_array_equal(once[image], left(expected, kept[image]))
            numbers.add(int(expected.max()) + 1)
            images += 1
        mixed += {0, 1} < numbers
    assert images > 500 and mixed > 20


@pytest.mark.parametrize("size", [9, 25, 49, 90])
def test_rows_of_correlations(size):
    """What is clustered of pictures: float32 rows, as wide as there are patches."""
    rng, counts = np.random.default_rng([6, size]), set()
    for case in range(60):
        kinds = rng.normal(size=(int(rng.integers(1, 6)), 12))
        tokens = kinds[rng.integers(len(kinds), size=(3, size))]
        tokens += rng.choice([0, 0.1, 0.4, 2]) * rng.normal(size=tokens.shape)
        tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
        rows = (tokens @ tokens.transpose(0, 2, 1)).astype(np.float32)
        if case % 2:
            rows = np.maximum(rows - rng.normal(size=(3, 1, size)).astype(np.float32) / 8, 0)
        eps, least = float(rng.choice([0.2, 0.5, 0.7, 1.0, 1.5])), int(rng.integers(1, 8))
        found = dbscan(near_of(rows, eps), least)
        for own, ours in zip(rows, found, strict=True):
            expected = clustered(own, eps, least)
            np.testing.assert_array_equal(ours, expected)
            counts.add(int(expected.max()) + 1)
    assert {0, 1, 2, 3} <= counts


# ---------------------------------------------------------------- the median


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 11])
def test_median_of_maps_of_any_size(window):
    """Also smaller than the window; few values, infinities, denormals; several maps at once."""
    rng, tied, smaller = np.random.default_rng([7, window]), 0, 0
    for case in range(100):
        shape = (int(rng.integers(1, 5)), int(rng.integers(1, 22)), int(rng.integers(1, 22)))
        if case % 4 == 0:
            maps = rng.integers(0, 3, shape) / 7
        elif case % 4 == 1:
            maps = np.broadcast_to(rng.normal(size=(*shape[:2], 1)), shape).copy()
        else:
            maps = rng.normal(size=shape) * 10.0 ** rng.choice([-42, 0, 30])
        maps = maps.astype(np.float32)
        if case % 10 == 0:
            maps[rng.random(shape) < 0.2] = np.inf
            maps[rng.random(shape) < 0.2] = -np.inf
        expected = [scipy_median(one, size=window, mode="reflect") for one in maps]
        ours = median_filter(torch.from_numpy(maps.copy()), window).numpy()
        np.testing.assert_array_equal(ours, np.stack(expected))
        tied += len(np.unique(maps)) < maps.size
        smaller += min(shape[1:]) < window
    assert tied > 40 and (smaller > 5 or window == 1)
