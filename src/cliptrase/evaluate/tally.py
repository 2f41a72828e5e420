"""Counts of the runs of a pass, image by image, and the file from which a killed pass goes on."""

from __future__ import annotations

import json
import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.evaluate.metrics import Counts, GroundTruth, class_counts
from cliptrase.evaluate.store import ImageCounts
from cliptrase.files import atomic_write

log = logging.getLogger(__name__)
ARRAYS = ("confusion", "skipped", "tp", "gt", "pred")


@dataclass(frozen=True)
class ImageResult:
    """One run on one image: the cells of its confusion matrix that are not 0, and its counts."""

    cells: NDArray[np.int64]  # flat indices into (K, K)
    pixels: NDArray[np.int64]  # in each of them
    tp: Counts  # (K,)
    gt: Counts
    pred: Counts

    @classmethod
    def of(cls, truth: GroundTruth, prediction: NDArray[np.integer]) -> ImageResult:
        """`prediction` (n, n) in 0..K-1."""
        matrix = truth.confusion(prediction)
        cells = np.flatnonzero(matrix)
        return cls(cells, matrix.reshape(-1)[cells], *class_counts(matrix))


class Tally:
    """What one run has added up so far: rows of images that are still to come are zero."""

    def __init__(self, images: int, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        self.skipped = np.zeros(images, np.bool_)
        self.tp, self.gt, self.pred = np.zeros((3, images, classes), np.int32)

    def add(self, position: int, result: ImageResult | None) -> None:
        """Add the image at `position`; None for one that is skipped."""
        if result is None:
            self.skipped[position] = True
            return
        self.confusion.reshape(-1)[result.cells] += result.pixels
        self.tp[position] = result.tp
        self.gt[position] = result.gt
        self.pred[position] = result.pred

    def counts(self, ids: list[str]) -> ImageCounts:
        """By image, for the run's folder."""
        return ImageCounts(np.array(ids, np.str_), self.skipped, self.tp, self.gt, self.pred)


@dataclass
class Progress:
    """How far a pass is: tallies by run, images done, seconds spent by stage."""

    tallies: dict[str, Tally]
    position: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path, basis: dict[str, Any]) -> None:
        """Write everything to `path`. `basis` is what must be equal for a resume to be right."""
        names = list(self.tallies)
        about = {"basis": basis, "runs": names, "position": self.position, "seconds": self.seconds}
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
        for number, name in enumerate(names):
            tally = self.tallies[name]
            arrays[f"{number}.confusion"] = tally.confusion
            for key in ARRAYS[1:]:
                arrays[f"{number}.{key}"] = getattr(tally, key)[: self.position]
        with atomic_write(path) as file:
            np.savez(file, **arrays)

    def resume(self, path: Path, basis: dict[str, Any]) -> None:
        """Take over what `path` holds, if it was made on the same `basis` and has all runs."""
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["basis"] != basis or not set(self.tallies) <= set(about["runs"]):
                    log.info("%s is from other code, data or runs: starting over", path)
                    return
                numbers = {name: number for number, name in enumerate(about["runs"])}
                found = {
                    name: {key: file[f"{numbers[name]}.{key}"] for key in ARRAYS}
                    for name in self.tallies
                }
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read (%s): starting over", path, error)
            return
        for name, tally in self.tallies.items():
            for key, array in found[name].items():
                target = getattr(tally, key)
                target[: len(array)] = array
        self.position, self.seconds = about["position"], about["seconds"]
        log.info("going on from image %d", self.position)
