"""An image as a pass scores it: the crop that the model sees, the ground truth of each benchmark.

Benchmarks over the same images differ only in their lookup tables, so an image is read once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.data import labels as label_tables
from cliptrase.data.crop import crop_image, crop_label
from cliptrase.errors import UserError
from cliptrase.evaluate.metrics import GroundTruth


def scored_classes(run: dict[str, Any]) -> int:
    """K: the classes, and one more where the benchmark has a background."""
    return run["vocabulary"]["classes"]["count"] + has_background(run)


def has_background(run: dict[str, Any]) -> bool:
    """Whether class C, after the named classes, is the background."""
    return run["vocabulary"]["background"] is not None


def target_key(run: dict[str, Any]) -> str:
    """The same for runs whose ground truth is the same."""
    return json.dumps([run["benchmark"]["labels"], scored_classes(run)], sort_keys=True)


@dataclass(frozen=True)
class Target:
    """How raw labels become the ground truth of a benchmark."""

    lookup: label_tables.Lookup
    ignored_is_background: bool
    classes: int  # K

    @classmethod
    def of(cls, run: dict[str, Any]) -> Target:
        """Raises UserError where the labels of the benchmark do not fit the vocabulary."""
        labels, names = run["benchmark"]["labels"], run["vocabulary"]["classes"]["count"]
        if (labels["background"] is not None) != has_background(run):
            raise UserError(
                f"benchmark {run['benchmark']['name']}: labels.background and the list of "
                "background words go together; give both or none"
            )
        lookup = label_tables.lookup(labels, names)
        return cls(lookup, labels["background"] == "ignored", scored_classes(run))

    def truth(self, raw: NDArray[np.integer], source: str) -> GroundTruth | None:
        """The scored pixels of a cropped raw label map (n, n); None for a skipped image."""
        classes = label_tables.apply(self.lookup, raw, source)
        if label_tables.skipped(self.lookup, classes):
            return None
        if self.ignored_is_background:
            classes = label_tables.background_from_ignored(self.lookup, classes)
        return GroundTruth.of(classes, self.classes)


@dataclass(frozen=True)
class Loaded:
    """One image, ready for the model: pixels (n, n, 3) uint8, ground truth by `target_key`."""

    position: int
    pixels: NDArray[np.uint8]
    truths: dict[str, GroundTruth | None]


@dataclass(frozen=True)
class Loader:
    """Reads the image at a position of a dataset and crops it; safe to call from many threads."""

    dataset: Sequence[Any]
    name: str
    size: int
    targets: dict[str, Target]

    @classmethod
    def of(cls, dataset: Sequence[Any], runs: Iterable[dict[str, Any]]) -> Loader:
        """For runs that share dataset and image size."""
        runs = list(runs)
        targets = {target_key(run): Target.of(run) for run in runs}
        return cls(dataset, runs[0]["benchmark"]["dataset"], runs[0]["image_size"], targets)

    def __call__(self, position: int) -> Loaded:
        """Raises UserError naming the dataset and the image that cannot be read or scored."""
        where, sample = f"dataset {self.name}, image {position}", None
        try:
            sample = self.dataset[position]
            where = f"dataset {self.name}, image {sample.id}"
            pixels = crop_image(sample.image, self.size)
            raw = crop_label(sample.label, self.size)
            truths = {key: target.truth(raw, where) for key, target in self.targets.items()}
        except UserError as error:
            if self.name == "folder" and sample is None:
                raise  # a file of the user's: its path says which
            told = str(error)
            raise UserError(told if told.startswith(where) else f"{where}: {told}") from error
        except (OSError, ValueError, SyntaxError, IndexError) as error:  # what PIL and Arrow raise
            cure = "prepare the dataset again"
            raise UserError(f"{where}: cannot be read ({error}); {cure}") from error
        return Loaded(position, pixels, truths)
