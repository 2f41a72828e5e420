"""The four rules where they differ."""

import math

import numpy as np
import pytest

from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.metrics import class_counts, class_iou, scores

# Class 1 is only predicted, class 3 nowhere: what the rules disagree about.
MATRIX = np.array([[6, 2, 0, 0], [0, 0, 0, 0], [2, 0, 2, 0], [0, 0, 0, 0]])


def test_rules_differ_in_the_classes_they_average_over():
    counts = class_counts(MATRIX)
    plain = {
        rule: float(scores(rule, *counts)["mIoU"])
        for rule in ("mmseg", "detectron2_v06", "detectron2", "cliptrase")
    }
    iou = (6 / 10, 0, 2 / 4)
    assert plain["mmseg"] == pytest.approx(100 * sum(iou) / 3)
    assert plain["detectron2_v06"] == pytest.approx(100 * sum(iou) / 3)
    assert plain["detectron2"] == pytest.approx(100 * sum(iou) / 2)
    assert plain["cliptrase"] == pytest.approx(100 * (6 / 10.01 + 2 / 4.01) / 2)


def test_mmseg_and_old_detectron2_differ_where_only_a_prediction_exists():
    """mmseg counts a class that is only predicted as 0; so does detectron2_v06, in its divisor."""
    counts = class_counts(MATRIX)
    assert np.isnan(class_iou("detectron2_v06", *counts)).tolist() == [False, True, False, True]
    assert class_iou("mmseg", *counts)[1] == 0 and math.isnan(class_iou("mmseg", *counts)[3])


def test_mean_accuracy_of_the_released_code_counts_absent_classes():
    counts = class_counts(MATRIX)
    found = float(scores("cliptrase", *counts)["mAcc"])
    assert found == pytest.approx(100 * (6 / 8.01 + 2 / 4.01) / 4)
    assert float(scores("mmseg", *counts)["mAcc"]) == pytest.approx(100 * (6 / 8 + 2 / 4) / 2)


def test_nothing_scored_is_no_number():
    counts = class_counts(np.zeros((3, 3), np.int64))
    for rule in ("cliptrase", "mmseg", "detectron2", "detectron2_v06"):
        assert all(math.isnan(value) for value in scores(rule, *counts).values())


def test_scores_take_leading_axes():
    both_counts = zip(class_counts(MATRIX), class_counts(MATRIX.T), strict=True)
    stacked = [np.stack(parts) for parts in both_counts]
    both = scores("cliptrase", *stacked)
    for index, matrix in enumerate((MATRIX, MATRIX.T)):
        for metric, value in scores("cliptrase", *class_counts(matrix)).items():
            assert both[metric][index] == value


def test_a_prediction_out_of_range_is_an_error():
    truth = GroundTruth.of(np.array([[0, 1]]), 2)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        truth.confusion(np.array([[0, 2]]))
    ignored = GroundTruth.of(np.array([[0, 255]]), 2)
    assert ignored.confusion(np.array([[0, 2]])).sum() == 1


def test_narrow_types_do_not_overflow():
    truth = np.full((300, 300), 200, np.uint8)
    matrix = GroundTruth.of(truth, 847).confusion(np.full((300, 300), 210, np.int16))
    assert matrix[200, 210] == 90000 == matrix.sum()
