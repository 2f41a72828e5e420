"""What the folders of finished runs say: one run in full, or two runs of the same images compared.

Plain values, as JSON has them: the commands print them, the page shows them. Loads no torch.
"""

import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cliptrase.config.error_names import LIKE_MIOU, OF_LOGITS
from cliptrase.config.metric_names import METRICS, RULES
from cliptrase.errors import UserError, nearest
from cliptrase.publish.compare import different_digests
from cliptrase.publish.ledger import Errors, errors_of, read_ledger, reliability, risk
from cliptrase.publish.results import digests_of
from cliptrase.runs import bootstrap, finished, scoring, store
from cliptrase.runs.counts import ImageCounts
from cliptrase.runs.ledger import Ledger
from cliptrase.runs.metrics import class_counts, class_iou, scores
from cliptrase.runs.provenance import COMPUTING

RUN_NAME = f"[!.]*.{store.NAME_END}/"  # the pattern of a run's folder
WORST = 10  # confusions that are told
DIGITS = 10  # of its identity, at the end of a run's name
Facts = dict[str, Any]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Folder:
    """The folder of a finished run. Raises UserError, when it is read, for a damaged one."""

    path: Path

    @cached_property
    def metrics(self) -> Facts:
        """metrics.json."""
        return store.read_metrics(self.path)

    @cached_property
    def made(self) -> Mapping[str, Any]:
        """provenance.json."""
        return finished.read_provenance(self.path)

    @cached_property
    def counts(self) -> ImageCounts:
        """Pixels by image and class."""
        return scoring.read_counts(self.path)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K), rows = ground truth; one column more for pixels of no class."""
        with np.load(self.path / "confusion.npz", allow_pickle=False) as file:
            return file["confusion"]

    @property
    def names(self) -> list[str]:
        """The names of the scored classes."""
        return [each["name"] for each in self.metrics["iou"]]


def run_folders(results: Path) -> list[Path]:
    """The folders of runs, by name, damaged ones too."""
    return sorted((results / "runs").glob(RUN_NAME))


def found_folders(results: Path) -> list[Path]:
    """The same, and those that `out=` wrote into the folder itself."""
    return sorted([*run_folders(results), *results.glob(RUN_NAME)], key=lambda each: each.name)


def find_run(results: Path, word: str) -> Folder:
    """The run that a word means: a folder, a name (with or without the digits at its end), or the
    only name that has the word in it, of a results folder or of one that `out=` named.

    Raises UserError for none, several, and one whose files are not those that were written.
    """
    folder = Path(word)
    if not any((folder / name).is_file() for name in finished.FILES):
        if not word.strip("./"):
            raise UserError(f"run {word!r}: this folder holds no run; give the folder of one")
        folders = {path.name: path for path in found_folders(results)}
        names = list(folders)
        whole = [name for name in names if word in (name, name[: -1 - DIGITS])]
        holding = whole or [name for name in names if word in name]
        if not holding:
            near = nearest(word, names).partition("There is:")[0]  # of hundreds
            hint = near + "`cliptrase list runs` shows all" if names else "there is none"
            raise UserError(f"run {word!r}: no such run in {results / 'runs'}; {hint}")
        if len(holding) > 1:
            some = ", ".join(holding[:5]) + ", …" * (len(holding) > 5)
            raise UserError(f"run {word!r}: {len(holding)} runs have it in their names: {some}")
        folder = folders[holding[0]]
    if reason := finished.damage_of(folder):
        raise UserError(f"{folder}: {reason}; delete it and make the run again")
    return Folder(folder.resolve())


def report(run: Folder) -> Facts:
    """Everything that a run's folder says: scores under all rules, classes, confusions, errors by
    category where they are kept, cost, where it comes from, and the command that makes it."""
    metrics, made, counts = run.metrics, run.made, run.counts
    totals = class_counts(run.confusion)
    resampled = bootstrap.totals(counts.tp, counts.gt, counts.pred)
    rows = zip(metrics["iou"], totals[1].tolist(), totals[2].tolist(), strict=True)
    return {
        "run": run.path.name,
        "rule": metrics["rule"],
        "scores": {rule: _intervals(rule, totals, resampled) for rule in RULES},
        "images": metrics["images"],
        "skipped": metrics["skipped"],
        "classes": [
            {**each, "pixels": pixels, "predicted": predicted} for each, pixels, predicted in rows
        ],
        "confusions": list(_confusions(run)),
        "errors": _errors(run),
        "cost": {
            "seconds": made.get("seconds", {}),
            "runs_in_pass": made.get("runs_in_pass"),
            "peak_memory_bytes": max(made.get("peak_memory_bytes", {}).values(), default=None),
            "flops": metrics["flops"],
        },
        "made": {
            key: made.get(key)
            for key in ("commit", "started", "finished", "code", "data", "versions", "host")
        },
        "words": made.get("words"),
        "working_folder": made.get("working_folder"),
        "data_folder": made.get("data_folder"),
        "command": command_of(made),
        "config": yaml.load((run.path / "config.yaml").read_bytes(), finished.LOADER),
    }


def command_of(made: Mapping[str, Any]) -> str | None:
    """The command that makes a run again, None for one of a version that did not write it down.

    Its paths are relative to the working folder that the run was made in.
    """
    overrides = made.get("overrides")
    if overrides is None:
        return None
    words = [override for override in overrides if not override.startswith("data=")]
    data = str(made["data_folder"])
    if made.get("working_folder"):
        data = os.path.relpath(data, made["working_folder"])
    quoted = data if re.fullmatch(r"[\w./-]+", data) else f"'{data}'"  # as Hydra reads it
    return shlex.join(["python", "-m", "cliptrase.evaluate", *words, f"data={quoted}"])


def _intervals(
    rule: str, totals: Sequence[NDArray[Any]], resampled: Sequence[Values]
) -> dict[str, list[float | None]]:
    """metric → value, low, high in per cent, of the totals of a run and of its resamples."""
    points, values = scores(rule, *totals), scores(rule, *resampled)
    return {
        metric: [
            _plain(number)
            for number in (
                float(points[metric]),
                *bootstrap.interval(float(points[metric]), values[metric]),
            )
        ]
        for metric in METRICS
    }


def _errors(run: Folder) -> Facts | None:
    """The ledger of its errors, None where it keeps none. categories: of each its pixels, its share
    of the scored pixels with its interval, and the true class that most of them are of; means: what
    is computed like mIoU, with its interval; certainty: None where no logit of a pixel decides."""
    ledger = read_ledger(run.path)
    if ledger is None:
        return None
    errors = errors_of(ledger, run.counts, run.metrics["rule"])
    values = {name: [point, *errors.interval(name)] for name, point in errors.points.items()}
    by_class = ledger.by_class(len(run.names))
    categories = [
        {
            "name": name,
            "pixels": int(pixels.sum()),
            "share": values[name],
            "most": run.names[pixels.argmax()] if pixels.any() else "",
            "of": int(pixels.max()),
        }
        for name, pixels in by_class.items()
    ]
    return {
        "categories": categories,
        "means": {name: values[name] for name in LIKE_MIOU},
        "certainty": _certainty(ledger, errors) if len(ledger.confidence) else None,
    }


def _certainty(ledger: Ledger, errors: Errors) -> Facts:
    """How far its logits can be trusted, in per cent. reliability: of each group of confidence its
    mean confidence, how much of it is right, and its pixels; risk: how much is wrong of the most
    confident tenth of the pixels, two tenths, … all."""
    groups, wrong = reliability(ledger.by_confidence), risk(ledger.by_confidence)
    parts = zip(
        groups.confidence.tolist(), groups.right.tolist(), groups.pixels.tolist(), strict=True
    )
    return {
        **{name: errors.points[name] for name in OF_LOGITS},
        "reliability": [part for part in parts if part[2]],
        "risk": wrong[len(wrong) // 10 - 1 :: len(wrong) // 10].tolist(),
    }


def _confusions(run: Folder) -> Iterator[Facts]:
    """The pairs of classes that most pixels are confused between, the most first."""
    wrong, names = run.confusion.copy(), [*run.names, "no class"]
    truth = wrong.sum(axis=1)
    np.fill_diagonal(wrong, 0)
    for place in np.argsort(-wrong, axis=None, kind="stable")[:WORST]:
        row, column = (int(each) for each in np.unravel_index(place, wrong.shape))
        if pixels := int(wrong[row, column]):
            yield {
                "truth": names[row],
                "predicted": names[column],
                "pixels": pixels,
                "share": 100 * pixels / int(truth[row]),
            }


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
        metrics[metric] = [_plain(number) for number in (*values, *gap)]
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
            "value": _plain(float(values[place])),
            "other": _plain(float(others[place])),
            "difference": _plain(float(values[place] - others[place])),
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


def _plain(number: float) -> float | None:
    return number if math.isfinite(number) else None
