"""The ledger of errors: each scored pixel that is wrong, counted in just one category.

A region is all pixels of an image that have one class: a true region by the ground truth, a found
one by the prediction. Everything here is in whole numbers of scored pixels, by image and class, so
that parts of a pass add up. docs/errors.md says what the categories mean.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.error_names import CATEGORIES
from cliptrase.runs.counts import GroundTruth

Pixels = NDArray[np.int64]
BORDER = 0.02  # of the diagonal: how thick the borders of boundary IoU are, as published
STEP = 11  # pixels: how far apart those are, down and across, whose certainty is counted; prime, so
# that they lie everywhere in patches
BINS = 15_000  # of confidence, 0 to 1
HALVES = 2**16  # floating-point numbers of 16 bits
ORACLES = ("true_regions", "true_names")
COLUMNS = (  # numbers of each class of an image
    *CATEGORIES,  # wrong pixels of this true class
    *("border_tp", "border_gt", "border_pred"),  # pixels of borders: hit, true, predicted
    *(f"{oracle}_{kind}" for oracle in ORACLES for kind in ("tp", "pred")),
)


def near_another(labels: NDArray[np.integer], reach: int, *, outside: bool) -> NDArray[np.bool_]:
    """Whether a pixel has another label at most `reach` pixels (1 or more) away, down and across.

    `labels` (H, W). outside: whether what lies outside the image is of another label.
    """
    height, width = labels.shape
    # 2 × 2 pixels that are not alike, at each corner of a pixel; and further out
    corners = np.zeros((height + 2 * reach - 1, width + 2 * reach - 1), bool)
    of_pixels = corners[reach - 1 : height + reach, reach - 1 : width + reach]
    of_pixels[...] = outside
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    of_pixels[1:-1, 1:-1] = across[1:] | across[:-1] | down[:, 1:]
    if not outside:  # beside an edge of the image there are two pixels
        of_pixels[[0, -1], 1:-1], of_pixels[1:-1, [0, -1]] = across[[0, -1]], down[:, [0, -1]]
    return _any_of(_any_of(corners, 2 * reach).T, 2 * reach).T


def _any_of(flags: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Whether one of `length` rows from each row on is true; windows that fit alone."""
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        flags = flags[:-step] | flags[step:]
        covered += step
    return flags


def sampled(side: int) -> slice:
    """Which rows, or columns, of an image hold the pixels whose certainty is counted."""
    return slice(min(STEP // 2, side - 1), side, STEP)


class Image(NamedTuple):
    """One run on one image, by the m classes that are in the truth or predicted, in order."""

    classes: NDArray[np.intp]  # (m,)
    matrix: Pixels  # (m, m), rows = ground truth
    ledger: NDArray[np.int32]  # (m, 13), in the order of COLUMNS


@dataclass(frozen=True, eq=False)
class Outline:
    """The ground truth of one image as ledgers need it: made once for all runs.

    `present` (n,): the classes that it has. `cells` (P,) twice: of each scored pixel the first cell
    of (found border, true border, band, n, K) that says whether it lies on the inner border of its
    true region and in the band along boundaries, and has the place of its class among the present
    ones; off and on the border of the found region. `scored` (H·W,) bool, None
    where all are. `thick`: how wide borders are, in pixels. `background`: that class, None where
    there is none. `at_samples` (n,): the class of each pixel of `sampled`, −1 where it is not
    scored.
    """

    present: NDArray[np.intp]
    cells: tuple[Pixels, Pixels]
    scored: NDArray[np.bool_] | None
    classes: int
    thick: int
    background: int | None
    at_samples: NDArray[np.int16]

    @classmethod
    def of(
        cls, truth: GroundTruth, size: tuple[int, int], reach: int, background: int | None
    ) -> Self:
        """Of an image of `size` (H, W). reach: how wide the band is, in pixels, on either side of
        a boundary. Ignored pixels are a region of their own."""
        labels = truth.spread(size)
        thick = max(1, round(BORDER * math.hypot(*size)))
        band = near_another(labels, reach, outside=False).reshape(-1)
        border = near_another(labels, thick, outside=True).reshape(-1)
        if truth.scored is not None:
            band, border = band[truth.scored], border[truth.scored]
        present = np.flatnonzero(np.bincount(truth.labels, minlength=truth.classes))
        first = np.zeros((4, truth.classes), np.int64)
        first[:, present] = np.arange(4 * len(present)).reshape(4, -1) * truth.classes
        where = np.array([0, 1, 2, 3]) * truth.classes
        off = first.take(truth.labels + where.take(2 * border.view(np.uint8) + band))
        cells = off, off + 4 * len(present) * truth.classes
        at_samples = labels[tuple(map(sampled, size))].reshape(-1)
        return cls(present, cells, truth.scored, truth.classes, thick, background, at_samples)

    def image(self, prediction: NDArray[np.integer]) -> Image:
        """What a `prediction` (H, W) in 0..K-1 has of the image. Raises ValueError where a scored
        pixel is predicted as anything else."""
        border, predicted = near_another(prediction, self.thick, outside=True), prediction
        border, predicted = border.reshape(-1), predicted.reshape(-1)
        if self.scored is not None:
            border, predicted = border[self.scored], predicted[self.scored]
        if predicted.size and not (predicted.min() >= 0 and predicted.max() < self.classes):
            raise ValueError(f"a prediction is outside 0..{self.classes - 1}")
        shape = (2, 2, 2, len(self.present), self.classes)
        cells = np.where(border, self.cells[1], self.cells[0])
        cells += predicted
        pixels = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)
        seen = pixels.sum(axis=(0, 1, 2, 3)) > 0
        seen[self.present] = True
        classes = np.flatnonzero(seen)
        square = np.zeros((2, 2, 2, len(classes), len(classes)), np.int64)
        square[:, :, :, np.searchsorted(classes, self.present)] = pixels[..., classes]
        on_border = square.sum(axis=2)
        matrix, near = on_border.sum(axis=(0, 1)), square[:, :, 1].sum(axis=(0, 1))
        background = None if self.background is None else classes == self.background
        numbers = [
            categories(matrix, near, background),
            on_border[1, 1].diagonal(),
            on_border[:, 1].sum(axis=(0, 2)),
            on_border[1].sum(axis=(0, 1)),
            *oracles(matrix),
        ]
        return Image(classes, matrix, np.column_stack(numbers).astype(np.int32))


class Sure(NamedTuple):
    """How sure a method is of the scored pixels of `sampled` in one image: where each pixel is
    counted in the flat arrays of a `Ledger`."""

    confidence: NDArray[np.int64]  # wrong or right · BINS + the bin
    best: NDArray[np.int64]  # object or background · HALVES + the place of the number

    @classmethod
    def of(
        cls,
        outline: Outline,
        prediction: NDArray[np.integer],
        confidence: NDArray[np.float32],
        best: NDArray[np.float32] | None,
    ) -> Self:
        """Of a `prediction` (H, W), the probability (n,) of each predicted class, and the largest
        logit (n,) of an object, None where no class is the background."""
        scored = outline.at_samples >= 0
        truth = outline.at_samples[scored]
        predicted = prediction[tuple(map(sampled, prediction.shape))].reshape(-1)[scored]
        bins = np.clip((confidence[scored] * BINS).astype(np.int64), 0, BINS - 1)
        right = bins + BINS * (predicted == truth)
        if best is None or outline.background is None:
            return cls(right, np.zeros(0, np.int64))
        return cls(right, places(best[scored]) + HALVES * (truth == outline.background))


def places(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """The place of each number, rounded to 16 bits, among all of these from the lowest on."""
    bits = (values.astype(np.float16) + np.float16(0)).view(np.uint16).astype(np.int64)
    return np.where(bits < HALVES // 2, bits + HALVES // 2, HALVES - 1 - bits)


def categories(matrix: Pixels, near: Pixels, background: NDArray[np.bool_] | None) -> Pixels:
    """Wrong pixels (m, 6) of each true class, in the order of CATEGORIES.

    `matrix` (m, m): the confusion matrix of one image, `near`: that of its pixels near boundaries
    alone. `background` (m,): which class it is; None where all classes are objects.
    """
    true, found = matrix.sum(axis=1), matrix.sum(axis=0)
    left = 3 * matrix <= true[:, None] + found  # IoU no more than a half
    absent = found == 0
    if background is not None:
        left |= background | background[:, None]
        absent &= ~background
    wrong, near = matrix.copy(), np.where(left, near, 0)
    for each in (wrong, near):
        np.fill_diagonal(each, 0)
    unnamed = np.where(left, wrong, 0)
    of_class, boundary = unnamed.sum(axis=1), near.sum(axis=1)
    boundary[absent] = 0
    inside = of_class - boundary
    inside[absent] = 0
    to, by = np.zeros_like(true), np.zeros_like(true)
    if background is not None and background.any():
        to = np.where(absent, 0, (unnamed - near)[:, background][:, 0])
        by = np.where(background, inside, 0)
    naming, missed = wrong.sum(axis=1) - of_class, np.where(absent, of_class, 0)
    return np.stack([naming, missed, boundary, to, by, inside - to - by], axis=1)


def oracles(matrix: Pixels) -> list[Pixels]:
    """Pixels hit and predicted, (m,) each, of two label maps that know the ground truth: the most
    frequent prediction in each true region, and each found region under its most frequent true
    class. Of equals the first class. `matrix` (m, m): of one image."""
    true, found = matrix.sum(axis=1), matrix.sum(axis=0)
    votes, names = matrix.argmax(axis=1), matrix.argmax(axis=0)
    here, none = np.arange(len(matrix)), np.zeros_like(true)
    voted, named_hits, named = none.copy(), none.copy(), none.copy()
    np.add.at(voted, votes, true)
    np.add.at(named_hits, names, matrix[names, here])
    np.add.at(named, names, found)
    return [np.where(votes == here, true, 0), voted, named_hits, named]


@dataclass(frozen=True, eq=False)
class Ledger:
    """The ledger of a run, a row for each image and class that is in the truth or predicted.

    ledger.npz has the same arrays. confidence: of pixels whether they are right, the bin of the
    probability of what is predicted, and how many they are. best: whether they are background, the
    place of the largest logit of an object (`places`), and how many. Both are of the pixels of
    `sampled`, and empty where no logit of a pixel decides.
    """

    image: NDArray[np.int32]  # (m,) its index
    label: NDArray[np.int32]  # (m,) its class
    numbers: NDArray[np.int32]  # (m, 13), in the order of COLUMNS
    confidence: Pixels  # (b, 3)
    best: Pixels  # (b', 3)

    def column(self, name: str) -> NDArray[np.int32]:
        """One of COLUMNS, (m,)."""
        return self.numbers[:, COLUMNS.index(name)]

    def table(self, name: str, shape: tuple[int, int]) -> NDArray[np.int32]:
        """One of COLUMNS by image and class, of `shape` (images, K)."""
        table = np.zeros(shape, np.int32)
        table[self.image, self.label] = self.column(name)
        return table

    @property
    def by_confidence(self) -> Pixels:
        """Pixels (2, BINS), wrong and right."""
        return _dense(self.confidence, BINS)

    @property
    def by_best(self) -> Pixels:
        """Pixels (2, HALVES), of objects and of the background."""
        return _dense(self.best, HALVES)

    def by_class(self, classes: int) -> Mapping[str, Pixels]:
        """The wrong pixels (K,) of each category by true class."""
        return {
            name: np.bincount(self.label, self.column(name), classes).astype(np.int64)
            for name in CATEGORIES
        }


def sparse(table: Pixels) -> Pixels:
    """Row, column and number (m, 3) of what is not 0 in a table."""
    rows, columns = np.nonzero(table)
    return np.column_stack([rows, columns, table[rows, columns]])


def _dense(numbers: Pixels, columns: int) -> Pixels:
    """The table (2, columns) of which `sparse` made the numbers."""
    table = np.zeros((2, columns), np.int64)
    table[numbers[:, 0], numbers[:, 1]] = numbers[:, 2]
    return table
