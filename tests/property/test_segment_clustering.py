"""DBSCAN and the median hold for whatever numbers come."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter as scipy_median
from sklearn.cluster import DBSCAN

from cliptrase.segment.clustering import dbscan, neighbours, squared_distances
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
