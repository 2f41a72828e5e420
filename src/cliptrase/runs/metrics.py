"""Every metric that the field computes from a confusion matrix.

All rules need only three numbers a class: pixels hit (`tp`), in the ground truth (`gt`), and
predicted (`pred`), so they take those, with any axes before the last: one run, or 1,000 resamples.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMOOTHING = 0.01  # released code: every ratio of rule `cliptrase` has it below the line

Counts = NDArray[Any]  # whole numbers of pixels, as int or as float64


def class_counts(matrix: Counts) -> tuple[Counts, Counts, Counts]:
    """tp, gt, pred (K,) of a confusion matrix (K, K), or (K, K + 1) with the pixels that have no
    predicted class in the last column."""
    return np.diagonal(matrix).copy(), matrix.sum(axis=1), matrix.sum(axis=0)[: len(matrix)]


def class_iou(rule: str, tp: Counts, gt: Counts, pred: Counts) -> NDArray[np.float64]:
    """IoU of each class (..., K) in per cent, NaN for a class that the rule leaves out of mIoU.

    mmseg leaves out a class that is neither in the ground truth nor predicted; the others leave
    out every class that is not in the ground truth.
    """
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


def lost(gt: Counts, pred: Counts) -> NDArray[np.float64]:
    """The per cent of scored pixels that no class was predicted for, of counts (..., K); NaN where
    no pixel is scored."""
    total = gt.sum(axis=-1)
    return _ratio(100.0 * (total - pred.sum(axis=-1)), total)


def _ratio(above: NDArray[np.float64], below: Counts) -> NDArray[np.float64]:
    above = np.asarray(above, dtype=np.float64)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=np.asarray(below) > 0)
