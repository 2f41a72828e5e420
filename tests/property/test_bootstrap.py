"""Intervals and differences for whatever counts come: rare classes, one image, skipped images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cliptrase.config.metric_names import METRICS, RULES
from cliptrase.runs import bootstrap
from cliptrase.runs.metrics import scores

PIXELS = st.sampled_from([0, 0, 0, 0, 1, 7, 300, 10**6])  # many classes are in few images
EXAMPLES = settings(deadline=None, max_examples=60)


def matrices(images: int, classes: int) -> Any:
    """Confusion matrices of images, rows the ground truth; one of zeros is a skipped image."""
    return arrays(np.int64, (images, classes, classes), elements=PIXELS)


SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5))
BENCHMARK = SHAPES.flatmap(lambda shape: matrices(*shape))
PAIR = SHAPES.flatmap(lambda shape: st.tuples(matrices(*shape), matrices(*shape)))


def counts(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tp, gt, pred (images, K)."""
    return np.diagonal(images, axis1=1, axis2=2).copy(), images.sum(axis=2), images.sum(axis=1)


def point(rule: str, metric: str, images: np.ndarray) -> float:
    return float(scores(rule, *(part.sum(axis=0) for part in counts(images)))[metric])


@pytest.mark.parametrize("rule", RULES)
@EXAMPLES
@given(BENCHMARK)
def test_an_interval_brackets_its_point(rule, images):
    values = bootstrap.resampled(rule, *counts(images))
    for metric in METRICS:
        value = point(rule, metric, images)
        low, high = bootstrap.interval(value, values[metric])
        if images.any():
            assert 0 <= low <= value <= high <= 100
        else:
            assert math.isnan(low) and math.isnan(high) and math.isnan(value)
        if len(images) == 1 and images.any():
            assert low == value == high  # one image cannot be drawn otherwise


@EXAMPLES
@given(st.floats(0, 100), st.floats(0, 100), st.integers(1, 1000))
def test_an_interval_brackets_its_point_to_the_last_bit(value, other, ties):
    """Also where the resamples are alike and far from the point."""
    values = np.full(1000, other)
    values[ties:] = np.nan
    low, high = bootstrap.interval(value, values)
    assert low == value == high
    gap, low, high = bootstrap.difference(value, values, other, np.zeros(1000))
    assert gap == low == high == value - other


def test_an_interval_holds_a_point_that_no_resample_reaches():
    """One class right everywhere, thirty missed ones in an image each: a resample misses fewer."""
    images = np.zeros((30, 31, 31), np.int64)
    images[:, 0, 0] = 900
    images[range(30), range(1, 31), 0] = 1
    value = point("cliptrase", "mIoU", images)
    values = bootstrap.resampled("cliptrase", *counts(images))["mIoU"]
    assert values.min() > value  # so a plain percentile interval would miss it
    low, high = bootstrap.interval(value, values)
    assert low < value < high and high - low > 1


@EXAMPLES
@given(PAIR, st.sampled_from(RULES), st.sampled_from(METRICS))
def test_a_difference_to_itself_is_nothing_and_to_another_changes_sign(pair, rule, metric):
    runs = [
        (point(rule, metric, images), bootstrap.resampled(rule, *counts(images))[metric])
        for images in pair
    ]
    for (own, values), images in zip(runs, pair, strict=True):
        nothing = bootstrap.difference(own, values, own, values)
        if images.any():
            assert nothing == (0.0, 0.0, 0.0)
        else:
            assert np.isnan(nothing).all()
    gap, low, high = bootstrap.difference(*runs[0], *runs[1])
    back, back_low, back_high = bootstrap.difference(*runs[1], *runs[0])
    assert (back, back_low, back_high) == pytest.approx((-gap, -high, -low), abs=1e-9, nan_ok=True)
    assert math.isnan(low) or low <= gap <= high


@EXAMPLES
@given(BENCHMARK, st.randoms(use_true_random=False))
def test_renaming_the_classes_changes_no_interval(images, random):
    order = list(range(images.shape[1]))
    random.shuffle(order)
    for rule in RULES:
        before, after = (
            bootstrap.resampled(rule, *counts(each))
            for each in (images, images[:, order][:, :, order])
        )
        for metric in METRICS:
            np.testing.assert_allclose(after[metric], before[metric], rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- by hand


def drawn(images: int) -> list[list[int]]:
    """Images of each of the 1,000 resamples, from PCG64's raw bits in plain Python."""
    raw = iter(np.random.PCG64(20240711).random_raw(1000 * images).tolist())
    return [[(next(raw) >> 32) * images >> 32 for _ in range(images)] for _ in range(1000)]


def mean_iou(matrix: list[list[int]]) -> float:
    """Rule cliptrase: over the classes of the ground truth, 0.01 below the line."""
    names = range(len(matrix))
    ious = []
    for name in names:
        truth, said = sum(matrix[name]), sum(matrix[row][name] for row in names)
        if truth:
            ious.append(100 * matrix[name][name] / (truth + said - matrix[name][name] + 0.01))
    return sum(ious) / len(ious)


def quantile(values: list[float], share: float) -> float:
    place = share * (len(values) - 1)
    below = math.floor(place)
    low, high = sorted(values)[below : below + 2]
    return low + (place - below) * (high - low)


def benchmark(seed: int, images: int, classes: int) -> np.ndarray:
    """Matrices of images with a few classes each; the first image is skipped."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 50, (images, classes, classes)) + 100 * np.eye(classes, dtype=int)
    made[rng.random((images, classes)) < 0.6] = 0  # rows: classes that are not in an image
    made[:, 0, 0] += 1
    made[0] = 0
    return made


def test_the_interval_of_an_average_is_that_of_the_mean_in_each_resample():
    suite = [benchmark(1, 7, 4), benchmark(2, 12, 6), benchmark(3, 9, 3)]
    per_benchmark = []
    for images in suite:
        values = []
        for chosen in drawn(len(images)):
            total = images[chosen].sum(axis=0).tolist()
            values.append(mean_iou(total))
        per_benchmark.append(values)
    means = [sum(together) / len(suite) for together in zip(*per_benchmark, strict=True)]
    value = sum(mean_iou(images.sum(axis=0).tolist()) for images in suite) / len(suite)
    median = quantile(means, 0.5)
    expected = [value + quantile(means, share) - median for share in (0.025, 0.975)]

    resampled = [bootstrap.resampled("cliptrase", *counts(images))["mIoU"] for images in suite]
    for ours, values in zip(resampled, per_benchmark, strict=True):
        np.testing.assert_allclose(ours, values, rtol=1e-12)
    found = bootstrap.interval(value, np.mean(resampled, axis=0))
    assert found == pytest.approx(expected, rel=1e-9)
    alone = [np.ptp(np.quantile(values, [0.025, 0.975])) for values in per_benchmark]
    assert 0 < found[1] - found[0] < max(alone)  # benchmarks' own luck evens out
