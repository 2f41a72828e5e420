"""What queries begin as."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from cliptrase.errors import UserError
from cliptrase.san import queries as beginnings
from cliptrase.san.queries import from_means
from cliptrase.san.regions import pooled, read_means
from cliptrase.san.settings import Init

from .conftest import small

CENTRES = np.eye(6, 20, dtype=np.float32)  # six directions, 2, 3, … 7 means near each


@pytest.fixture(scope="module")
def means():
    near = np.repeat(CENTRES, range(2, 8), axis=0)
    noise = np.random.default_rng(0).normal(scale=1e-3, size=near.shape)
    return (near + noise).astype(np.float32) * np.linspace(1, 9, len(near))[:, None]


def test_queries_are_the_centres_of_the_regions_turned_and_scaled(means):
    queries = from_means(means, 6, 12, seed=0)
    assert queries.shape == (6, 12) and queries.dtype == np.float32
    assert queries.std() == pytest.approx(0.02, rel=1e-5)
    assert np.abs(queries.mean(axis=0)).max() < 1e-7  # centred
    assert not queries[:, 6:].any()  # six centres have no more components
    # the heaviest first; orthogonal directions are equally far apart
    far = np.linalg.norm(queries[:, None] - queries[None], axis=2)
    assert far[~np.eye(6, dtype=bool)].std() < 2e-3 * far.max()
    assert queries.tobytes() == from_means(means, 6, 12, seed=0).tobytes()


def test_distances_are_kept_and_the_order_is_by_weight(means):
    """Pairs of centres at different distances, compared before and after."""
    moved = means.copy()
    unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    groups = np.repeat(np.arange(6), range(2, 8))
    centres = np.stack([unit[groups == group].mean(axis=0) for group in range(5, -1, -1)])
    queries = from_means(moved, 6, 12, seed=1).astype(np.float64)
    before = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    after = np.linalg.norm(queries[:, None] - queries[None], axis=2)
    factor = after[0, 1] / before[0, 1]
    np.testing.assert_allclose(after, factor * before, rtol=1e-4, atol=1e-7)


def test_one_thread_makes_the_queries_whatever_the_process_has(means, monkeypatch):
    """With more, sums have no fixed order, and a run that was killed would not go on."""
    seen = []

    class Spy(beginnings.KMeans):
        def fit(self, points):
            seen.extend(pool["num_threads"] for pool in threadpool_info())
            return super().fit(points)

    monkeypatch.setattr(beginnings, "KMeans", Spy)
    with threadpool_limits(2):
        from_means(means, 6, 12, seed=0)
    assert {*seen} == {1}


def test_fewer_regions_than_queries_are_refused(means):
    with pytest.raises(UserError, match=r"init.images: their 27 regions make no 28 queries"):
        from_means(means, 28, 12, seed=0)


def test_a_region_is_the_mean_of_its_tokens():
    """In the outer rows of pixels bilinear upsampling gives the patch's own token."""
    tokens = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 5.0], [3.0, 5.0]])
    regions = torch.full((8, 8), -1)
    regions[0], regions[7] = 4, 2
    found = pooled(tokens, (2, 2), regions)
    assert found.tolist() == [[3.0, 5.0], [1.0, 0.0]]


def test_shuffled_regions_are_as_many_and_others(tiny, data):
    means = read_means(tiny, data)
    assert means.regions.shape == means.shuffled.shape and means.regions.shape[1] == 192
    assert not np.allclose(means.regions, means.shuffled, atol=0.1)
    spread = [np.linalg.norm(each - each.mean(axis=0), axis=1).mean() for each in means[:2]]
    assert spread[1] < spread[0]  # means of random patches are nearer to one another


def test_regions_of_another_experiment_are_refused(tiny, data):
    other = small(tiny, init=Init(method="cliptrase", images=2))
    with pytest.raises(UserError, match=r"regions of another .*cliptrase.san.regions tiny"):
        read_means(other, data)
