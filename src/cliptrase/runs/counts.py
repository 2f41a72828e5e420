"""Pixels by class: those of one image as a confusion matrix, those of a run by image and class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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


@dataclass(frozen=True)
class ImageCounts:
    """Pixels by image and class: hit, in the ground truth, predicted; zeros for a skipped image."""

    ids: NDArray[np.str_]  # (n,)
    skipped: NDArray[np.bool_]  # (n,)
    tp: NDArray[np.int32]  # (n, K)
    gt: NDArray[np.int32]  # (n, K)
    pred: NDArray[np.int32]  # (n, K)

    def save(self, path: Path) -> None:
        """Write per_image.npz."""
        np.savez_compressed(path, **vars(self))
