"""What metrics.json says, from the counts of a run: no image, no model, no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.config.kinds import facts_of, has_background
from cliptrase.config.metric_names import METRICS, RULES
from cliptrase.data.read.vocabularies import read_classes
from cliptrase.runs import bootstrap
from cliptrase.runs.counts import ImageCounts
from cliptrase.runs.metrics import class_counts, class_iou, scores

DIGITS = 6  # of the per cent in metrics.json
BACKGROUND = "background"  # the name of the class that background words share


def class_names(run: Run) -> list[str]:
    """The scored classes by their index in confusion matrices: the first name of each.

    Where the benchmark has a background, `background` comes last, under protocol slide first.
    """
    names = [synonyms[0] for synonyms in read_classes(run.vocabulary.classes.path)]
    background = [BACKGROUND] if has_background(run) else []
    return background + names if facts_of(run).whole_pictures else names + background


def metrics(
    run: Run, names: Sequence[str], confusion: NDArray[np.int64], counts: ImageCounts, flops: int
) -> dict[str, object]:
    """The content of metrics.json: per cent, `None` for what does not exist, no NaN.

    `names` has one name a scored class, in order. `flops` of the first image, as torch counts them.
    """
    rule = run.protocol.rule
    totals = class_counts(confusion)
    points = {name: scores(name, *totals) for name in RULES}
    values = bootstrap.resampled(rule, counts.tp, counts.gt, counts.pred)
    intervals = {
        metric: bootstrap.interval(float(points[rule][metric]), values[metric])
        for metric in METRICS
    }
    ious = zip(names, class_iou(rule, *totals), strict=True)
    skipped = int(counts.skipped.sum())
    return {
        **{metric: _plain(points[rule][metric]) for metric in METRICS},
        "rule": rule,
        "rules": {
            name: {metric: _plain(values[metric]) for metric in METRICS}
            for name, values in points.items()
        },
        "ci": {metric: [_plain(low), _plain(high)] for metric, (low, high) in intervals.items()},
        "iou": [{"name": name, "value": _plain(value)} for name, value in ious],
        "images": len(counts.ids) - skipped,
        "skipped": skipped,
        "classes": len(names),
        "vocabulary": vocabulary_digest(run),
        "flops": flops,
    }


def vocabulary_digest(run: Run) -> str:
    """sha256 of what the classes are called: names, background words and templates, by content."""
    lists = {key: None if entry is None else entry.sha256 for key, entry in run.vocabulary}
    return hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()


def _plain(value: float | np.float64 | NDArray[np.float64]) -> float | None:
    number = float(value)
    return round(number, DIGITS) if math.isfinite(number) else None
