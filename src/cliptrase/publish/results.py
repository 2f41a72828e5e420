"""Finished runs as tables need them: looked up, checked against the plan and the pass, resampled.

Loads no torch. A folder of another configuration, one whose files are not those that were written,
or whose metrics.json is not the one that its pass wrote, gives a reason instead of a number.
"""

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.metric_names import METRICS, OF_COUNTS
from cliptrase.config.schema import Benchmark
from cliptrase.data.fetch.receipts import state
from cliptrase.data.fetch.sources import how_to_get, read_sources
from cliptrase.data.read.prepared import prepared_folder, read_selfcheck, read_subset
from cliptrase.errors import UserError
from cliptrase.files import read_json, sha256_file, sha256_text
from cliptrase.plan import Plan
from cliptrase.publish.ledger import Errors, errors_of, read_ledger
from cliptrase.runs import bootstrap, code, finished, scoring, store

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """One finished run. Metrics and their intervals are per cent, of the rule of its protocol."""

    name: str
    folder: Path
    metrics: Mapping[str, Any]
    sha256: str  # of metrics.json
    commit: str
    code: str  # digests of the prediction code and of the scoring code
    versions: Mapping[str, str]  # of the packages that it was made with
    ledger: bool = True  # whether the file of its errors, if it has one, is as it was written

    def value(self, metric: str) -> float | None:
        """The metric, None where no pixel was scored; of OF_LEDGER None where no ledger is kept."""
        if metric in OF_COUNTS:
            return self.metrics[metric]
        return None if self.errors is None else self.errors.points[metric]

    def interval(self, metric: str) -> tuple[float | None, float | None]:
        """The ends of the 95 % interval of a metric that has a value."""
        if metric in OF_COUNTS:
            low, high = self.metrics["ci"][metric]
            return low, high
        return (None, None) if self.errors is None else self.errors.interval(metric)

    def in_resamples(self, metric: str) -> Values:
        """A metric that has a value in each of the bootstrap's resamples."""
        if metric in OF_COUNTS:
            return self.resampled[metric]
        assert self.errors is not None, f"{self.folder}: no ledger"
        return self.errors.resampled[metric]

    @functools.cached_property
    def errors(self) -> Errors | None:
        """What its ledger of errors says, None where it keeps none. Raises UserError for a damaged
        file."""
        ledger = read_ledger(self.folder) if self.ledger else None
        if ledger is None:
            return None
        return errors_of(ledger, scoring.read_counts(self.folder), self.metrics["rule"])

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
        counts = scoring.read_counts(self.folder)
        image_list = sha256_text(json.dumps(counts.ids.tolist()))
        rule = self.metrics["rule"]
        return image_list, bootstrap.resampled(rule, counts.tp, counts.gt, counts.pred)


class Shelf:
    """The runs of a plan in `results`/runs, each read once.

    `asked`: the benchmarks that the suite was started for, None for all; the others' runs are used
    where they are there.
    """

    def __init__(
        self, plan: Plan, results: Path, data: Path, asked: Sequence[str] | None = None
    ) -> None:
        self.plan, self.results, self.data, self.asked = plan, results, data, asked
        self._read_before: dict[str, tuple[FinishedRun | None, str]] = {}
        self._written: dict[str, tuple[str, str | None]] = {}  # run → pass, sha256 as it wrote it
        for name, each in plan.passes.items():
            written = read_json(finished.pass_file(plan.suite, name, results)) or {}
            self._written |= {run: (name, written.get(run)) for run in each.runs}

    def refuse_none(self) -> None:
        """Raise UserError where no run can be used: what was shown before may be of runs that moved
        away, and stays."""
        if not any(self.find(name)[0] for name in self.plan.runs):
            suite, where = self.plan.suite, self.results / "runs"
            runs = self.plan.runs.items()
            asked = [name for name, run in runs if run.benchmark.name in (self.asked or ())]
            _, reason = self.find_all(asked or [*self.plan.runs])
            command = f"`snakemake --cores 8 all --config suite={shlex.quote(suite)}`"
            why = f"no run of suite {suite} to show: {reason}"
            raise UserError(f"{where}: {why}; {command} makes what it can")

    def find(self, name: str) -> tuple[FinishedRun | None, str]:
        """The run, or None and why it cannot be used."""
        if name not in self._read_before:
            try:
                self._read_before[name] = self._read(name), ""
            except UserError as error:
                self._read_before[name] = None, str(error)
        return self._read_before[name]

    def find_all(self, names: Sequence[str]) -> tuple[list[FinishedRun], str]:
        """Every run of the names; or none, and the reason of the first that cannot be used."""
        results = []
        for name in names:
            result, reason = self.find(name)
            if result is None:
                return [], reason
            results.append(result)
        return results, "" if results else "there is no run"

    def _read(self, name: str) -> FinishedRun:
        run = self.plan.runs[name]
        in_pass, written = self._written[name]
        folder = self.results / "runs" / name
        if not folder.exists():
            raise UserError(self._why_missing(run.benchmark, in_pass))
        status = finished.status(run, folder.parent, self.data, freeze_code=True)
        if not status.scored:
            raise UserError(f"{status.reason}: run pass {in_pass} again")
        metrics = store.read_metrics(folder)
        sha256 = sha256_file(folder / "metrics.json")
        if written not in (None, sha256):
            raise UserError(f"its metrics.json is not what pass {in_pass} wrote: run it again")
        whole = status.state != "ledger"
        result = FinishedRun(name, folder, metrics, sha256, *_made_by(folder), ledger=whole)
        try:
            [(metrics[name], low, high) for name in METRICS for low, high in [metrics["ci"][name]]]
            _ = int(metrics["images"]), result.image_list
        except (KeyError, TypeError, ValueError):
            reason = f"{folder}/metrics.json: not a run's metrics; delete it and run again"
            if not result.code.endswith(code.scoring_digest()):
                reason = f"scored by other code: run pass {in_pass} again, it reads no image"
            raise UserError(reason) from None
        return result

    def _why_missing(self, benchmark: Benchmark, in_pass: str) -> str:
        runs = self.plan.passes[in_pass].runs.values()
        if self.asked is not None and not any(run.benchmark.name in self.asked for run in runs):
            return f"not asked for (benchmarks={','.join(self.asked)})"
        dataset = benchmark.dataset
        prepared = read_selfcheck(prepared_folder(dataset, self.data)) is not None
        if benchmark.folder is None and not prepared:
            return f"dataset {dataset} is not prepared{_what_it_lacks(dataset, self.data)}"
        if benchmark.subset is not None:
            read_subset(dataset, benchmark.subset, self.data)  # raises where it is missing
        return f"not run yet (pass {in_pass})"


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
    """Of a run: the commit, shortened, the two digests of its code, the package versions."""
    made = finished.read_provenance(folder)
    revision, plus, rest = str(made.get("commit", "")).partition("+")
    return revision[:10] + plus + rest, digests_of(made), made.get("versions") or {}


def digests_of(made: Mapping[str, Any]) -> str:
    """The digests of the prediction code and of the scoring code in a provenance.json."""
    return " ".join(str(made.get(key) or "unknown") for key in ("code", "scoring"))
