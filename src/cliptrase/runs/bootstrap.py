"""How far a score could have fallen otherwise: a bootstrap over the images of a benchmark.

1,000 resamples, the same for every run over the same number of images, so that differences are
paired. Skipped images stay in, as rows of zeros: benchmarks over the same images share resamples.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.metric_names import LOST
from cliptrase.runs.metrics import lost, scores

RESAMPLES = 1000
SEED = 20240711
LOW, MIDDLE, HIGH = 0.025, 0.5, 0.975

BLOCK = 256  # images whose counts are summed at once

Counts = NDArray[np.int32]  # (images, K)
Values = NDArray[np.float64]


@functools.lru_cache(maxsize=8)
def weights(images: int) -> NDArray[np.uint8]:
    """How often each image stands in each resample: (1000, images), rows add up to `images`.

    Draws with replacement: an image's index is the upper half of PCG64's raw 64 bits scaled to
    0..images-1 (NumPy promises the bits of a bit generator for ever, `Generator.integers` not).
    """
    bits, table = np.random.PCG64(SEED), np.empty((RESAMPLES, images), np.uint8)
    for row in table:
        drawn = ((bits.random_raw(images) >> np.uint64(32)) * np.uint64(images)) >> np.uint64(32)
        row[:] = np.bincount(drawn.astype(np.int64), minlength=images)
    table.flags.writeable = False
    return table


def resampled(rule: str, tp: Counts, gt: Counts, pred: Counts) -> dict[str, Values]:
    """Each metric of each resample and the share of pixels that are lost, (1000,) in per cent, of
    counts (images, K).

    NaN where a resample holds no scored pixel.
    """
    sums = totals(tp, gt, pred)
    return {**scores(rule, *sums), LOST: lost(*sums[1:])}


def totals(tp: Counts, gt: Counts, pred: Counts) -> list[Values]:
    """The counts (images, K) of each resample added up, (1000, K) each.

    They are whole numbers below 2^53, so float64 products are exact in any order, on any number of
    threads, and for a few images at a time.
    """
    images, classes = tp.shape
    table, sums = weights(images), np.zeros((RESAMPLES, 3 * classes))
    for start in range(0, images, BLOCK):
        some = slice(start, start + BLOCK)
        stacked = np.concatenate([tp[some], gt[some], pred[some]], axis=1, dtype=np.float64)
        sums += table[:, some].astype(np.float64) @ stacked
    return np.split(sums, [classes, 2 * classes], axis=1)


def interval(point: float, values: Values) -> tuple[float, float]:
    """95 % interval of a metric: point + (quantile − median) of its resamples, within 0..100.

    It always holds the point; a plain percentile interval misses it when rare classes vanish from
    a resample. NaN, NaN where nothing was scored.
    """
    low, high = _around(point, values)
    return float(np.clip(low, 0.0, 100.0)), float(np.clip(high, 0.0, 100.0))


def difference(
    point: float, values: Values, versus: float, versus_values: Values
) -> tuple[float, float, float]:
    """point − versus with its 95 % interval from the same resamples, not clipped."""
    gap = point - versus
    return (gap, *_around(gap, values - versus_values))


def _around(point: float, values: Values) -> tuple[float, float]:
    kept = values[~np.isnan(values)]
    if not kept.size:
        return float("nan"), float("nan")
    low, middle, high = np.quantile(kept, [LOW, MIDDLE, HIGH])
    # in this order low ≤ point ≤ high holds to the last bit
    return float(point + (low - middle)), float(point + (high - middle))
