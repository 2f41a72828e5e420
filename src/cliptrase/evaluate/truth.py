"""An image as a pass scores it: what the model sees of it, the ground truth of each benchmark.

Benchmarks over the same images differ only in their lookup tables, so an image is read once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.data.read.prepared import read_subset
from cliptrase.data.read.samples import Sample, Samples
from cliptrase.errors import UserError
from cliptrase.evaluate.protocols import Protocol, Shown, protocol_of
from cliptrase.evaluate.targets import Target, target_key
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.ledger import Outline

HALF_A_PATCH = 8  # pixels that a model sees: of label maps from files, whose patch is not known
T = TypeVar("T")
FOLDER_CURE = "repair the picture and its mask, or take both out of their folders"


@dataclass(frozen=True)
class Loaded:
    """One image, ready for the model, with its ground truth by `target_key`; None: not scored."""

    position: int
    shown: Shown
    truths: dict[str, GroundTruth | None]


@dataclass(frozen=True)
class Scored:
    """The ground truth of one image by `target_key`, None: not scored. size: (H, W)."""

    id: str
    size: tuple[int, int]
    truths: dict[str, GroundTruth | None]


@dataclass(frozen=True)
class Loader:
    """Reads the image at a position of a dataset; safe to call from many threads."""

    dataset: Samples | Sequence[Sample]
    name: str
    protocol: Protocol
    targets: dict[str, Target]
    subsets: dict[str, frozenset[str]] = field(default_factory=dict)  # ids, where not all count
    oracles: frozenset[str] = frozenset()  # the targets whose ground truth runs see
    cure: str = "prepare the dataset again"  # for an image that cannot be read

    @classmethod
    def of(
        cls, dataset: Samples | Sequence[Sample], runs: Iterable[Run], data: Path | str = "data"
    ) -> Self:
        """For runs that share dataset, image size and protocol; `data` holds the lists of their
        subsets. Raises UserError for a subset that is not there."""
        runs = list(runs)
        benchmark = runs[0].benchmark
        targets = {target_key(run): Target.of(run) for run in runs}
        subsets = {
            target_key(run): read_subset(benchmark.dataset, run.benchmark.subset, data)
            for run in runs
            if run.benchmark.subset is not None
        }
        protocol = protocol_of(runs[0], any(run.method.sees_original for run in runs))
        oracles = seen_targets(runs)
        loader = cls(dataset, benchmark.dataset, protocol, targets, subsets, oracles)
        return loader if benchmark.folder is None else replace(loader, cure=FOLDER_CURE)

    def __call__(self, position: int) -> Loaded:
        """Raises UserError naming the dataset and the image that cannot be read or scored."""

        def loaded(sample: Sample, where: str) -> Loaded:
            shown = self.protocol.show(sample.image)
            raw = self.protocol.label(sample.label)
            seen = {key: self.targets[key].seen(raw, where) for key in sorted(self.oracles)}
            truths = self._truths(sample.id, raw, where)
            return Loaded(position, replace(shown, truths=seen), truths)

        return self._made_of(position, loaded)

    def scored(self, position: int) -> Scored:
        """The ground truth alone. Raises UserError as a call."""

        def scored(sample: Sample, where: str) -> Scored:
            raw = self.protocol.label(sample.label)
            return Scored(sample.id, raw.shape[:2], self._truths(sample.id, raw, where))

        return self._made_of(position, scored)

    def outlines(
        self,
        truths: Mapping[str, GroundTruth | None],
        wanted: Iterable[str],
        size: tuple[int, int],
        half_a_patch: float = HALF_A_PATCH,
    ) -> dict[str, Outline]:
        """What ledgers of errors need of an image of `size` (H, W), for the `wanted` ones of the
        targets that score it. half_a_patch: in pixels that the model sees."""
        reach = max(1, round(half_a_patch * self.protocol.scale(size)))
        scored = {key: truth for key in {*wanted} if (truth := truths[key]) is not None}
        return {
            key: Outline.of(truth, size, reach, self.targets[key].background)
            for key, truth in scored.items()
        }

    def _truths(
        self, id: str, raw: NDArray[np.integer], where: str
    ) -> dict[str, GroundTruth | None]:
        """Of the raw labels (H, W) of an image, by target."""
        left_out = {key for key, ids in self.subsets.items() if id not in ids}
        return {
            key: None if key in left_out else target.truth(raw, where)
            for key, target in self.targets.items()
        }

    def _made_of(self, position: int, make: Callable[[Sample, str], T]) -> T:
        """What `make` makes of the sample at a position, and of what it is called in messages."""
        where, sample = f"dataset {self.name}, image {position}", None
        try:
            sample = self.dataset[position]
            where = f"dataset {self.name}, image {sample.id}"
            return make(sample, where)
        except UserError as error:
            if self.cure == FOLDER_CURE and sample is None:
                raise  # it begins with the path of the user's file
            message = str(error).removeprefix(f"{where}: ")
            raise UserError(f"{where}: {message}") from error
        except (OSError, ValueError, SyntaxError, IndexError) as error:  # what PIL and Arrow raise
            raise UserError(f"{where}: cannot be read ({error}); {self.cure}") from error


def seen_targets(runs: Iterable[Run]) -> frozenset[str]:
    """The keys of the targets whose ground truth some of the runs see (`attention.within`)."""
    return frozenset(target_key(run) for run in runs if run.method.attention.within is not None)
