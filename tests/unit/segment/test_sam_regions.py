"""Clusters prompt SAM with their patches; its masks become regions, as loops over pixels make them.

Masks are planted by replacing `decode`: what a SAM makes of its prompts is tested elsewhere.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from random_sams import random_sam

from cliptrase.config.method_regions import SamOptions
from cliptrase.config.validation import validated
from cliptrase.errors import UserError
from cliptrase.model.sam import embed, frame
from cliptrase.segment import sam_regions as module
from cliptrase.segment import ways
from cliptrase.segment.sam_regions import farthest_points, prompts, sam_regions
from cliptrase.segment.vote import hard_vote, soft_vote

SIDE = 24  # of planted masks, of the frame and of the picture: no resize moves a value


@pytest.fixture(scope="module")
def sam():
    return random_sam()


def test_every_cluster_is_prompted_with_the_patches_of_all():
    clusters = np.array([0, 0, 1, -1, 2, 1, -1, 2, 2, 1, 0, -1])
    grid, framed = (3, 4), (48, 64)
    points, labels = prompts(clusters, grid, framed)
    expected_points, expected_labels = [], [[], [], []]
    for row in range(3):
        for column in range(4):
            cluster = clusters[row * 4 + column]
            if cluster >= 0:
                expected_points.append([(column + 0.5) * 16 - 0.5, (row + 0.5) * 16 - 0.5])
                for prompt in range(3):
                    expected_labels[prompt].append(int(cluster == prompt))
    assert (points.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(points, expected_points)
    np.testing.assert_array_equal(labels, expected_labels)


def test_one_cluster_of_all_patches_has_no_negative_point():
    points, labels = prompts(np.zeros(6, dtype=np.int64), (2, 3), (64, 96))
    assert points.shape == (6, 2) and labels.tolist() == [[1] * 6]


def spread_out(places: list[tuple[int, int]], most: int) -> list[int]:
    """The definition of farthest-point sampling, place by place."""
    mean = [sum(place[axis] for place in places) / len(places) for axis in (0, 1)]

    def squared(a, b):
        return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2

    chosen: list[int] = []
    while len(chosen) < min(most, len(places)):
        best = -1
        for index, place in enumerate(places):
            if (
                not chosen
            ):  # the nearest to the mean; sums of halves and thirds tie but for rounding
                better = best < 0 or squared(place, mean) < squared(places[best], mean) - 1e-9
            else:
                own = min(squared(place, places[one]) for one in chosen)
                then = min(squared(places[best], places[one]) for one in chosen)
                better = best < 0 or own > then
            best = index if better else best
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("most", [1, 2, 5, 16, 200])
def test_points_of_a_cluster_are_spread_out(most):
    rng = np.random.default_rng(most)
    for size in (1, 2, 4, 9, 40):
        flat = np.sort(rng.choice(144, size, replace=False))
        places = np.stack(np.divmod(flat, 12), axis=1)
        assert farthest_points(places, most) == spread_out(list(map(tuple, places)), most)


def test_the_lowest_of_points_that_tie_comes_first():
    square = np.array([[0, 0], [0, 2], [2, 0], [2, 2]])  # all as near to the mean
    assert farthest_points(square, 4) == [0, 3, 1, 2]


def test_the_points_of_one_are_the_negatives_of_the_others():
    clusters = np.array([0, 0, 0, 0, 1, 1, -1, 1, 1, 1, 1, 1])
    points, labels = prompts(clusters, (3, 4), (48, 64), 2)
    # of cluster 0 its second patch, and the fourth; of cluster 1 (mean 1.71, 1.57) patch 9 and 7
    x, y = points.T
    assert (np.rint((y - 7.5) / 16) * 4 + np.rint((x - 7.5) / 16)).tolist() == [1, 3, 7, 9]
    assert labels.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


class Planted:
    """A SAM whose masks and predicted IoUs are given; `asked`: how many prompts at a time."""

    def __init__(self, monkeypatch, logits: np.ndarray, ious: np.ndarray):
        self.logits, self.ious = torch.from_numpy(logits), torch.from_numpy(ious)
        self.asked: list[int] = []
        self.sam: Any = SimpleNamespace(side=SIDE, device=torch.device("cpu"))
        monkeypatch.setattr(module, "decode", self.decode)

    def decode(self, sam, embedding, points, labels, *, multimask):
        first = int(sum(self.asked))
        self.asked.append(len(labels))
        some = slice(first, first + len(labels))
        return self.logits[some], self.ious[some]

    def regions(self, **options) -> np.ndarray:
        self.asked.clear()
        clusters = np.arange(36) % (len(self.ious) + 1) - 1
        size = (SIDE, SIDE)
        given = self.sam, torch.zeros(1), clusters, (6, 6), size, size, SamOptions(**options)
        return sam_regions(*given).numpy()


def by_loop(logits: np.ndarray, ious: np.ndarray, score: str, threshold: float) -> np.ndarray:
    """The region of every pixel, pixel by pixel."""
    regions = np.full(logits.shape[1:], -1)
    for row, column in np.ndindex(regions.shape):
        best = None
        for cluster, mask in enumerate(logits):
            value = mask[row, column] if score == "logit" else ious[cluster]
            if mask[row, column] > threshold and (best is None or value > best):
                best, regions[row, column] = value, cluster
    return regions


def planted(seed: int, clusters: int = 19) -> tuple[np.ndarray, np.ndarray]:
    """Logits (K, S, S) of few values, of which 0 is one, a mask that misses, a corner where all
    do, and predicted IoUs (K,) that tie."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(-6, 3, (clusters, SIDE, SIDE)).astype(np.float32) / 2
    logits[1] = -1
    logits[:, :5, :5] = -np.abs(logits[:, :5, :5])
    ious = rng.integers(-1, 3, clusters).astype(np.float32) / 4
    ious[0] = ious[2] = ious.max()
    return logits, ious


@pytest.mark.parametrize("score", ["iou", "logit"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, -1.5, 9.0])
def test_regions_are_those_of_a_loop_over_the_pixels(monkeypatch, score, threshold):
    for seed in range(3):
        logits, ious = planted(seed)
        ours = Planted(monkeypatch, logits, ious).regions(score=score, threshold=threshold)
        np.testing.assert_array_equal(ours, by_loop(logits, ious, score, threshold))
        if threshold == 0:
            assert (ours[:5, :5] == -1).all() and 1 not in ours and 0 in ours
        if threshold == 9:
            assert (ours == -1).all()


@pytest.mark.parametrize("score", ["iou", "logit"])
def test_a_gpu_decodes_eight_prompts_at_once_to_the_same_regions(monkeypatch, score):
    logits, ious = planted(4)
    planted_sam = Planted(monkeypatch, logits, ious)
    one_by_one = planted_sam.regions(score=score)
    assert planted_sam.asked == [1] * 19
    monkeypatch.setattr(ways, "one_by_one", lambda device: False)
    np.testing.assert_array_equal(planted_sam.regions(score=score), one_by_one)
    assert planted_sam.asked == [8, 8, 3]


def test_without_clusters_sam_is_not_run():
    sam: Any = SimpleNamespace(side=SIDE, device=torch.device("cpu"))
    clusters, size = np.full(4, -1), (20, 30)
    none = sam_regions(sam, torch.zeros(1), clusters, (2, 2), (8, 8), size, SamOptions())
    assert none.shape == size and none.dtype == torch.int64 and (none == -1).all()


def embedded(sam, seed: int = 0) -> tuple[torch.Tensor, tuple[int, int]]:
    rng = np.random.default_rng(seed)
    picture = np.kron(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    return embed(sam, frame(picture, sam.side)[0]), picture.shape[:2]


@pytest.mark.parametrize("options", [{}, {"points": 3}, {"multimask": True}, {"score": "logit"}])
def test_numbers_of_clusters_do_not_change_the_partition(sam, options):
    embedding, size = embedded(sam)
    clusters = np.random.default_rng(1).integers(-1, 4, 12)
    assert set(clusters) == {-1, 0, 1, 2, 3}
    order = np.array([2, 0, 3, 1, -1])  # −1 stays
    rest = (3, 4), size, size, SamOptions(**options)
    ours = sam_regions(sam, embedding, clusters, *rest).numpy()
    renamed = sam_regions(sam, embedding, order[clusters], *rest).numpy()
    assert len(np.unique(ours)) > 2
    np.testing.assert_array_equal(renamed, order[ours])


def test_options_at_their_limits():
    ok = {"points": 1, "sees": "original", "multimask": True, "score": "logit", "threshold": -2}
    assert validated(SamOptions, ok).threshold == -2
    assert validated(SamOptions, {}) == SamOptions()
    for wrong, fault in (
        ({"points": 0}, "points=0: must be all, or a whole number, 1 or more"),
        ({"points": True}, "points=true: must be all"),
        ({"points": "some"}, "points=some: must be all"),
        ({"sees": "crop"}, "sees=crop: unknown value; There is: network, original"),
        ({"multimask": 1}, "multimask=1: unknown value"),
        ({"score": "IoU"}, "score=IoU: unknown value; There is: iou, logit"),
        ({"threshold": float("nan")}, "threshold=nan: must be a number"),
        ({"threshold": True}, "threshold=true: must be a number"),
        ({"point": 3}, "did you mean 'points'"),
    ):
        with pytest.raises(UserError) as refused:
            validated(SamOptions, wrong, "method.regions.sam")
        assert "method.regions.sam." in str(refused.value) and fault in str(refused.value)


def test_pixels_without_a_region_keep_their_class():
    """The votes, pixel by pixel: two images, one of them without any region."""
    rng = np.random.default_rng(5)
    classes = rng.integers(0, 3, (2, 12, 16))
    regions = rng.integers(-1, 3, (2, 12, 16))
    regions[1] = -1
    logits = rng.normal(size=(2, 3, 3, 4)).astype(np.float32)
    given = torch.from_numpy(classes), torch.from_numpy(regions)
    ours = hard_vote(*given).numpy()
    expected = classes.copy()
    for region in range(3):
        inside = regions[0] == region
        expected[0][inside] = np.bincount(classes[0][inside], minlength=3).argmax()
    np.testing.assert_array_equal(ours, expected)
    fine = torch.nn.functional.interpolate(
        torch.from_numpy(logits).double(), size=(12, 16), mode="bilinear"
    ).numpy()
    expected = classes.copy()
    for region in range(3):
        inside = regions[0] == region
        expected[0][inside] = fine[0][:, inside].mean(axis=1).argmax()
    ours = soft_vote(torch.from_numpy(logits), torch.arange(3), *given).numpy()
    np.testing.assert_array_equal(ours, expected)
