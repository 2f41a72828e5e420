"""Label maps as the audit compares them: sizes, steps between labels, pixels that are right."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from cliptrase.data.read.crop import nearest_indices
from cliptrase.runs.counts import GroundTruth

Labels = NDArray[np.int64]
Columns = dict[int, Labels]  # predicted value → (K,) scored pixels by true class


def fitted(labels: Labels, size: tuple[int, int]) -> Labels:
    """A label map (H, W) at another size, nearest pixel."""
    if labels.shape == size:
        return labels
    rows, columns = (nearest_indices(old, new) for old, new in zip(labels.shape, size, strict=True))
    return labels[rows[:, None], columns]


def steps_and_borders(labels: Labels) -> tuple[int, int]:
    """How many places along rows have three neighbours strictly rising or falling, and how many
    have ends at least 2 apart, that is room for a label between them."""
    left, middle, right = labels[:, :-2], labels[:, 1:-1], labels[:, 2:]
    return int(_rising(left, middle, right).sum()), int((np.abs(left - right) > 1).sum())


def without_steps(labels: Labels) -> Labels:
    """The labels with the nearest pixel that is in no step in the place of each that is."""
    steps = np.zeros(labels.shape, bool)
    steps[:, 1:-1] |= _rising(labels[:, :-2], labels[:, 1:-1], labels[:, 2:])
    steps[1:-1] |= _rising(labels[:-2], labels[1:-1], labels[2:])
    if steps.all():
        return labels
    rows, columns = distance_transform_edt(steps, return_distances=False, return_indices=True)
    return labels[rows, columns]


def _rising(left: Labels, middle: Labels, right: Labels) -> NDArray[np.bool_]:
    """Where three neighbours strictly rise or fall."""
    return ((left < middle) & (middle < right)) | ((left > middle) & (middle > right))


def truth_map(truth: GroundTruth, size: tuple[int, int]) -> Labels:
    """Class (H, W) of every pixel, −1 where it is not scored."""
    labels = np.full(size[0] * size[1], -1, np.int64)
    labels[slice(None) if truth.scored is None else truth.scored] = truth.labels
    return labels.reshape(size)


def add(columns: Columns, truth: GroundTruth, labels: Labels) -> None:
    """Add the scored pixels of an image, whose map has its size."""
    flat = labels.reshape(-1)
    flat = flat if truth.scored is None else flat[truth.scored]
    values, index = np.unique(flat, return_inverse=True)
    counts = np.bincount(
        index.reshape(-1) * truth.classes + truth.labels, minlength=len(values) * truth.classes
    ).reshape(len(values), -1)
    for value, pixels in zip(values.tolist(), counts, strict=True):
        columns[value] = columns.get(value, 0) + pixels


def mended(labels: Labels, mend: Callable[[int], int]) -> Labels:
    """A label map with each value replaced by what `mend` makes of it."""
    values, index = np.unique(labels, return_inverse=True)
    return np.array([mend(value) for value in values.tolist()])[index].reshape(labels.shape)


def share_right(truth: Labels, labels: Labels) -> float:
    """Of the places that are scored, those that are right."""
    scored = truth >= 0
    return float((truth == labels)[scored].mean()) if scored.any() else 0.0
