"""Finished runs as tables need them: looked up, checked against the plan and the pass, resampled.

Loads no torch. A folder of another configuration, one whose files are not those that were written,
or whose metrics.json is not the one that its pass wrote, gives a reason instead of a number.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.schema import Benchmark
from cliptrase.data.fetch.receipts import state
from cliptrase.data.fetch.sources import how_to_get, read_sources
from cliptrase.data.read.prepared import prepared_folder, read_selfcheck, read_subset
from cliptrase.errors import UserError
from cliptrase.files import sha256_file
from cliptrase.plan import Plan
from cliptrase.runs import bootstrap, seal, store

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Result:
    """One finished run. Metrics are per cent, of the rule of its protocol."""

    name: str
    folder: Path
    metrics: Mapping[str, Any]
    sha256: str  # of metrics.json
    commit: str
    code: str  # digest of the code that made it
    versions: Mapping[str, str]  # of the packages that it was made with

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
    def image_list(self) -> str:
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
        image_list = hashlib.sha256(json.dumps(counts.ids.tolist()).encode()).hexdigest()
        rule = self.metrics["rule"]
        return image_list, bootstrap.resampled(rule, counts.tp, counts.gt, counts.pred)


class Shelf:
    """The runs of a plan in `results`/runs, each read once."""

    def __init__(self, plan: Plan, results: Path, data: Path) -> None:
        self.plan, self.results, self.data = plan, results, data
        self._read_before: dict[str, tuple[Result | None, str]] = {}
        self._written = {  # run → its pass, and the digest of metrics.json that the pass wrote
            run: (each.name, self._pass_file(each.name).get(run))
            for each in plan.passes.values()
            for run in each.runs
        }

    def find(self, name: str) -> tuple[Result | None, str]:
        """The run, or None and why it cannot be used."""
        if name not in self._read_before:
            try:
                self._read_before[name] = (self._read(name), "")
            except UserError as error:
                self._read_before[name] = (None, str(error))
        return self._read_before[name]

    def find_all(self, names: Sequence[str]) -> tuple[list[Result], str]:
        """Every run of the names; or none, and the reason of the first that cannot be used."""
        pairs = [self.find(name) for name in names]
        results = [result for result, _ in pairs if result is not None]
        if results and len(results) == len(names):
            return results, ""
        return [], next((reason for result, reason in pairs if result is None), "there is no run")

    def _read(self, name: str) -> Result:
        run = self.plan.runs[name]
        in_pass, written = self._written[name]
        folder = self.results / "runs" / name
        if not folder.exists():
            raise UserError(self._why_missing(run.benchmark, in_pass))
        if gone := [file for file in store.FILES if not (folder / file).is_file()]:
            raise UserError(f"{gone[0]} is missing: run pass {in_pass} again")
        if not store.finished(folder.parent, run, self.data, freeze_code=True):
            why = seal.damage(folder) or "made from other data or labels"
            raise UserError(f"{why}: run pass {in_pass} again")
        metrics = store.read_metrics(folder)
        sha256 = sha256_file(folder / "metrics.json")
        if written not in (None, sha256):
            raise UserError(f"its metrics.json is not what pass {in_pass} wrote: run it again")
        result = Result(name, folder, metrics, sha256, *_made_by(folder))
        try:
            [(result.value(metric), result.interval(metric)) for metric in store.METRICS]
            _ = result.images, result.image_list
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{folder}/metrics.json: not a run's metrics; delete {folder} and run again"
            ) from None
        return result

    def _why_missing(self, benchmark: Benchmark, in_pass: str) -> str:
        dataset = benchmark.dataset
        prepared = read_selfcheck(prepared_folder(dataset, self.data)) is not None
        if benchmark.folder is None and not prepared:
            return f"dataset {dataset} is not prepared{_what_it_lacks(dataset, self.data)}"
        if benchmark.subset is not None:
            read_subset(dataset, benchmark.subset, self.data)  # raises where it is missing
        return f"not run yet (pass {in_pass})"

    def _pass_file(self, name: str) -> dict[str, str]:
        """run → sha256 of its metrics.json, as the pass wrote it; empty without a readable file."""
        path = self.results / "passes" / self.plan.suite / f"{name}.json"
        content = _read_json(path)
        return content if isinstance(content, dict) else {}


def _what_it_lacks(dataset: str, data: Path) -> str:
    """Why a dataset from archives is not prepared; "" for one that is drawn."""
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


def _made_by(folder: Path) -> tuple[str, str, dict[str, str]]:
    """The commit, shortened, the code digest and the package versions of a run."""
    made = _read_json(folder / seal.PROVENANCE) or {}
    revision, plus, rest = str(made.get("commit", "")).partition("+")
    return revision[:10] + plus + rest, str(made.get("code", "")), made.get("versions") or {}


def _read_json(path: Path) -> Any:
    """What a JSON file holds, None where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
