"""Metrics against a slow reading of their definitions, and the symmetries they must have."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptrase.config.metric_names import METRICS, RULES
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.metrics import class_counts, class_iou, scores

settings.register_profile("metrics", max_examples=60, deadline=None)
settings.load_profile("metrics")


@st.composite
def images(draw, count=None):
    """(ground truths, predictions, K): label maps of a few pixels, ignored pixels among them."""
    classes = draw(st.integers(1, 6))
    count = count or draw(st.integers(1, 4))
    sides = st.tuples(st.integers(1, 4), st.integers(1, 4))
    truths, predictions = [], []
    for _ in range(count):
        height, width = draw(sides)
        cells = height * width
        labels = st.sampled_from([*range(classes), 255, 65535, -1])
        truth = draw(st.lists(labels, min_size=cells, max_size=cells))
        predicted = draw(st.lists(st.integers(0, classes - 1), min_size=cells, max_size=cells))
        truths.append(np.array(truth, np.int32).reshape(height, width))
        predictions.append(np.array(predicted, np.int64).reshape(height, width))
    return truths, predictions, classes


def total(truths, predictions, classes):
    pairs = zip(truths, predictions, strict=True)
    return sum(GroundTruth.of(truth, classes).confusion(predicted) for truth, predicted in pairs)


def slow_confusion(truths, predictions, classes):
    matrix = [[0] * classes for _ in range(classes)]
    for truth, predicted in zip(truths, predictions, strict=True):
        for real, said in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if 0 <= real < classes:
                matrix[real][said] += 1
    return matrix


def slow_scores(rule, matrix):
    """The four metrics in plain Python, class by class, from each rule's own source."""
    k = len(matrix)
    tp = [matrix[c][c] for c in range(k)]
    gt = [sum(matrix[c]) for c in range(k)]
    pred = [sum(matrix[r][c] for r in range(k)) for c in range(k)]
    all_pixels = sum(gt)
    if not all_pixels:
        return dict.fromkeys(METRICS, math.nan)
    small = 0.01 if rule == "cliptrase" else 0.0
    union = [gt[c] + pred[c] - tp[c] for c in range(k)]
    iou = [tp[c] / (union[c] + small) if union[c] + small else math.nan for c in range(k)]
    present = [c for c in range(k) if gt[c]]
    either = [c for c in range(k) if union[c]]
    match rule:
        case "cliptrase":
            mean_iou = sum(iou[c] for c in present) / len(present)
            mean_accuracy = sum(tp[c] / (gt[c] + small) for c in range(k)) / k
        case "mmseg":
            mean_iou = sum(iou[c] for c in either) / len(either)
            mean_accuracy = sum(tp[c] / gt[c] for c in present) / len(present)
        case "detectron2_v06":
            mean_iou = sum(iou[c] for c in present) / len(either)
            mean_accuracy = sum(tp[c] / gt[c] for c in present) / len(present)
        case "detectron2":
            mean_iou = sum(iou[c] for c in present) / len(present)
            mean_accuracy = sum(tp[c] / gt[c] for c in present) / len(present)
    weighted = sum(gt[c] / all_pixels * iou[c] for c in present)
    found = {
        "pAcc": sum(tp) / all_pixels,
        "mAcc": mean_accuracy,
        "fwIoU": weighted,
        "mIoU": mean_iou,
    }
    return {metric: 100 * value for metric, value in found.items()}


@pytest.mark.parametrize("rule", RULES)
@given(images())
def test_scores_are_those_of_a_slow_reading(rule, made):
    matrix = total(*made)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == slow_confusion(*made)
    found = scores(rule, *class_counts(matrix))
    assert {metric: float(found[metric]) for metric in METRICS} == pytest.approx(
        slow_scores(rule, matrix.tolist()), rel=1e-12, abs=1e-12, nan_ok=True
    )


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(images())
def test_confusion_agrees_with_scikit_learn(made):
    from sklearn.metrics import confusion_matrix

    truths, predictions, classes = made
    truth = np.concatenate([one.ravel() for one in truths])
    predicted = np.concatenate([one.ravel() for one in predictions])
    scored = (truth >= 0) & (truth < classes)
    if scored.any():
        oracle = confusion_matrix(truth[scored], predicted[scored], labels=range(classes))
        assert np.array_equal(total(*made), oracle)


@pytest.mark.parametrize("rule", RULES)
@given(images(), st.randoms(use_true_random=False))
def test_renaming_the_classes_changes_no_score(rule, made, random):
    truths, predictions, classes = made
    names = list(range(classes))
    random.shuffle(names)
    renamed = np.array(names)
    new_truths = []
    for truth in truths:
        inside = (truth >= 0) & (truth < classes)
        new_truths.append(np.where(inside, renamed[np.where(inside, truth, 0)], truth))
    before = class_counts(total(truths, predictions, classes))
    after = class_counts(total(new_truths, [renamed[one] for one in predictions], classes))
    for metric, value in scores(rule, *before).items():
        assert float(scores(rule, *after)[metric]) == pytest.approx(float(value), nan_ok=True)
    np.testing.assert_array_equal(class_iou(rule, *after)[renamed], class_iou(rule, *before))


@given(images(count=4))
def test_matrices_add_in_any_order_and_however_cut(made):
    truths, predictions, classes = made
    whole = total(truths, predictions, classes)
    assert np.array_equal(whole, total(truths[::-1], predictions[::-1], classes))
    parts = total(truths[:1], predictions[:1], classes) + total(
        truths[1:], predictions[1:], classes
    )
    assert np.array_equal(whole, parts)
    truth = np.concatenate([one.ravel() for one in truths])
    prediction = np.concatenate([one.ravel() for one in predictions])
    at_once = GroundTruth.of(truth, classes).confusion(prediction)
    assert np.array_equal(whole, at_once)


@pytest.mark.parametrize("rule", RULES)
@given(images())
def test_a_right_prediction_scores_100(rule, made):
    truths, _, classes = made
    predictions = [np.where((truth >= 0) & (truth < classes), truth, 0) for truth in truths]
    found = scores(rule, *class_counts(total(truths, predictions, classes)))
    if any(((truth >= 0) & (truth < classes)).any() for truth in truths):
        assert float(found["pAcc"]) == 100
        if rule != "cliptrase":  # whose ratios have 0.01 below the line
            assert [float(value) for value in found.values()] == [100] * 4
