"""What the folders of two finished runs of the same images say, compared.

Plain values, as JSON has them: the commands print them, the page shows them. Loads no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.metric_names import METRICS
from cliptrase.errors import UserError
from cliptrase.publish.compare import different_digests
from cliptrase.publish.results import Values, digests_of
from cliptrase.publish.run_folders import Facts, Folder
from cliptrase.publish.run_report import plain
from cliptrase.runs import bootstrap
from cliptrase.runs.metrics import class_counts, class_iou, scores
from cliptrase.runs.provenance import COMPUTING


def compare(run: Folder, other: Folder) -> Facts:
    """`run` less `other`: each metric with its paired interval, classes and images, the largest
    difference first; under the rule of `run`.

    The score of an image is its own mIoU. Raises UserError for runs of other images or classes.
    """
    _check_alike(run, other)
    rule = run.metrics["rule"]
    first, second = (scored(each, rule) for each in (run, other))
    metrics = {}
    for metric in METRICS:
        values = [each.points[metric] for each in (first, second)]
        gap = bootstrap.difference(
            values[0], first.resampled[metric], values[1], second.resampled[metric]
        )
        metrics[metric] = [plain(number) for number in (*values, *gap)]
    return {
        "run": run.path.name,
        "other": other.path.name,
        "rule": rule,
        "images": run.metrics["images"],
        "metrics": metrics,  # value, the other's, difference, low, high
        "classes": _moved(run.names, first.by_class, second.by_class),
        "by_image": _moved(run.counts.ids.tolist(), first.by_image, second.by_image),
        "notes": list(notes(run, other)),
    }


@dataclass(frozen=True, eq=False)
class Scored:
    """A run under a rule, in per cent. points: its metrics; resampled: each in every resample;
    by_class: (K,) IoU; by_image: (images,), each image's own mIoU."""

    points: dict[str, float]
    resampled: dict[str, Values]
    by_class: Values
    by_image: Values


def scored(run: Folder, rule: str, resampled: dict[str, Values] | None = None) -> Scored:
    """What two runs are compared by; `resampled` where it is known already."""
    counts, totals = run.counts, class_counts(run.confusion)
    points = scores(rule, *totals)
    if resampled is None:
        resampled = bootstrap.resampled(rule, counts.tp, counts.gt, counts.pred)
    return Scored(
        {metric: float(points[metric]) for metric in METRICS},
        resampled,
        class_iou(rule, *totals),
        by_image(run, rule),
    )


def by_image(run: Folder, rule: str) -> Values:
    """Each image's own mIoU, (images,) in per cent; NaN where nothing is scored."""
    counts = run.counts
    return scores(rule, counts.tp, counts.gt, counts.pred)["mIoU"]


def _check_alike(run: Folder, other: Folder) -> None:
    pair = f"{run.path.name} and {other.path.name}"
    if run.counts.ids.tolist() != other.counts.ids.tolist():
        raise UserError(f"{pair}: are of other images; compare runs of one benchmark and limit")
    if len(run.names) != len(other.names):
        raise UserError(f"{pair}: have other classes; compare runs of one benchmark")
    if not np.array_equal(run.counts.gt, other.counts.gt):
        raise UserError(f"{pair}: have another ground truth; compare runs of one image size")


def by_difference(values: Values, others: Values) -> NDArray[np.intp]:
    """The places of two arrays, the largest difference first, those without one last."""
    return np.argsort(-np.nan_to_num(np.abs(values - others), nan=-1.0), kind="stable")


def _moved(names: Sequence[str], values: Values, others: Values) -> list[Facts]:
    """Each name with its two values and their difference; the largest difference first."""
    return [
        {
            "name": names[place],
            "value": plain(float(values[place])),
            "other": plain(float(others[place])),
            "difference": plain(float(values[place] - others[place])),
        }
        for place in by_difference(values, others)
    ]


def notes(run: Folder, other: Folder) -> Iterator[str]:
    """What a reader of the comparison must know."""
    if run.metrics["rule"] != other.metrics["rule"]:
        yield f"the second run's own rule is {other.metrics['rule']}"
    renamed = [pair for pair in zip(run.names, other.names, strict=True) if pair[0] != pair[1]]
    if renamed:
        some = ", ".join(f"{name} is {theirs}" for name, theirs in renamed[:5])
        yield f"the second run has other names of classes: {some}" + ", …" * (len(renamed) > 5)
    if run.made.get("data") != other.made.get("data"):
        yield "made from other pictures or labels"
    if different := different_digests(digests_of(each.made) for each in (run, other)):
        yield f"made by different code, {' and '.join(different)}"
    for package in COMPUTING:
        versions = [(each.made.get("versions") or {}).get(package) for each in (run, other)]
        if versions[0] != versions[1]:
            yield f"made with {package} {versions[0]} and {versions[1]}"
