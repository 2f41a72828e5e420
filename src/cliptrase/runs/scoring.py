"""What metrics.json says, from the counts of a run: no image, no model, no torch."""

import json
import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.config.kinds import facts_of, has_background
from cliptrase.config.metric_names import LOST, METRICS, RULES
from cliptrase.data.read.vocabularies import read_classes
from cliptrase.errors import UserError
from cliptrase.files import sha256_text
from cliptrase.runs import bootstrap, unsupervised
from cliptrase.runs.counts import ImageCounts, RegionCounts
from cliptrase.runs.finished import REGIONS
from cliptrase.runs.ledger import Ledger
from cliptrase.runs.metrics import class_counts, class_iou, lost, scores

DIGITS = 6  # of the per cent in metrics.json
BACKGROUND = "background"  # the name of the class that background words share
DAMAGE = (  # what a file of arrays raises that is missing, damaged, or of something else
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
)
Made = TypeVar("Made")
# A confusion matrix and its images, or regions whose classes are decided by all of them together
Counted = tuple[NDArray[np.int64], ImageCounts, Ledger | None] | RegionCounts


@dataclass(frozen=True)
class Result:
    """What a pass computed for one run. `names` has one name a scored class, in order.

    `regions`: of an unsupervised run, from which all counts were made. A matrix has one column more
    for pixels that no class was predicted for: where there are more clusters than classes, and
    where the words have distractors.
    `ledger`: of its errors, where the run keeps one and the images were just streamed.
    """

    names: list[str]
    confusion: NDArray[np.int64]  # (K, K), rows = ground truth, or (K, K + 1)
    counts: ImageCounts
    flops: int  # of the first image, as torch counts them
    regions: RegionCounts | None = None
    ledger: Ledger | None = None


def result_of(run: Run, counted: Counted, flops: int) -> Result:
    """What a pass counted for a run. Of regions, clusters are matched with classes here.

    Raises UserError for fewer regions than clusters.
    """
    names = class_names(run)
    if not isinstance(counted, RegionCounts):
        matrix, by_image, ledger = counted
        return Result(names, matrix, by_image, flops, ledger=ledger)
    asked = run.method.unsupervised
    assert asked is not None
    count = asked.clusters if isinstance(asked.clusters, int) else len(names)
    clusters = unsupervised.clustered(counted, count)
    classes = unsupervised.matched(unsupervised.shared_pixels(clusters, counted.g, count))
    surplus = count > len(names)
    matrix, by_image = unsupervised.by_class(counted, classes[clusters], surplus=surplus)
    return Result(names, matrix, by_image, flops, counted)


def read_result(folder: Path, run: Run, flops: int) -> Result:
    """What the pass of a run folder computed. Raises UserError as `read_counts`."""
    if run.method.unsupervised is not None:
        with np.load(folder / REGIONS, allow_pickle=False) as file:
            return result_of(run, RegionCounts(**file), flops)
    with np.load(folder / "confusion.npz", allow_pickle=False) as file:
        return Result(class_names(run), file["confusion"], read_counts(folder), flops)


def read_counts(folder: Path | str) -> ImageCounts:
    """per_image.npz of a run folder. Raises UserError naming a file that is damaged or missing."""
    return of_arrays(Path(folder) / "per_image.npz", ImageCounts)


def of_arrays(path: Path, make: Callable[..., Made]) -> Made:
    """What `make` makes of the arrays of a file in a run folder, by their names. Raises UserError
    naming a file that is damaged or missing."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return make(**file)
    except DAMAGE as error:
        raise damaged(path) from error


def damaged(path: Path) -> UserError:
    """Of a file that a run folder lacks, or that holds something else."""
    return UserError(f"{path}: missing or damaged; delete {path.parent} and make the run again")


def class_names(run: Run) -> list[str]:
    """The scored classes by their index in confusion matrices: the first name of each.

    Where the benchmark has a background, `background` comes last, under protocol slide first.
    """
    names = [synonyms[0] for synonyms in read_classes(run.vocabulary.classes.path)]
    background = [BACKGROUND] if has_background(run) else []
    return background + names if facts_of(run).whole_pictures else names + background


def metrics(run: Run, result: Result) -> dict[str, object]:
    """The content of metrics.json: per cent, `None` for what does not exist, no NaN.

    `without_pixels` names the classes that no ground truth holds, where there are such. `lost` is
    there where the words have distractors.
    """
    beside = (LOST,) if run.vocabulary.distractors else ()
    rule, counts = run.protocol.rule, result.counts
    totals = class_counts(result.confusion)
    points = {name: scores(name, *totals) for name in RULES}
    own = {**points[rule], LOST: lost(*totals[1:])}
    values = bootstrap.resampled(rule, counts.tp, counts.gt, counts.pred)
    intervals = {
        metric: bootstrap.interval(float(own[metric]), values[metric])
        for metric in (*METRICS, *beside)
    }
    ious = zip(result.names, class_iou(rule, *totals), strict=True)
    skipped = int(counts.skipped.sum())
    absent = [name for name, pixels in zip(result.names, totals[1], strict=True) if not pixels]
    return {
        **{metric: _plain(own[metric]) for metric in (*METRICS, *beside)},
        "rule": rule,
        "rules": {
            name: {metric: _plain(values[metric]) for metric in METRICS}
            for name, values in points.items()
        },
        "ci": {metric: [_plain(low), _plain(high)] for metric, (low, high) in intervals.items()},
        "iou": [{"name": name, "value": _plain(value)} for name, value in ious],
        "images": len(counts.ids) - skipped,
        "skipped": skipped,
        "classes": len(result.names),
        "vocabulary": vocabulary_digest(run),
        "flops": result.flops,
        **({"without_pixels": absent} if absent else {}),
    }


def vocabulary_digest(run: Run) -> str:
    """sha256 of what the classes are called: names, background words, templates and distractors, by
    content."""
    entries = {**run.vocabulary.lists, "distractors": run.vocabulary.distractors}
    if entries["distractors"] is None:
        del entries["distractors"]
    lists = {key: None if entry is None else entry.sha256 for key, entry in entries.items()}
    return sha256_text(json.dumps(lists, sort_keys=True))


def _plain(value: float | np.float64 | NDArray[np.float64]) -> float | None:
    number = float(value)
    return round(number, DIGITS) if math.isfinite(number) else None
