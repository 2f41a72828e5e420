"""Pixels by class: those of one image as a confusion matrix, those of a run by image and class."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

UNSCORED = -1


@dataclass(frozen=True)
class GroundTruth:
    """The scored pixels of one image, ready to be compared with many predictions.

    `labels` (P,) int64: the class of each scored pixel, `rows`: that times K; `scored` (H·W,) bool,
    None where all are.
    """

    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    scored: NDArray[np.bool_] | None
    classes: int

    @classmethod
    def of(cls, labels: NDArray[np.integer], classes: int) -> Self:
        """`labels` (H, W); what is not in 0..classes-1 is left out."""
        flat = labels.reshape(-1).astype(np.int64)
        scored = (flat >= 0) & (flat < classes)
        if scored.all():
            return cls(flat, flat * classes, None, classes)
        labels = flat[scored]
        return cls(labels, labels * classes, scored, classes)

    def spread(self, size: tuple[int, int]) -> NDArray[np.int16]:
        """Class (H, W) of every pixel of an image of `size` (H, W), −1 where it is not scored."""
        labels = np.full(size[0] * size[1], UNSCORED, np.int16)
        labels[slice(None) if self.scored is None else self.scored] = self.labels
        return labels.reshape(size)

    def confusion(self, prediction: NDArray[np.integer], surplus: int = 0) -> NDArray[np.int64]:
        """(K, K + surplus) int64, rows = ground truth, of a `prediction` (H, W) in
        0..K+surplus-1.

        Raises ValueError where a scored pixel is predicted as anything else.
        """
        predicted, columns = prediction.reshape(-1), self.classes + surplus
        if self.scored is not None:
            predicted = predicted[self.scored]
        if predicted.size and not (predicted.min() >= 0 and predicted.max() < columns):
            raise ValueError(f"a prediction is outside 0..{columns - 1}")
        rows = self.rows + surplus * self.labels if surplus else self.rows
        cells = np.bincount(rows + predicted, minlength=self.classes * columns)
        return cells.reshape(self.classes, columns)


@dataclass(frozen=True)
class RegionCounts:
    """The R regions of all images of an unsupervised run, in the order of the images: regions.npz.

    `g`: the scored pixels of each by class of the ground truth; `n` counts the others too. `d`: the
    descriptors, each of length 1.
    """

    ids: NDArray[np.str_]  # (images,)
    skipped: NDArray[np.bool_]  # (images,)
    image: NDArray[np.int32]  # (R,) index of the image
    n: NDArray[np.int32]  # (R,) pixels
    g: NDArray[np.int32]  # (R, K)
    d: NDArray[np.float32]  # (R, E)


@dataclass(frozen=True)
class ImageCounts:
    """Pixels by image and class: hit, in the ground truth, predicted; zeros for a skipped image."""

    ids: NDArray[np.str_]  # (n,)
    skipped: NDArray[np.bool_]  # (n,)
    tp: NDArray[np.int32]  # (n, K)
    gt: NDArray[np.int32]  # (n, K)
    pred: NDArray[np.int32]  # (n, K)
