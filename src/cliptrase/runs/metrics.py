"""One confusion matrix, and every metric that the field computes from it.

All rules need only three numbers a class: pixels hit (`tp`), in the ground truth (`gt`), and
predicted (`pred`), so they take those, with any axes before the last: one run, or 1,000 resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.schema import METRICS as METRICS
from cliptrase.config.schema import RULES as RULES

SMOOTHING = 0.01  # released code: every ratio of rule `cliptrase` has it below the line

Counts = NDArray[Any]  # whole numbers of pixels, as int or as float64


@dataclass(frozen=True)
class GroundTruth:
    """The scored pixels of one image, ready to be compared with many predictions.

    `rows` (P,) int64: class · K of each scored pixel; `scored` (H·W,) bool, None where all are.
    """

    rows: NDArray[np.int64]
    scored: NDArray[np.bool_] | None
    classes: int

    @classmethod
    def of(cls, labels: NDArray[np.integer], classes: int) -> GroundTruth:
        """`labels` (H, W); what is not in 0..classes-1 is left out."""
        flat = labels.reshape(-1).astype(np.int64)
        scored = (flat >= 0) & (flat < classes)
        if scored.all():
            return cls(flat * classes, None, classes)
        return cls(flat[scored] * classes, scored, classes)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class (P,) of each scored pixel."""
        return self.rows // self.classes

    def confusion(self, prediction: NDArray[np.integer]) -> NDArray[np.int64]:
        """(K, K) int64, rows = ground truth, of a `prediction` (H, W) in 0..K-1.

        Raises ValueError where a scored pixel is predicted as anything else.
        """
        k = self.classes
        return np.bincount(self.rows + self._predicted(prediction), minlength=k * k).reshape(k, k)

    def columns(
        self, prediction: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The columns (K, m) of `confusion` that are not 0, and maybe others, and their classes
        (m,): of many classes few are predicted, and the whole matrix takes longer to look through
        than the picture."""
        predicted, k = self._predicted(prediction), self.classes
        if k * k <= predicted.size:
            return self.confusion(prediction), np.arange(k)
        there = np.zeros(k, np.bool_)
        there[predicted] = True
        classes = np.flatnonzero(there)
        place = there.cumsum() - 1
        cells = self.labels * len(classes) + place[predicted]
        table = np.bincount(cells, minlength=k * len(classes))
        return table.reshape(k, len(classes)), classes

    def _predicted(self, prediction: NDArray[np.integer]) -> NDArray[np.integer]:
        """Predicted class (P,) of each scored pixel."""
        flat = prediction.reshape(-1)
        predicted = flat if self.scored is None else flat[self.scored]
        k = self.classes
        if predicted.size and not (predicted.min() >= 0 and predicted.max() < k):
            raise ValueError(f"a prediction is outside 0..{k - 1}")
        return predicted


def confusion(
    labels: NDArray[np.integer], prediction: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """(K, K) int64, rows = ground truth; pixels labelled outside 0..K-1 are left out."""
    return GroundTruth.of(labels, classes).confusion(prediction)


def class_counts(matrix: Counts) -> tuple[Counts, Counts, Counts]:
    """tp, gt, pred (K,) of a confusion matrix (K, K)."""
    return np.diagonal(matrix).copy(), matrix.sum(axis=1), matrix.sum(axis=0)


def class_iou(rule: str, tp: Counts, gt: Counts, pred: Counts) -> NDArray[np.float64]:
    """IoU of each class (..., K) in per cent, NaN for a class that the rule leaves out of mIoU.

    mmseg leaves out a class that is neither in the ground truth nor predicted; the others leave
    out every class that is not in the ground truth.
    """
    _check(rule)
    union = (gt + pred - tp).astype(np.float64)
    counted = union > 0 if rule == "mmseg" else gt > 0
    if rule == "cliptrase":
        union += SMOOTHING
    return np.divide(100.0 * tp, union, out=np.full(union.shape, np.nan), where=counted)


def scores(rule: str, tp: Counts, gt: Counts, pred: Counts) -> dict[str, NDArray[np.float64]]:
    """pAcc, mAcc, fwIoU, mIoU in per cent, of counts (..., K); NaN where no pixel is scored.

    cliptrase: IoU = TP/(TP+FP+FN+0.01); mIoU over the classes of the ground truth, mAcc over ALL
      classes, absent ones counting 0 (released code).
    mmseg: means over the classes where the ratio exists (mmseg's IoUMetric, a nanmean).
    detectron2_v06: Σ IoU over ground-truth classes / classes in ground truth or prediction
      (SemSegEvaluator up to July 2022).
    detectron2: mean over ground-truth classes (SemSegEvaluator since).
    fwIoU, which mmseg has not, is weighted by ground-truth pixels in every rule.
    """
    iou = class_iou(rule, tp, gt, pred)
    present = gt > 0
    total = gt.sum(axis=-1)
    in_truth = present.sum(axis=-1)
    found = np.where(np.isnan(iou), 0.0, iou)
    hits = 100.0 * tp
    if rule == "cliptrase":
        accuracy = (hits / (gt + SMOOTHING)).sum(axis=-1)
        accuracy_over = np.where(total > 0, gt.shape[-1], 0)
    else:
        accuracy = np.divide(hits, gt, out=np.zeros(gt.shape), where=present).sum(axis=-1)
        accuracy_over = in_truth
    either = ((gt + pred) > 0).sum(axis=-1)
    iou_over = np.where(total > 0, either, 0) if rule in ("mmseg", "detectron2_v06") else in_truth
    return {
        "pAcc": _ratio(hits.sum(axis=-1), total),
        "mAcc": _ratio(accuracy, accuracy_over),
        "fwIoU": _ratio((gt * np.where(present, found, 0.0)).sum(axis=-1), total),
        "mIoU": _ratio(found.sum(axis=-1), iou_over),
    }


def _ratio(above: NDArray[np.float64], below: Counts) -> NDArray[np.float64]:
    above = np.asarray(above, dtype=np.float64)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=np.asarray(below) > 0)


def _check(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}: one of {', '.join(RULES)}")
