"""The label maps of an export beside their ground truth, read image by image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cliptrase.audit.findings import Finding
from cliptrase.audit.label_maps import Columns, Labels, add, fitted, steps_and_borders, truth_map
from cliptrase.config import Run
from cliptrase.data import open_dataset
from cliptrase.data.read.predictions import Predictions
from cliptrase.errors import UserError, counted
from cliptrase.evaluate.targets import scored_classes, target_key
from cliptrase.evaluate.truth import Loader
from cliptrase.runs.metrics import class_counts, scores

GRID = 48  # places along each side of a map at which maps are compared with one another


@dataclass
class Seen:
    """What the images of an export show together."""

    columns: Columns = field(default_factory=dict)
    halves: tuple[Columns, Columns] = field(default_factory=lambda: ({}, {}))  # of every second
    positions: list[int] = field(default_factory=list)  # of the maps that can be read
    ids: list[str] = field(default_factory=list)
    truths: list[Labels] = field(default_factory=list)  # (GRID, GRID), −1 where not scored
    maps: list[Labels] = field(default_factory=list)  # (GRID, GRID)
    unreadable: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)  # what is said of maps of another size
    steps: int = 0  # borders that go up or down in steps
    borders: int = 0  # with room for a label between


class Export:
    """The label maps of a resolved run of files. Raises UserError as `audit`."""

    def __init__(self, run: Run, data: Path | str) -> None:
        self.run, self.key, self.classes = run, target_key(run), scored_classes(run)
        dataset = open_dataset(run, data)
        self.load = Loader.of(dataset, [run], data)
        path = Path(str(run.method.path))
        self.maps = Predictions(path, dataset.ids, all_ids=run.limit is None)
        self.ids = dataset.ids
        self.missing = [id for id in dataset.ids if id not in self.maps]

    def seen(self) -> Seen:
        """What all images show."""
        seen = Seen()
        for position, id in enumerate(self.ids):
            if id not in self.maps:
                continue
            scored = self.load.scored(position)
            truth = scored.truths[self.key]
            if truth is None:
                continue
            try:
                stored = self.stored(position)
            except UserError as error:
                seen.unreadable.append(str(error))
                continue
            if stored.shape != scored.size:
                (height, width), (wanted, wide) = stored.shape, scored.size
                seen.sizes.append(f"{id}: {width} × {height}, not {wide} × {wanted}")
            labels = fitted(stored, scored.size)
            for part in (seen.columns, seen.halves[len(seen.ids) % 2]):
                add(part, truth, labels)
            steps, borders = steps_and_borders(stored)
            seen.steps, seen.borders = seen.steps + steps, seen.borders + borders
            seen.positions.append(position)
            seen.ids.append(id)
            seen.truths.append(fitted(truth_map(truth, scored.size), (GRID, GRID)))
            seen.maps.append(fitted(stored, (GRID, GRID)))
        return seen

    def stored(self, position: int) -> Labels:
        """The label map (H, W) of an image as the file has it. Raises UserError: unreadable."""
        return self.maps.read(self.ids[position])[0].astype(np.int64)

    def columns(self, positions: Sequence[int], mend: Callable[[int], Labels]) -> Columns:
        """Of some images, with what `mend` makes of a position as their maps."""
        columns: Columns = {}
        for position in positions:
            scored = self.load.scored(position)
            truth = scored.truths[self.key]
            assert truth is not None
            add(columns, truth, fitted(mend(position), scored.size))
        return columns

    def miou(self, columns: Columns, mend: Callable[[int], int] = lambda value: value) -> float:
        """mIoU in per cent, each value taken for what `mend` makes of it."""
        matrix = np.zeros((self.classes, self.classes + 1), np.int64)
        for value, pixels in columns.items():
            label = mend(value)
            matrix[:, label if 0 <= label < self.classes else self.classes] += pixels
        return self.miou_of(matrix)

    def miou_of(self, matrix: Labels) -> float:
        """mIoU in per cent of a confusion matrix (K, K + 1), whose last column is no class."""
        return float(scores(self.run.protocol.rule, *class_counts(matrix))["mIoU"])

    def of_files(self, seen: Seen) -> Iterator[Finding]:
        """Files that are missing, cannot be read, or have another size."""
        if self.missing:
            some = ", ".join(self.missing[:3]) + ", …" * (len(self.missing) > 3)
            evidence = f"{len(self.missing)} of {counted(len(self.ids), 'image')} have none: {some}"
            yield Finding("missing images", evidence, None)
        if seen.unreadable:
            evidence = f"{counted(len(seen.unreadable), 'file')}: {seen.unreadable[0]}"
            yield Finding("unreadable files", evidence, None)
        if seen.sizes:
            evidence = f"{counted(len(seen.sizes), 'map')}, as {seen.sizes[0]}"
            resized = self.miou(seen.columns)  # as they were counted
            yield Finding("another size", evidence, resized)
