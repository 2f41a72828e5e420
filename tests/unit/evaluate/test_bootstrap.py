"""Intervals: against resampling written out by hand, and what they must always hold."""

import hashlib

import numpy as np
import pytest

from cliptrase.config.metric_names import METRICS, RULES
from cliptrase.runs import bootstrap
from cliptrase.runs.metrics import scores


def counts(images, classes, seed=0, rare=False):
    """tp, gt, pred (images, classes) as of real images; `rare`: most classes in one image only."""
    rng = np.random.Generator(np.random.PCG64(seed))
    gt = rng.integers(1, 500, (images, classes))
    if rare:
        gt[rng.random(gt.shape) < 0.9] = 0
        gt[np.arange(classes) % images, np.arange(classes)] = 300
    tp = (gt * rng.random(gt.shape)).astype(np.int64)
    return tp, gt, tp + rng.integers(0, 200, gt.shape)


def test_resampled_scores_are_those_of_the_drawn_images():
    images = counts(13, 5)
    found = bootstrap.resampled("cliptrase", *images)
    for resample in (0, 1, 500, 999):
        drawn = np.repeat(np.arange(13), bootstrap.weights(13)[resample])
        assert len(drawn) == 13
        summed = [part[drawn].sum(axis=0) for part in images]
        for metric in METRICS:
            assert found[metric][resample] == pytest.approx(
                float(scores("cliptrase", *summed)[metric]), rel=1e-12
            )


def test_resamples_are_draws_with_replacement():
    weights = bootstrap.weights(50)
    assert weights.shape == (1000, 50)
    assert (weights.sum(axis=1) == 50).all()
    # each image: 1,000 binomials of mean 1 and variance 0.98; over all, the mean must be 1
    assert weights.mean(axis=0) == pytest.approx(1, abs=5 * (0.98 / 1000) ** 0.5)
    assert weights.var() == pytest.approx(0.98, abs=0.02)
    assert len(np.unique(weights, axis=0)) == 1000


def test_resamples_never_change():
    """The published intervals hang on them; the bits of PCG64 are NumPy's promise."""
    digest = hashlib.sha256(bootstrap.weights(200).astype("<i4").tobytes()).hexdigest()
    assert digest[:16] == "fd68862405c909f6"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rare", [False, True])
def test_an_interval_holds_its_point(rule, rare):
    images = counts(20, 30, rare=rare)
    values = bootstrap.resampled(rule, *images)
    for metric, point in scores(rule, *(part.sum(axis=0) for part in images)).items():
        low, high = bootstrap.interval(float(point), values[metric])
        assert 0 <= low <= point <= high <= 100
        assert high - low > 0.1


def test_an_interval_is_the_quantiles_around_the_point():
    values = np.arange(1001) / 10
    assert bootstrap.interval(40.0, values) == (0.0, pytest.approx(87.5))
    assert bootstrap.interval(60.0, values) == (pytest.approx(12.5), 100.0)
    assert bootstrap.difference(-20.0, values, 0.0, np.zeros(1001)) == pytest.approx(
        (-20, -67.5, 27.5)
    )


def test_a_paired_difference_is_narrower_than_two_intervals():
    tp, gt, pred = counts(60, 8)
    better = (tp + (gt - tp) // 10, gt, pred)
    points = [
        float(scores("cliptrase", *(part.sum(axis=0) for part in one))["mIoU"])
        for one in (better, (tp, gt, pred))
    ]
    values = [bootstrap.resampled("cliptrase", *one)["mIoU"] for one in (better, (tp, gt, pred))]
    gap, low, high = bootstrap.difference(points[0], values[0], points[1], values[1])
    assert gap == points[0] - points[1] and 0 < low < gap < high
    alone = bootstrap.interval(points[1], values[1])
    assert high - low < (alone[1] - alone[0]) / 2


def test_the_same_run_differs_from_itself_by_nothing():
    values = bootstrap.resampled("mmseg", *counts(9, 3))["mIoU"]
    assert bootstrap.difference(31.0, values, 31.0, values) == (0.0, 0.0, 0.0)


def test_an_average_is_taken_within_each_resample():
    one, two = (bootstrap.resampled("cliptrase", *counts(n, 4, n))["mIoU"] for n in (8, 11))
    mean = np.mean([one, two], axis=0)
    low, high = bootstrap.interval(float(mean.mean()), mean)
    assert high - low < np.mean([np.ptp(np.quantile(v, [0.025, 0.975])) for v in (one, two)])


def test_resamples_without_a_scored_pixel_are_left_out():
    tp, gt, pred = (
        np.array([[4, 2], [0, 0]]),
        np.array([[5, 5], [0, 0]]),
        np.array([[6, 4], [0, 0]]),
    )
    values = bootstrap.resampled("cliptrase", tp, gt, pred)["pAcc"]
    assert 150 < np.isnan(values).sum() < 350  # a quarter of the draws takes the empty image twice
    assert bootstrap.interval(60.0, values) == pytest.approx((60.0, 60.0))
    nothing = np.full(1000, np.nan)
    assert np.isnan(bootstrap.interval(float("nan"), nothing)).all()
