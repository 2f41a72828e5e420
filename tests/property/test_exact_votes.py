"""Region maps and votes are those of loops over the regions, pixel for pixel, for every batch.

Images of a batch have no cluster, one and many; regions are empty, or a pixel large; names and
prototypes are doubled, so that the first has to win.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from slow_stages import means, region_map, voted
from tests import objects

from cliptrase.config.method import Method
from cliptrase.config.method_regions import Regions
from cliptrase.evaluate.graph import Graph
from cliptrase.segment import ways
from cliptrase.segment.vote import hard_vote, region_means, soft_vote

PATCH = 4


class Given(Graph):
    """A graph whose correlation rows (B, N, N) and clusters (B, N) are given."""

    def __init__(
        self, rows: torch.Tensor, labels: torch.Tensor, grid: tuple[int, int], size: tuple[int, int]
    ) -> None:
        pixels = torch.zeros(len(rows), 3, grid[0] * PATCH, grid[1] * PATCH)
        clip: Any = SimpleNamespace(patch=PATCH, device=torch.device("cpu"))
        super().__init__(clip, pixels, size)
        self.given = rows, labels

    def patch_rows(self, regions: Regions, dino: object = None) -> torch.Tensor:
        return self.given[0]

    def clusters(self, method: Method) -> torch.Tensor:
        return self.given[1]


def method(upsample: int, median: int) -> Method:
    return objects.method("cliptrase", {"regions.upsample": upsample, "regions.median": median})


def drawn_labels(rng: np.random.Generator, batch: int, patches: int) -> np.ndarray:
    """(B, N): no cluster, one of all patches, one of a patch, or up to nine, without gaps."""
    labels = np.full((batch, patches), -1)
    for own in labels:
        clusters = int(rng.choice([0, 1, 1, 2, 3, 5, 9]))
        own[:] = rng.integers(-1, clusters, patches) if clusters else -1
        if clusters == 1 and rng.random() < 0.5:
            own[:] = 0
        found = {c: number for number, c in enumerate(sorted(set(own.tolist()) - {-1}))}
        own[:] = [found.get(c, -1) for c in own.tolist()]
    return labels


@pytest.mark.parametrize(("upsample", "median"), [(4, 7), (1, 1), (2, 5), (3, 3), (4, 1), (1, 11)])
def test_region_maps_of_batches(upsample, median):
    """One size of a map or another; equal rows of a matrix make equal prototypes."""
    rng, images, counts, ties = np.random.default_rng([8, upsample, median]), 0, set(), 0
    for case in range(40):
        grid = [(3, 3), (7, 7), (4, 9), (1, 6), (1, 1), (10, 5)][case % 6]
        batch, patches = int(rng.choice([1, 2, 3, 5, 8])), grid[0] * grid[1]
        rows = rng.random((batch, patches, patches)).astype(np.float32)
        if case % 3 == 0:
            rows = rng.integers(0, 2, rows.shape).astype(np.float32)
        labels = drawn_labels(rng, batch, patches)
        if case % 3 == 1:  # every cluster's prototype is the first one's
            rows[:] = rows[:, :1]
            ties += int((labels.max(axis=1) > 0).sum())
        size = [(48, 56), (90, 77), (7, 5), (grid[0] * 16, grid[1] * 16)][case % 4]
        given = torch.from_numpy(rows), torch.from_numpy(labels)
        ours = Given(*given, grid, size).regions(method(upsample, median)).numpy()
        for image, own in enumerate(labels):
            expected = region_map(given[0][image], own, grid, size, upsample, median)
            np.testing.assert_array_equal(ours[image], expected)
            counts.add(int(own.max()) + 1)
            images += 1
    assert images > 120 and {0, 1, 2, 3} <= counts and ties > 5


# ---------------------------------------------------------------- votes


def drawn_regions(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """(B, H, W): no region, one, or many with gaps between their numbers and some of a pixel."""
    regions = np.full(shape, -1)
    for own in regions:
        how = int(rng.integers(5))
        if how == 1:
            own[:] = rng.integers(4)
        elif how == 2:
            own[:] = rng.choice([0, 3, 7], shape[1:])
        elif how == 3:
            own[:] = rng.integers(-1, 6, shape[1:])
        elif how == 4:
            own[:] = np.arange(own.size).reshape(own.shape)
    return regions


@pytest.mark.parametrize("classes", [1, 2, 3, 21, 171, 847])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_hard_votes_of_batches(classes, on_cpu, monkeypatch):
    monkeypatch.setattr(ways, "one_by_one", lambda device: on_cpu)
    rng, ties, images = np.random.default_rng([9, classes]), 0, 0
    for case in range(90):
        shape = (
            int(rng.choice([1, 2, 3, 5, 8])),
            int(rng.integers(1, 14)),
            int(rng.integers(1, 14)),
        )
        regions = drawn_regions(rng, shape)
        some = rng.integers(classes, size=min(classes, int(rng.integers(1, 5))))
        drawn = rng.choice(some, shape) if case % 2 else rng.integers(classes, size=shape)
        given = torch.from_numpy(drawn), torch.from_numpy(regions)
        ours = hard_vote(*given).numpy()
        assert np.array_equal(given[0], drawn) and np.array_equal(given[1], regions)
        for image, own in enumerate(regions):
            np.testing.assert_array_equal(ours[image], voted(drawn[image], own))
            for region in range(own.max() + 1):
                counts = np.bincount(drawn[image][own == region])
                ties += bool(counts.any()) and int((counts == counts.max()).sum() > 1)
            images += 1
    assert images > 250 and (ties > 40 or classes == 1)


CLOSE = 1e-6  # of the largest logit: float32 keeps no more of a mean


@pytest.mark.parametrize("names", [1, 2, 9, 60])
def test_soft_votes_of_batches(names):
    """Means within float32's rounding; each region's class that of the slow path, but for regions
    whose two best means are closer than that: few."""
    rng, close, voting = np.random.default_rng([10, names]), 0, 0
    for case in range(40):
        batch, grid = int(rng.choice([1, 2, 3, 5])), [(3, 3), (7, 5), (1, 4), (9, 9)][case % 4]
        shape = (batch, int(rng.integers(3, 30)), int(rng.integers(3, 30)))
        logits = torch.from_numpy(rng.normal(size=(batch, names, *grid)).astype(np.float32) * 20)
        owner = torch.from_numpy(rng.integers(names, size=names))
        classes = torch.from_numpy(rng.integers(names, size=shape))
        regions = drawn_regions(rng, shape)
        ours = soft_vote(logits, owner, classes, torch.from_numpy(regions)).numpy()
        for image, own in enumerate(regions):
            expected, largest = classes[image].numpy().copy(), float(logits[image].abs().max())
            if own.max() >= 0:
                slow = means(logits[image], own)
                one = logits[image : image + 1], torch.from_numpy(own)[None]
                fast = region_means(*one)[0].numpy()
                np.testing.assert_allclose(fast, slow, rtol=0, atol=CLOSE * largest)
            for region in np.unique(own[own >= 0]):
                ordered = np.sort(slow[region])
                if names > 1 and ordered[-1] - ordered[-2] <= CLOSE * largest:
                    close += 1
                    expected[own == region] = ours[image][own == region]
                else:
                    expected[own == region] = owner[int(slow[region].argmax())]
                voting += 1
            np.testing.assert_array_equal(ours[image], expected)
    assert voting > 1000 and close <= voting // 500


def test_doubled_names_are_the_first_in_a_soft_vote():
    """Whatever number of names there is: the mean of a map does not hang on its place."""
    rng = np.random.default_rng(11)
    for names in (*range(2, 40), 150, 171, 847):
        one = torch.from_numpy(rng.normal(size=(1, 1, 5, 6)).astype(np.float32))
        logits = one.expand(1, names, 5, 6).contiguous()
        regions = torch.from_numpy(rng.integers(0, 7, (1, 20, 24)))
        classes = torch.full((1, 20, 24), names)
        assert not soft_vote(logits, torch.arange(names), classes, regions).any(), names
