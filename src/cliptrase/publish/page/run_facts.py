"""What the page says of a run: its dialog, its worst class, and what its pairs are made of."""

import json
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.metric_names import METRICS
from cliptrase.publish import run_pairs, run_report
from cliptrase.publish.results import FinishedRun
from cliptrase.publish.run_folders import Facts, Folder
from cliptrase.publish.run_pairs import Scored
from cliptrase.publish.tables.render import ABSENT, interval, number
from cliptrase.runs.metrics import class_counts

MOST = 10  # images that differ most between two runs, and that a run is worst on


class Read(NamedTuple):
    """What is kept of a run: the counts of all runs together would fill the memory.

    facts: for its dialog; truth: the same for runs of the same images and ground truth; scored:
    under its own rule.
    """

    path: Path
    facts: Facts
    truth: str
    scored: Scored


def read_run(run: FinishedRun) -> Read:
    """Read the folder of a run. Raises UserError for a damaged one."""
    folder = Folder(run.folder)
    truth = sha256(json.dumps(folder.counts.ids.tolist()).encode())
    truth.update(folder.counts.gt.tobytes())
    own = run_pairs.scored(folder, folder.metrics["rule"], run.resampled)
    return Read(run.folder, _run(folder, own.by_image), truth.hexdigest(), own)


def _run(folder: Folder, by_image: NDArray[np.float64]) -> Facts:
    """A run in full, as `cliptrase show` says it, with the images that it is worst on."""
    facts = run_report.report(folder)
    order = np.argsort(np.nan_to_num(by_image, nan=np.inf), kind="stable")
    order = order[: int(np.isfinite(by_image).sum())]
    ids = folder.counts.ids.tolist()
    return {
        "names": folder.names,
        "rule": facts["rule"],
        "images": facts["images"],
        "skipped": facts["skipped"],
        "scores": {
            rule: {metric: _spanned(*scores[metric]) for metric in METRICS}
            for rule, scores in facts["scores"].items()
        },
        "classes": _classes(folder),
        "confusions": facts["confusions"],
        "errors": _errors(facts["errors"]),
        "certainty": facts["errors"] and facts["errors"]["certainty"],
        "worst": [(ids[place], round(float(by_image[place]), 1)) for place in order[:MOST]],
        "cost": facts["cost"],
        "made": facts["made"] | {key: facts[key] for key in ("working_folder", "data_folder")},
        "command": facts["command"],
        "config": (folder.path / "config.yaml").read_text(encoding="utf-8"),
        "shown": [],
    }


def _errors(errors: Facts | None) -> list[list[str]]:
    """The ledger of a run, a row of texts each category and mean; none where it keeps none."""
    if errors is None:
        return []
    rows = [
        [each["name"], *_spanned(*each["share"]), each["most"]] for each in errors["categories"]
    ]
    return rows + [[name, *_spanned(*each), ""] for name, each in errors["means"].items()]


def _spanned(value: float | None, low: float | None, high: float | None) -> list[str]:
    if value is None:
        return [ABSENT, ""]
    return [number(value), "" if low is None or high is None else interval(low, high)]


def _classes(folder: Folder) -> Facts:
    """Pixels of each class; and what most of those that are missed are taken for, an index (the
    number of classes for no class, −1 for nothing), with its per cent of the class."""
    wrong = folder.confusion.copy()
    np.fill_diagonal(wrong, 0)
    tp, gt, pred = class_counts(folder.confusion)
    most = wrong.max(axis=1)
    return {
        "tp": tp.tolist(),
        "gt": gt.tolist(),
        "pred": pred.tolist(),
        "taken": np.where(most > 0, wrong.argmax(axis=1), -1).tolist(),
        "of": np.round(100 * most / np.maximum(gt, 1), 1).tolist(),
    }


def worst_class(folder: Folder) -> Facts | None:
    """The scored class of the lowest IoU and its share of the scored pixels, None where none is
    scored."""
    values = [each["value"] for each in folder.metrics["iou"]]
    scored = [place for place, value in enumerate(values) if value is not None]
    if not scored:
        return None
    place = min(scored, key=lambda each: values[each])
    facts, names = _classes(folder), [*folder.names, "no class"]
    return {
        "name": names[place],
        "iou": f"{values[place]:.1f}",
        "share": f"{100 * facts['gt'][place] / max(1, sum(facts['gt'])):.2f}",
        "taken": names[facts["taken"][place]] if facts["taken"][place] >= 0 else "",
        "of": f"{facts['of'][place]:.1f}",
    }
