"""Marker files: inputs of the rules whose change makes Snakemake run a job again.

Snakemake runs a job again when one of its inputs is newer than its outputs and has another content.
It declares no run folder (it deletes what is declared before a rerun), no archive and no part of a
dataset, so it cannot see that one is lost or damaged. Each job that this may happen to has a marker
among its inputs: where there is a reason to run the job again, the marker is written with it; where
there is none, the marker is dated long ago, and asks for nothing.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cliptrase.data.fetch.receipts import has_receipt
from cliptrase.data.fetch.sources import raw_path, read_sources, receipt_path
from cliptrase.data.make import recipes
from cliptrase.files import atomic_write, read_json
from cliptrase.pipeline import PACKAGE, RUNS, pass_file
from cliptrase.pipeline import data as pipeline_data
from cliptrase.plan import Plan
from cliptrase.runs.code import digest

MARKERS = Path("results/markers")
LONG_AGO = 86400  # a date before every output: the second day of 1970


def marker(name: str, reason: str) -> str:
    """The marker `name`, with its reason why a job must run again; "" where it need not."""
    file = MARKERS / name
    if reason or not file.is_file():
        _write(file, f"{datetime.now(UTC).isoformat()}: {reason}\n" if reason else "")
    if not reason:
        os.utime(file, (LONG_AGO, LONG_AGO))
    return str(file)


def preparing(dataset: str, data: str) -> str:
    """The marker of the code that a prepared dataset is of."""
    return _code(f"preparing.{dataset}", recipes.code_files(dataset, data))


def publishing() -> str:
    """The marker of the code that renders tables and draws figures."""
    return _code("publish", (PACKAGE / "publish").rglob("*.py"))


def _code(name: str, files: Iterable[Path]) -> str:
    """A marker that holds the digest of some code, which no comment and no docstring changes."""
    file, content = MARKERS / "code" / name, f"{digest(frozenset(files))}\n"
    if not file.is_file() or file.read_text(encoding="utf-8") != content:
        _write(file, content)
    return str(file)


def evaluation(suite: str, name: str, stale: Mapping[str, str]) -> str:
    """Asks that a pass is made again which is `stale` (pass → why) though its file is there."""
    reason = stale.get(name, "") if pass_file(suite, name).is_file() else ""
    return marker(f"passes/{suite}/{name}", reason)


def archive(name: str, data: str) -> str:
    """Asks that an archive is checked again which is not what its receipt says.

    An archive that is gone asks for nothing: a prepared dataset does without it.
    """
    source = read_sources(data).archive(name)
    there = receipt_path(source, data).is_file() and raw_path(source, data).is_file()
    false = there and not has_receipt(source, data)
    return marker(f"archives/{name}", f"{name} is not what its receipt says" if false else "")


def weights(model: str, data: str) -> str:
    """Asks that weights are fetched again which are not where their receipt says.

    Else the passes would fetch them, all at once.
    """
    receipt = pipeline_data.weights_receipt(model, data)
    lost = receipt.is_file() and not Path(str((read_json(receipt) or {}).get("file"))).is_file()
    return marker(f"weights/{model}", f"the weights of {model} are gone" if lost else "")


def dataset(plan: Plan, name: str) -> str:
    """Asks that a dataset is prepared again which lacks a part that a run needs.

    The part is fetched if it can be had by now.
    """
    check = read_json(pipeline_data.selfcheck(name, plan.data))
    has = (check or {}).get("subsets") or {}
    lacking = sorted(pipeline_data.parts(plan, name) - {*has}) if check is not None else []
    reason = f"{name} lacks {', '.join(lacking)}" if lacking else ""
    return marker(f"datasets/{name}", reason)


def tables(suite: str) -> str:
    """Asks that tables are rendered again which have an empty cell whose run is there now.

    `regenerate-paper-tables` renders what there is, also where a run is missing: its files are then
    newer than every pass, and a run that came back by itself would go unnoticed.
    """
    empty = set()
    for file in Path("results", suite, "tables").glob("*.csv"):
        with open(file, encoding="utf-8", newline="") as text:
            empty |= {row["run"] for row in csv.DictReader(text) if not row.get("value")}
    came = sorted(run for run in empty if run and (RUNS / run / "metrics.json").is_file())
    return marker(f"{suite}/tables", f"there is now a run {came[0]}" if came else "")


def wandb(suite: str) -> str:
    """Asks that what W&B did not take the last time is published again.

    A failure of W&B fails no job, so only the ledger knows.
    """
    failed = (read_json(Path("results", suite, "wandb", "ledger.json")) or {}).get("failed")
    return marker(f"{suite}/publishing", "W&B did not take everything" if failed else "")


def _write(file: Path, content: str) -> None:
    with atomic_write(file, "w") as text:
        text.write(content)
