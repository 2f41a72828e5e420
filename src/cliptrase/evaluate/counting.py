"""The counts of a batch, made where its classes are: of a GPU's maps only the counts come back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.evaluate.certainty import Certainties, Certainty
from cliptrase.evaluate.tally import ImageResult, RegionResult
from cliptrase.runs.counts import UNSCORED, GroundTruth
from cliptrase.runs.ledger import Outline, Sure


def labels_of(truth: GroundTruth | None, size: tuple[int, int]) -> NDArray[np.int16]:
    """Class of every pixel (H·W,) of an image of `size` (H, W), −1 where it is not scored: nowhere
    in an image that is skipped."""
    if truth is None:
        return np.full(size[0] * size[1], UNSCORED, np.int16)
    return truth.spread(size).reshape(-1)


@dataclass(frozen=True, eq=False)
class Counted:
    """One run on a batch, its counts on their way from the device."""

    numbers: Tensor  # image, cell and pixels of what is not 0; tp, gt, pred (B, K); what is wrong
    nonzero: int  # cells that are not 0, of all images
    shape: tuple[int, int]  # B, K
    columns: int  # K + surplus

    @classmethod
    def of(cls, labels: Tensor, classes: Tensor, k: int, surplus: int = 0) -> Self:
        """`labels` (B, H·W) as of `labels_of`; predicted `classes` (B, H, W) in 0..k+surplus-1.

        Whole numbers are added up, so that their order is of no consequence.
        """
        batch, columns, device = len(labels), k + surplus, labels.device
        cells = k * columns
        predicted = classes.flatten(1)
        valid = (predicted >= 0) & (predicted < columns)
        cell = torch.where(valid, labels.long() * columns + predicted, cells + 1)
        cell = torch.where(labels == UNSCORED, cells, cell)
        cell += torch.arange(batch, device=device).unsqueeze(1) * (cells + 2)
        table = torch.zeros(batch * (cells + 2), dtype=torch.int32, device=device)
        ones = torch.ones((), dtype=torch.int32, device=device).expand(cell.numel())
        table = table.scatter_add_(0, cell.flatten(), ones).view(batch, -1)
        flat = table[:, :cells]
        matrix = flat.unflatten(1, (k, columns))
        totals = matrix.diagonal(dim1=1, dim2=2), matrix.sum(dim=2), matrix.sum(dim=1)[:, :k]
        where = flat.nonzero()
        parts = [where[:, 0], where[:, 1], flat[where[:, 0], where[:, 1]], *totals, table[:, -1]]
        numbers = torch.cat([part.flatten().long() for part in parts])
        return cls(numbers.to("cpu", non_blocking=True), len(where), (batch, k), columns)

    def results(self) -> list[ImageResult]:
        """By image, once the device is done. Raises ValueError where a scored pixel is predicted as
        something that is no class."""
        numbers, (batch, k) = self.numbers.numpy(), self.shape
        if numbers[-batch:].any():
            raise ValueError(f"a prediction is outside 0..{self.columns - 1}")
        image, cells, pixels = numbers[: 3 * self.nonzero].reshape(3, -1)
        tp, gt, pred = numbers[3 * self.nonzero : -batch].reshape(3, batch, k)
        row, seen = np.nonzero(gt + pred)
        entries = np.stack([seen, tp[row, seen], gt[row, seen], pred[row, seen]], axis=1)
        cuts, rows = (np.searchsorted(index, np.arange(1, batch)) for index in (image, row))
        by_image = np.split(entries.astype(np.int32), rows)
        return list(map(ImageResult, np.split(cells, cuts), np.split(pixels, cuts), by_image))


@dataclass(frozen=True, eq=False)
class CountedErrors:
    """A run that keeps a ledger of errors, on a batch, its label maps on their way from the device:
    a ledger is made of all pixels of an image at once."""

    truths: Sequence[GroundTruth | None]  # of each image
    outlines: Sequence[Outline | None]
    classes: Tensor  # (B, H, W) int16
    certainty: Certainty | None

    @classmethod
    def of(
        cls,
        truths: Sequence[GroundTruth | None],
        outlines: Sequence[Outline | None],
        classes: Tensor,
        certainty: Certainty | None,
    ) -> Self:
        """Predicted `classes` (B, H, W), and how sure the method is of them."""
        here = classes.to(torch.int16).to("cpu", non_blocking=True)
        return cls(truths, outlines, here, certainty and certainty.on_its_way())

    def results(self) -> list[ImageResult | None]:
        """By image, once the device is done; None for one that is skipped."""
        certainty = self.certainty and self.certainty.numpy()
        parts = zip(self.truths, self.outlines, self.classes.numpy(), strict=True)
        return [
            None if truth is None else result_of(truth, classes, 0, outline, certainty, place)
            for place, (truth, outline, classes) in enumerate(parts)
        ]


def result_of(
    truth: GroundTruth,
    prediction: NDArray[np.integer],
    surplus: int,
    outline: Outline | None,
    certainty: Certainties | None,
    place: int = 0,
) -> ImageResult:
    """One run on one image, at its place in a batch. surplus: of the `Job`. outline, certainty:
    where a ledger is kept."""
    sure = None
    if outline is not None and certainty is not None:
        best = None if certainty.best is None else certainty.best[place]
        sure = Sure.of(outline, prediction, certainty.confidence[place], best)
    return ImageResult.of(truth, prediction, surplus, outline, sure)


@dataclass(frozen=True, eq=False)
class CountedRegions:
    """An unsupervised run on a batch, its regions on their way from the device."""

    truths: Sequence[GroundTruth | None]  # of each image
    regions: Tensor  # (B, H, W) int16
    descriptors: list[Tensor]  # (R, E) of each image

    @classmethod
    def of(
        cls, truths: Sequence[GroundTruth | None], regions: Tensor, descriptors: list[Tensor]
    ) -> Self:
        """`regions` (B, H, W) and their `descriptors`, as a protocol predicts them."""
        here = regions.to(torch.int16).to("cpu", non_blocking=True)
        return cls(truths, here, [each.to("cpu", non_blocking=True) for each in descriptors])

    def results(self) -> list[RegionResult | None]:
        """By image, once the device is done; None for one that is skipped."""
        return [
            None if truth is None else RegionResult.of(truth, regions.numpy(), features.numpy())
            for truth, regions, features in zip(
                self.truths, self.regions, self.descriptors, strict=True
            )
        ]


def arrival(device: torch.device) -> Callable[[], None]:
    """Waits, when called, until the device has done what it was given so far."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event(blocking=True)  # else the core spins while it waits
    event.record()
    return event.synchronize
