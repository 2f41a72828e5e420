"""What the ledger of a run's errors says: per cent, with what the bootstrap's resamples would give.

By the names of `OF_LEDGER`: shares of wrong pixels, boundary IoU, mIoU of the oracles; and how far
the logits of a method can be trusted, which the ledger does not have by image: without intervals.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.error_names import CATEGORIES
from cliptrase.runs import bootstrap
from cliptrase.runs.counts import ImageCounts
from cliptrase.runs.finished import LEDGER
from cliptrase.runs.ledger import BINS, ORACLES, Ledger
from cliptrase.runs.metrics import scores
from cliptrase.runs.scoring import of_arrays

Values = NDArray[np.float64]
BORDERS = ("tp", "gt", "pred")
GROUPS = 15  # of confidence, as calibration errors are usually told
COVERAGES = 1000


@dataclass(frozen=True, eq=False)
class Errors:
    """points: each name of OF_LEDGER in per cent, None where no pixel is scored, or where no logit
    of a pixel decides. resampled: the same in each resample, (1000,), but for OF_LOGITS."""

    points: dict[str, float | None]
    resampled: dict[str, Values]

    def interval(self, name: str) -> tuple[float | None, float | None]:
        """Its 95 % interval, None, None where there is none."""
        point = self.points[name]
        if point is None or name not in self.resampled:
            return None, None
        return bootstrap.interval(point, self.resampled[name])


def read_ledger(folder: Path) -> Ledger | None:
    """ledger.npz of a run folder; None where the run keeps none. Raises UserError naming a file
    that is damaged."""
    path = folder / LEDGER
    return of_arrays(path, Ledger) if path.exists() else None


def errors_of(ledger: Ledger, counts: ImageCounts, rule: str) -> Errors:
    """The ledger of a run in per cent, under a metric rule where there is a mean over classes."""
    shape = counts.gt.shape
    wrong = np.stack([ledger.table(name, shape).sum(axis=1) for name in CATEGORIES], axis=1)
    scored = np.broadcast_to(counts.gt.sum(axis=1)[:, None], wrong.shape)
    shares = _share(wrong.sum(axis=0), scored.sum(axis=0))
    points = dict(zip(CATEGORIES, shares, strict=True))
    shares = _share(*bootstrap.totals(wrong, scored, wrong)[:2])  # of each resample
    resampled = dict(zip(CATEGORIES, shares.T, strict=True))
    tables = {"boundary_IoU": [ledger.table(f"border_{each}", shape) for each in BORDERS]}
    for oracle in ORACLES:
        hit, predicted = (ledger.table(f"{oracle}_{each}", shape) for each in ("tp", "pred"))
        tables[oracle] = [hit, counts.gt, predicted]
    for name, of in tables.items():
        points[name] = scores(rule, *(table.sum(axis=0) for table in of))["mIoU"]
        resampled[name] = bootstrap.resampled(rule, *of)["mIoU"]
    groups = reliability(ledger.by_confidence)
    points["ECE"] = np.nansum(groups.pixels * abs(groups.right - groups.confidence))
    points["ECE"] /= groups.pixels.sum() or np.nan
    points["AURC"] = risk(ledger.by_confidence).mean()
    points["AUROC"] = auroc(ledger.by_best)
    plain = {name: None if np.isnan(point) else float(point) for name, point in points.items()}
    return Errors(plain, resampled)


class Reliability(NamedTuple):
    """Pixels in GROUPS of equal width of their confidence; right and confidence in per cent, NaN of
    an empty group."""

    pixels: NDArray[np.int64]
    right: Values
    confidence: Values


def reliability(counted: NDArray[np.int64]) -> Reliability:
    """Of pixels by confidence, wrong and right ones (2, BINS), each taken for the middle of its
    bin."""
    middles = (np.arange(BINS) + 0.5) / BINS
    pixels = counted.sum(axis=0).reshape(GROUPS, -1)
    right = counted[1].reshape(GROUPS, -1).sum(axis=1)
    total = pixels.sum(axis=1)
    confidence = (pixels * middles.reshape(GROUPS, -1)).sum(axis=1)
    return Reliability(total, _share(right, total), _share(confidence, total))


def risk(counted: NDArray[np.int64]) -> Values:
    """The share of wrong pixels, in per cent, among the most confident ones, (COVERAGES,): among
    1/1000 of the pixels, 2/1000, … all; NaN without pixels. `counted` as of `reliability`."""
    surest_first = counted[:, ::-1].cumsum(axis=1)
    covered = np.arange(1, COVERAGES + 1) / COVERAGES * counted.sum()
    every = np.concatenate([[0], surest_first.sum(axis=0)])
    wrong = np.interp(covered, every, np.concatenate([[0], surest_first[0]]))  # ties: their mean
    return _share(wrong, covered)


def auroc(counted: NDArray[np.int64]) -> float:
    """How often the largest logit of an object is lower in a pixel of the background than in one of
    an object, ties half, in per cent; NaN where there is none of either. `counted` (2, HALVES)."""
    objects, background = counted
    lower = background.cumsum() - background / 2
    pairs = objects.sum() * background.sum()
    return float(100 * (objects * lower).sum() / pairs) if pairs else float("nan")


def _share(some: NDArray, of: NDArray) -> Values:
    """Per cent, NaN of nothing."""
    return np.divide(100.0 * some, of, out=np.full(some.shape, np.nan), where=of > 0)
