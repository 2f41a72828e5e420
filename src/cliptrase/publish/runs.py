"""Finished runs as tables need them: found, checked against the plan and the pass, resampled.

Loads no torch. A folder of another configuration, one whose files are not those that were written,
or whose metrics.json is not the one that its pass wrote down, gives a reason instead of a number.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.data.fetch.receipts import state
from cliptrase.data.fetch.sources import how_to_get, read_sources
from cliptrase.data.read.prepared import prepared_folder, read_selfcheck, read_subset
from cliptrase.errors import UserError
from cliptrase.files import sha256_file
from cliptrase.plan import Plan
from cliptrase.runs import bootstrap, seal, store

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run. Metrics are per cent, of the rule of its protocol."""

    name: str
    folder: Path
    metrics: dict[str, Any]
    sha256: str  # of metrics.json
    commit: str
    code: str  # digest of the code that made it: numbers of different code are not compared

    @property
    def images(self) -> int:
        """How many images were scored."""
        return int(self.metrics["images"])

    @property
    def flops(self) -> int | None:
        """Floating-point operations of one image, as torch counts them."""
        return self.metrics.get("flops")

    def value(self, metric: str) -> float | None:
        """The metric, None where no pixel was scored."""
        return self.metrics[metric]

    def interval(self, metric: str) -> tuple[float | None, float | None]:
        """Its 95 % bootstrap interval."""
        low, high = self.metrics["ci"][metric]
        return low, high

    @property
    def listed(self) -> str:
        """sha256 of the images, in order. Raises UserError for a damaged file, as `resampled`."""
        return self._per_image[0]

    @property
    def resampled(self) -> dict[str, Values]:
        """metric → its value in each of the bootstrap's resamples."""
        return self._per_image[1]

    @functools.cached_property
    def _per_image(self) -> tuple[str, dict[str, Values]]:
        """Read once and given up: the counts of all runs together would fill the memory."""
        counts = store.read_counts(self.folder)
        rule = self.metrics["rule"]
        listed = hashlib.sha256(json.dumps(counts.ids.tolist()).encode()).hexdigest()
        return listed, bootstrap.resampled(rule, counts.tp, counts.gt, counts.pred)

    def same_images(self, other: Run) -> bool:
        """Whether both are of the same images in the same order: only then is a pair a pair."""
        return self.listed == other.listed


class Shelf:
    """The runs of a plan in `results`/runs, each looked at once."""

    def __init__(self, plan: Plan, results: Path, data: Path) -> None:
        self.plan, self.results, self.data = plan, results, data
        self._found: dict[str, tuple[Run | None, str]] = {}
        self._recorded = {
            run: (one.name, self._pass_file(one.name).get(run))
            for one in plan.passes.values()
            for run in one.runs
        }

    def find(self, name: str) -> tuple[Run | None, str]:
        """The run, or None and why it cannot be used."""
        if name not in self._found:
            try:
                self._found[name] = (self._read(name), "")
            except UserError as error:
                self._found[name] = (None, str(error))
        return self._found[name]

    def _read(self, name: str) -> Run:
        config = self.plan.runs[name]
        in_pass, recorded = self._recorded[name]
        runs = self.results / "runs"
        folder = runs / name
        if not folder.exists():
            raise UserError(self._why_missing(config["benchmark"], in_pass))
        if gone := [file for file in store.FILES if not (folder / file).is_file()]:
            raise UserError(f"{gone[0]} is missing: run pass {in_pass} again")
        if not store.finished(runs, config, self.data, freeze_code=True):
            why = seal.damage(folder) or "made from other data or labels"
            raise UserError(f"{why}: run pass {in_pass} again")
        metrics = store.read_metrics(folder)
        sha256 = sha256_file(folder / "metrics.json")
        if recorded is not None and recorded != sha256:
            raise UserError(f"its metrics.json is not what pass {in_pass} wrote: run it again")
        run = Run(name, folder, metrics, sha256, *_made_by(folder))
        try:
            [(run.value(metric), run.interval(metric)) for metric in store.METRICS]
            _ = run.images, run.listed
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{folder}/metrics.json: not a run's metrics; delete {folder} and run again"
            ) from None
        return run

    def _why_missing(self, benchmark: dict[str, Any], in_pass: str) -> str:
        dataset = benchmark["dataset"]
        if (
            "folder" not in benchmark
            and read_selfcheck(prepared_folder(dataset, self.data)) is None
        ):
            return f"dataset {dataset} is not prepared{_lacking(dataset, self.data)}"
        if "subset" in benchmark:
            read_subset(dataset, benchmark["subset"], self.data)  # raises where it is not there
        return f"not run yet (pass {in_pass})"

    def _pass_file(self, name: str) -> dict[str, str]:
        """run → sha256 of its metrics.json, as the pass wrote it; empty without a readable file."""
        path = self.results / "passes" / self.plan.suite / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _lacking(dataset: str, data: Path) -> str:
    """What a dataset from archives is not prepared for; "" for one that is drawn."""
    source = read_sources(data).datasets.get(dataset)
    if source is None:
        return ""
    reasons = [
        f"; {one.archive.name} is {one.status}: {how_to_get(one.archive, data)}"
        for one in (state(archive, data, deep=False) for archive in source.needed())
        if one.status not in ("complete", "unverified")
    ]
    why = f"; its archives are there: `cliptrase prepare {dataset} --data {data}` says why"
    return "".join(reasons) or why


def mean_value(runs: Sequence[Run], metric: str) -> float | None:
    """The mean of a metric over runs of several benchmarks, None where one has no value."""
    values = [run.value(metric) for run in runs]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def mean_resampled(runs: Sequence[Run], metric: str) -> Values:
    """The same in each resample: the mean of the runs' resampled values."""
    return bootstrap.average([run.resampled[metric] for run in runs])


def _made_by(folder: Path) -> tuple[str, str]:
    """The commit, shortened, and the code digest of a run."""
    try:
        said = json.loads((folder / seal.PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = {}
    revision, plus, rest = str(said.get("commit", "")).partition("+")
    return revision[:10] + plus + rest, str(said.get("code", ""))
