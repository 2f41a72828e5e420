"""Counts of the runs of a pass, image by image, and the file from which a killed pass goes on."""

import json
import logging
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cliptrase.config import Run
from cliptrase.evaluate import kept
from cliptrase.evaluate.targets import scored_classes, surplus_of
from cliptrase.runs.counts import GroundTruth, ImageCounts, RegionCounts
from cliptrase.runs.ledger import BINS, COLUMNS, HALVES, Ledger, Outline, Sure, sparse

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageResult:
    """One run on one image: the cells of its confusion matrix and the counts that are not 0."""

    cells: NDArray[np.int64]  # flat indices into (K, K + surplus)
    pixels: NDArray[np.int64]  # in each of them
    entries: NDArray[np.int32]  # (m, 4): class, tp, gt, pred
    ledger: NDArray[np.int32] | None = None  # (m, 13) of the same classes, where one is kept
    sure: Sure | None = None  # where one is kept, and logits of pixels decide

    @classmethod
    def of(
        cls,
        truth: GroundTruth,
        prediction: NDArray[np.integer],
        surplus: int = 0,
        outline: Outline | None = None,
        sure: Sure | None = None,
    ) -> Self:
        """`prediction` (n, n) in 0..K+surplus-1. outline, sure: where a ledger is kept, and surplus
        is 0."""
        if outline is None:
            matrix = truth.confusion(prediction, surplus)
            numbers = [matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)[: truth.classes]]
            seen, ledger = np.flatnonzero(numbers[1] + numbers[2]), None
            numbers = [each[seen] for each in numbers]
            cells = np.flatnonzero(matrix)
            pixels = matrix.reshape(-1)[cells]
        else:
            seen, matrix, ledger = outline.image(prediction)
            numbers = [matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)]
            rows, columns = np.nonzero(matrix)
            cells, pixels = seen[rows] * truth.classes + seen[columns], matrix[rows, columns]
        entries = np.stack([seen, *numbers], axis=1).astype(np.int32)
        return cls(cells, pixels, entries, ledger, sure)


@dataclass(frozen=True)
class RegionResult:
    """One unsupervised run on one image: the R regions that have a pixel."""

    pixels: NDArray[np.int32]  # (R,)
    truth: NDArray[np.int32]  # (R, K): the scored ones by class
    descriptors: NDArray[np.float32]  # (R, E)

    @classmethod
    def of(
        cls,
        truth: GroundTruth,
        regions: NDArray[np.integer],
        descriptors: NDArray[np.float32],
    ) -> Self:
        """`regions` (n, n) in 0..R-1, `descriptors` (R, E)."""
        flat, count = regions.reshape(-1).astype(np.int64), len(descriptors)
        pixels = np.bincount(flat, minlength=count)
        scored = flat if truth.scored is None else flat[truth.scored]
        cells = scored * truth.classes + truth.labels
        by_class = np.bincount(cells, minlength=count * truth.classes).reshape(count, -1)
        some = pixels > 0
        return cls(
            pixels[some].astype(np.int32), by_class[some].astype(np.int32), descriptors[some]
        )


AnyResult = ImageResult | RegionResult


class Tally:
    """What one run has added up so far, image after image.

    An image takes 16 bytes for each class that it shows or that is predicted in it, and 9 more,
    however many classes there are.
    """

    ARRAYS: tuple[str, ...] = ("confusion", "skipped", "entries", "ends")

    def __init__(self, images: int, classes: int, surplus: int = 0) -> None:
        self.confusion = np.zeros((classes, classes + surplus), np.int64)
        self.skipped = np.zeros(images, np.bool_)
        self._entries, self._ends = array("i"), array("q")

    def add(self, position: int, result: AnyResult | None) -> None:
        """Add the image at `position`, the next one; None for one that is skipped."""
        if position != len(self._ends):
            raise ValueError(f"image {position} is not the one after {len(self._ends)} images")
        if result is None:
            self.skipped[position] = True
        else:
            assert isinstance(result, ImageResult)
            self.confusion.reshape(-1)[result.cells] += result.pixels
            self._entries.frombytes(result.entries.tobytes())
        self._ends.append(len(self._entries) // 4)

    @property
    def entries(self) -> NDArray[np.int32]:
        """(m, 4): class, tp, gt, pred. Shares memory: let go of it before the next image."""
        return np.frombuffer(self._entries, np.int32).reshape(-1, 4)

    @property
    def ends(self) -> NDArray[np.int64]:
        """How many entries there are with each image. Shares memory as `entries`."""
        return np.frombuffer(self._ends, np.int64)

    @property
    def image(self) -> NDArray[np.int32]:
        """The image of each entry, (m,)."""
        images = np.arange(len(self._ends), dtype=np.int32)
        return np.repeat(images, np.diff(self.ends, prepend=0))

    def counted(self, ids: list[str]) -> tuple[NDArray[np.int64], ImageCounts, Ledger | None]:
        """The matrix, `counts`, and the ledger, where one is kept."""
        return self.confusion, self.counts(ids), None

    def counts(self, ids: list[str]) -> ImageCounts:
        """By image, for the run's folder, once all images are there."""
        tables = np.zeros((3, len(self._ends), len(self.confusion)), np.int32)
        tables[:, self.image, self.entries[:, 0]] = self.entries[:, 1:].T
        return ImageCounts(np.array(ids, np.str_), self.skipped, *tables)

    def extend(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Add the images that come next, as ARRAYS of another tally."""
        self.confusion += saved["confusion"]
        _extend_skipped(self.skipped, len(self._ends), saved)
        before = len(self._entries) // 4
        self._entries.frombytes(saved["entries"].astype(np.int32).tobytes())
        self._ends.frombytes((saved["ends"] + before).astype(np.int64).tobytes())


class LedgerTally(Tally):
    """The same with the ledger of errors: an entry takes 52 bytes more, a run 1.3 MB."""

    ARRAYS = (*Tally.ARRAYS, "ledger", "confidence", "best")

    def __init__(self, images: int, classes: int) -> None:
        super().__init__(images, classes)
        self._ledger = array("i")
        self.confidence = np.zeros((2, BINS), np.int64)
        self.best = np.zeros((2, HALVES), np.int64)

    def add(self, position: int, result: AnyResult | None) -> None:
        """As that of a `Tally`."""
        super().add(position, result)
        if result is not None:
            assert isinstance(result, ImageResult) and result.ledger is not None
            self._ledger.frombytes(result.ledger.tobytes())
            if result.sure is not None:
                np.add.at(self.confidence.reshape(-1), result.sure.confidence, 1)
                np.add.at(self.best.reshape(-1), result.sure.best, 1)

    @property
    def ledger(self) -> NDArray[np.int32]:
        """(m, 13), of each entry. Shares memory as `entries`."""
        return np.frombuffer(self._ledger, np.int32).reshape(-1, len(COLUMNS))

    def counted(self, ids: list[str]) -> tuple[NDArray[np.int64], ImageCounts, Ledger | None]:
        """As that of a `Tally`."""
        rows = self.image, self.entries[:, 0].copy(), self.ledger.copy()
        ledger = Ledger(*rows, sparse(self.confidence), sparse(self.best))
        return self.confusion, self.counts(ids), ledger

    def extend(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Add the images that come next, as ARRAYS of another tally."""
        super().extend(saved)
        self._ledger.frombytes(saved["ledger"].astype(np.int32).tobytes())
        self.confidence += saved["confidence"]
        self.best += saved["best"]


class RegionTally:
    """What one unsupervised run has gathered so far: all regions, image after image.

    An image takes 4 bytes for each value of a descriptor and each class, region by region.
    """

    ARRAYS = ("skipped", "ends", "pixels", "truth", "descriptors")

    def __init__(self, images: int) -> None:
        self.skipped = np.zeros(images, np.bool_)
        self._results: list[RegionResult] = []  # of the images that are not skipped
        self._ends = array("q")

    def add(self, position: int, result: AnyResult | None) -> None:
        """Add the image at `position`, the next one; None for one that is skipped."""
        if position != len(self._ends):
            raise ValueError(f"image {position} is not the one after {len(self._ends)} images")
        before, regions = self._ends[-1] if self._ends else 0, 0
        if result is None:
            self.skipped[position] = True
        else:
            assert isinstance(result, RegionResult)
            self._results.append(result)
            regions = len(result.pixels)
        self._ends.append(before + regions)

    @property
    def ends(self) -> NDArray[np.int64]:
        """How many regions there are with each image. Shares memory: let go of it before the next
        image."""
        return np.frombuffer(self._ends, np.int64)

    @property
    def pixels(self) -> NDArray[np.int32]:
        """(R,) of all images."""
        return self._all("pixels")

    @property
    def truth(self) -> NDArray[np.int32]:
        """(R, K)."""
        return self._all("truth")

    @property
    def descriptors(self) -> NDArray[np.float32]:
        """(R, E)."""
        return self._all("descriptors")

    def _all(self, key: str) -> NDArray[Any]:
        parts = [getattr(result, key) for result in self._results]
        return np.concatenate(parts) if parts else np.zeros(0)

    def counted(self, ids: list[str]) -> RegionCounts:
        """All regions, for the run's folder, once all images are there."""
        image = np.repeat(np.arange(len(self._ends)), np.diff(self.ends, prepend=0))
        named = np.array(ids, np.str_), self.skipped, image.astype(np.int32)
        return RegionCounts(*named, self.pixels, self.truth, self.descriptors)

    def extend(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Add the images that come next, as ARRAYS of another tally."""
        before = self._ends[-1] if self._ends else 0
        _extend_skipped(self.skipped, len(self._ends), saved)
        self._ends.frombytes((saved["ends"] + before).astype(np.int64).tobytes())
        if len(saved["pixels"]):
            keys = ("pixels", "truth", "descriptors")
            self._results.append(RegionResult(*(saved[key] for key in keys)))


def tally_of(run: Run, images: int) -> Tally | RegionTally:
    """An empty tally of the kind that a run needs."""
    if run.method.unsupervised is not None:
        return RegionTally(images)
    if run.ledger:
        return LedgerTally(images, scored_classes(run))
    return Tally(images, scored_classes(run), surplus_of(run))


def _extend_skipped(
    skipped: NDArray[np.bool_], done: int, saved: Mapping[str, NDArray[Any]]
) -> None:
    """Take over which images are skipped of those that follow the `done` ones."""
    more = len(saved["ends"])
    skipped[done : done + more] = saved["skipped"][:more]


class Facts(TypedDict, total=False):
    """What is known of the runs before an image is counted, by run: their operations, and the
    digest of their data. compared: what a GPU's first image says beside the CPU's."""

    flops: dict[str, int]
    data: dict[str, str | None]
    compared: dict[str, object]


class About(TypedDict):
    """What a file of counts says of them. basis: what must be equal for them to be added."""

    basis: dict[str, object]
    runs: list[str]
    position: int
    seconds: dict[str, float]
    facts: Facts


@dataclass
class Progress:
    """How far a pass is, or a shard of it: tallies by run, how many images they hold, seconds spent
    by stage, and the facts that are known by now."""

    tallies: dict[str, Tally | RegionTally]
    position: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)

    def save(self, path: Path, basis: Mapping[str, object]) -> None:
        """Write everything to `path`. `basis` is what must be equal for a resume to be right."""
        about = About(
            basis=dict(basis),
            runs=list(self.tallies),
            position=self.position,
            seconds=self.seconds,
            facts=self.facts,
        )
        arrays: dict[str, ArrayLike] = {"about": json.dumps(about)}
        for name, tally in self.tallies.items():
            arrays |= {f"{name}.{key}": getattr(tally, key) for key in tally.ARRAYS}
        kept.write(path, arrays)

    def resume(self, path: Path, basis: Mapping[str, object]) -> None:
        """Take over what `path` holds, if it was made on the same `basis` and has all runs."""
        saved = kept.read(path, "starting over")
        if saved is None:
            return
        about: About = json.loads(str(saved["about"]))
        if about["basis"] != basis or self.lacking(saved):
            log.info("%s is from other code, data or runs: starting over", path)
            return
        self.extend(about, saved)
        log.info("going on from image %d", self.position)

    def lacking(self, saved: Mapping[str, NDArray[Any]]) -> list[str]:
        """The runs, sorted, that a file does not have all counts of."""
        runs = self.tallies.items()
        wanted = {f"{name}.{key}": name for name, tally in runs for key in tally.ARRAYS}
        return sorted({wanted[array] for array in wanted.keys() - saved.keys()})

    def extend(self, about: About, saved: Mapping[str, NDArray[Any]]) -> None:
        """Add the images that come next, as `save` wrote them."""
        for name, tally in self.tallies.items():
            tally.extend({key: saved[f"{name}.{key}"] for key in tally.ARRAYS})
        self.position += about["position"]
        for stage, took in about["seconds"].items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + took
        self.facts |= about["facts"]
