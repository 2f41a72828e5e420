"""What the folder of a finished run says: the run in full.

Plain values, as JSON has them: the commands print them, the page shows them. Loads no torch.
"""

import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cliptrase.config.error_names import LIKE_MIOU, OF_LOGITS
from cliptrase.config.metric_names import METRICS, RULES
from cliptrase.publish.ledger import Errors, errors_of, read_ledger, reliability, risk
from cliptrase.publish.results import Values
from cliptrase.publish.run_folders import Facts, Folder
from cliptrase.runs import bootstrap, finished
from cliptrase.runs.ledger import Ledger
from cliptrase.runs.metrics import class_counts, scores

WORST = 10  # confusions that are told


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
            plain(number)
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


def plain(number: float) -> float | None:
    """A number as JSON has it, None for NaN and infinity."""
    return number if math.isfinite(number) else None
