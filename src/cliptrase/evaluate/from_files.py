"""Runs whose label maps other code predicted: read from files, and counted like those of a pass."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.config.kinds import facts_of
from cliptrase.data.read.ordered import in_order_by
from cliptrase.data.read.predictions import Predictions
from cliptrase.errors import UserError
from cliptrase.evaluate.predict import Results
from cliptrase.evaluate.tally import ImageResult
from cliptrase.evaluate.targets import background_of, scored_classes, target_key
from cliptrase.evaluate.truth import Loader, Scored
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.provenance import Stages
from cliptrase.runs.scoring import class_names

EIGHT_BITS = 256  # classes


@dataclass(frozen=True)
class FilePredictor:
    """Streams ground truth and label maps, as `predict.Predictor` streams images."""

    load: Loader
    runs: Mapping[str, Run]
    predictions: Predictions
    stages: Stages

    @classmethod
    def of(cls, load: Loader, ids: Sequence[str], runs: Mapping[str, Run], stages: Stages) -> Self:
        """For runs of the same label maps, on a dataset of these ids. Raises UserError for label
        maps that do not belong to its images, and for an image that is scored and has none."""
        first = next(iter(runs.values()))
        path, whole = Path(str(first.method.path)), first.limit is None
        predictor = cls(load, runs, Predictions(path, ids, all_ids=whole), stages)
        predictor._check_all_there(ids)
        return predictor

    def singly(
        self, pool: Executor, positions: Iterable[int], ahead: int
    ) -> Generator[tuple[int, Results]]:
        """Position and results of each image in order, one image a thread."""

        def counted(position: int) -> tuple[int, Results]:
            with self.stages("decode"):
                scored = self.load.scored(position)
                labels = self._labels(scored)
            with self.stages("count"):
                results: Results = {}
                wanted = {target_key(run) for run in self.runs.values() if run.ledger}
                outlines = self.load.outlines(scored.truths, wanted, scored.size)
                for name, run in self.runs.items():
                    key = target_key(run)
                    truth, outline = scored.truths[key], outlines.get(key) if run.ledger else None
                    counted = (
                        None if truth is None else ImageResult.of(truth, labels, outline=outline)
                    )
                    results[name] = counted
                return position, results

        return in_order_by(pool, counted, positions, ahead)

    def labels(self, position: int) -> NDArray[np.integer]:
        """The label map (H, W) of an image that is scored."""
        return self._labels(self.load.scored(position))

    def flops(self, _: int) -> dict[str, int]:
        """By run: none were counted."""
        return dict.fromkeys(self.runs, 0)

    def _check_all_there(self, ids: Sequence[str]) -> None:
        """Raise UserError for an image that is scored and has no label map."""
        lacking = [position for position, id in enumerate(ids) if id not in self.predictions]
        for position in lacking:
            scored = self.load.scored(position)
            if any(truth is not None for truth in scored.truths.values()):
                more = f" (nor for {len(lacking) - 1} more)" if lacking[1:] else ""
                raise UserError(
                    f"{self.predictions.path}: no label map for image {scored.id}{more}; add "
                    f"{self.predictions.name(scored.id)}"
                )

    def _labels(self, scored: Scored) -> NDArray[np.integer]:
        """The label map of an image, checked for each run that scores it; empty where none does.
        Raises UserError naming its file."""
        truths = {name: scored.truths[target_key(run)] for name, run in self.runs.items()}
        wanted = {name: truth for name, truth in truths.items() if truth is not None}
        if not wanted:
            return np.zeros((0, 0), np.int32)
        labels, bits = self.predictions.read(scored.id)
        where = self.predictions.name(scored.id)
        if labels.shape != scored.size:
            raise UserError(f"{where}: {_other_size(labels, scored.size, self._first)}")
        for name, truth in wanted.items():
            _check_classes(labels, bits, truth, self.runs[name], where)
        return labels

    @property
    def _first(self) -> Run:
        return next(iter(self.runs.values()))


def _other_size(labels: NDArray[np.integer], size: tuple[int, int], run: Run) -> str:
    """What is said of a label map that is not as large as what the protocol scores."""
    cure = "resize the logits to that size, not the labels"
    if not facts_of(run).whole_pictures:
        cure = (
            f"protocol crop scores the centre crop at image_size={run.image_size}; take "
            "protocol=slide for label maps of whole pictures"
        )
    (height, width), (right_height, right_width) = labels.shape, size
    return f"{width} × {height} pixels, but {right_width} × {right_height} are scored; {cure}"


def _check_classes(
    labels: NDArray[np.integer], bits: int, truth: GroundTruth, run: Run, where: str
) -> None:
    """Raise UserError for a label map that cannot hold all classes, and for a scored pixel that is
    predicted as none of them."""
    count = scored_classes(run)
    if count > EIGHT_BITS and bits == 8:
        raise UserError(f"{where}: 8 bits a pixel cannot hold {count} classes; save it with 16")
    flat = labels.reshape(-1)
    flat = flat if truth.scored is None else flat[truth.scored]
    if flat.size and not (flat.min() >= 0 and flat.max() < count):
        stray = flat.min() if flat.min() < 0 else flat.max()
        names, background = class_names(run), background_of(run)
        known = f"0 ({names[0]}) to {count - 1} ({names[-1]})"
        if background is not None:
            known += f", the background is {background}"
        raise UserError(f"{where}: a scored pixel holds {stray}; classes are {known}; correct it")
