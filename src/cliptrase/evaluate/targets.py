"""What a benchmark scores: from the raw labels of its archive to the ground truth of a run.

K classes: the named ones in order, and the background where there is one: after them under the
protocol crop, before them (class 0, every name one further) under slide.
"""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.config.kinds import facts_of, has_background
from cliptrase.data.read import labels as label_tables
from cliptrase.errors import UserError
from cliptrase.runs.counts import GroundTruth

MOST = np.iinfo(np.int16).max  # classes: label maps are kept in 16 bits


def scored_classes(run: Run) -> int:
    """K: the classes, and one more where the benchmark has a background.

    Raises UserError for more than are kept apart.
    """
    count = run.vocabulary.classes.count + has_background(run)
    if count > MOST:
        name = run.vocabulary.classes.name
        raise UserError(f"vocabulary {name}: {count} classes; at most {MOST} can be scored")
    return count


def surplus_of(run: Run) -> int:
    """How many classes are predicted beside those that are scored: 1, the last, where the words
    have distractors, else 0."""
    return int(run.vocabulary.distractors is not None)


def background_of(run: Run) -> int | None:
    """Which of the scored classes is the background, None where none is."""
    if not has_background(run):
        return None
    return 0 if facts_of(run).whole_pictures else scored_classes(run) - 1


def target_key(run: Run) -> str:
    """The same for runs whose ground truth is the same."""
    labels = run.benchmark.labels.model_dump(mode="json", exclude_defaults=True)
    whole = facts_of(run).whole_pictures
    return json.dumps([labels, scored_classes(run), whole, run.benchmark.subset], sort_keys=True)


@dataclass(frozen=True)
class Target:
    """How raw labels become the ground truth of a benchmark."""

    lookup: label_tables.Lookup
    ignored_is_background: bool
    classes: int  # K
    whole: bool  # scored as it is: at its own size, no image skipped, background 0

    @classmethod
    def of(cls, run: Run) -> Self:
        """Raises UserError where the labels of the benchmark do not fit the vocabulary."""
        labels, name = run.benchmark.labels, run.benchmark.name
        if (labels.background is not None) != has_background(run):
            raise UserError(
                f"benchmark {name}: labels.background and the list of "
                "background words go together; give both or none (of benchmark.background, or "
                "take a benchmark that scores a background)"
            )
        try:
            lookup = label_tables.lookup(labels, run.vocabulary.classes.count)
        except label_tables.WrongNumber as error:
            raise UserError(f"{run.vocabulary.classes.path}: {error}") from None
        except UserError as error:
            raise UserError(f"benchmark {name} (conf/benchmark/{name}.yaml): {error}") from None
        whole = facts_of(run).whole_pictures
        return cls(lookup, labels.background == "ignored", scored_classes(run), whole)

    @property
    def background(self) -> int | None:
        """Which of the scored classes is the background, None where none is."""
        if self.classes == self.lookup.classes:
            return None
        return 0 if self.whole else self.classes - 1

    def seen(self, raw: NDArray[np.integer], source: str) -> NDArray[np.int32]:
        """What an oracle sees of a raw label map (H, W): the class of every pixel, also one that is
        not scored, and −1 where it is ignored, which does not become background."""
        classes = label_tables.apply(self.lookup, raw, source)
        return np.where(classes == self.lookup.ignore, np.int32(-1), classes)

    def truth(self, raw: NDArray[np.integer], source: str) -> GroundTruth | None:
        """The scored pixels of a raw label map (H, W); None for a skipped image."""
        classes = label_tables.apply(self.lookup, raw, source)
        if not self.whole and label_tables.skipped(self.lookup, classes):
            return None
        if self.ignored_is_background:
            classes = label_tables.background_from_ignored(self.lookup, classes)
        if self.whole and self.classes > self.lookup.classes:
            classes = label_tables.background_first(self.lookup, classes)
        return GroundTruth.of(classes, self.classes)
