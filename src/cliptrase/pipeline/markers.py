"""Marker files: inputs of the rules whose change makes Snakemake run a job again.

Snakemake runs a job again when an input is newer than the outputs and has another content. Run
folders, archives and parts of datasets are not declared to it (it deletes what is declared before a
rerun), so it cannot see that one is lost or damaged. Each job that this may happen to has a marker
among its inputs. Where there is a reason to run the job again, it is written to the marker; where
there is none, the marker is dated long ago, and asks for nothing.
"""

import csv
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cliptrase.data.fetch.receipts import has_receipt
from cliptrase.data.fetch.sources import raw_path, read_sources, receipt_path
from cliptrase.data.make import recipes
from cliptrase.files import read_json, write_text
from cliptrase.pipeline import RUNS
from cliptrase.pipeline import data as pipeline_data
from cliptrase.plan import Plan
from cliptrase.publish import figure_8
from cliptrase.publish.digests import edited
from cliptrase.runs.code import PACKAGE, closure, digest
from cliptrase.runs.finished import pass_file

MARKERS = Path("results/markers")
LONG_AGO = 86400  # a date before every output: the second day of 1970


def evaluation(suite: str, name: str, stale: Mapping[str, str]) -> str:
    """Of a pass: asks if it is `stale` (pass → why) though its file is there."""
    reason = stale.get(name, "") if pass_file(suite, name).is_file() else ""
    return _marker(f"passes/{suite}/{name}", reason)


def archive(name: str, data: str) -> str:
    """Of an archive: asks if it is not what its receipt says.

    One that is gone asks for nothing, as a prepared dataset does without it.
    """
    source = read_sources(data).archive(name)
    there = receipt_path(source, data).is_file() and raw_path(source, data).is_file()
    damaged = there and not has_receipt(source, data)
    return _marker(f"archives/{name}", "it is not what its receipt says" if damaged else "")


def weights(model: str, data: str) -> str:
    """Of weights: asks if they are gone; else the passes would fetch them, all at once."""
    receipt = pipeline_data.weights_receipt(model, data)
    lost = receipt.is_file() and not Path(str((read_json(receipt) or {}).get("file"))).is_file()
    return _marker(f"weights/{model}", "they are not where their receipt says" if lost else "")


def dataset(plan: Plan, name: str) -> str:
    """Of a prepared dataset: asks if it lacks a part that a run needs, which may be had by now."""
    check = read_json(pipeline_data.selfcheck(name, plan.data))
    has = (check or {}).get("subsets") or {}
    lacking = sorted(pipeline_data.parts(plan, name) - {*has}) if check is not None else []
    return _marker(f"datasets/{name}", f"it lacks {', '.join(lacking)}" if lacking else "")


def tables(suite: str) -> str:
    """Of the tables: asks if a file was edited since, or a run whose cell is empty has come.

    `regenerate-paper-tables` leaves such cells, in files that are newer than every pass. A run that
    is moved here counts, hence the time of change; one that has no value to show does not.
    """
    if changed := edited(Path("results", suite, "tables")):
        return _marker(f"{suite}/tables", f"{changed} is not what was rendered")
    come = set()
    for file in Path("results", suite, "tables").glob("*.csv"):
        with open(file, encoding="utf-8", newline="") as text:
            empty = {row.get("run") for row in csv.DictReader(text) if not row.get("value")}
        there = [run for run in empty if run and (RUNS / run / "metrics.json").is_file()]
        come |= {run for run in there if os.stat(RUNS / run).st_ctime > os.path.getmtime(file)}
    return _marker(f"{suite}/tables", f"there is now a run {min(come)}" if come else "")


def figures(suite: str) -> str:
    """Of the figures: asks if a file was edited since they were drawn."""
    changed = edited(Path("results", suite, "figures"))
    return _marker(f"{suite}/figures", f"{changed} is not what was drawn" if changed else "")


def pictures(suite: str) -> str:
    """Of the pictures of the page: asks if a file of them is gone, or is not what was kept."""
    changed = edited(Path("results", suite, "pictures"), or_gone=True)
    return _marker(f"{suite}/pictures", f"{changed} is not what was kept" if changed else "")


def page(suite: str) -> str:
    """Of the page: asks if it was edited since it was written, or Figure 8 was made, which is no
    input of it: what is up to date would be asked of every run of SAN."""
    if changed := edited(Path("results", suite)):
        return _marker(f"{suite}/page", f"{changed} is not what was written")
    written, figure = Path("results", suite, "index.html"), figure_8(suite)
    late = (
        written.is_file()
        and figure.is_file()
        and os.path.getmtime(figure) > os.path.getmtime(written)
    )
    return _marker(f"{suite}/page", "there is now a Figure 8" if late else "")


def wandb(suite: str) -> str:
    """Of publishing: asks if W&B did not take something, which fails no job."""
    failed = (read_json(Path("results", suite, "wandb", "ledger.json")) or {}).get("failed")
    return _marker(f"{suite}/publishing", "W&B did not take everything" if failed else "")


def preparing(dataset: str, data: str) -> str:
    """Of the code that a prepared dataset is of."""
    return _code(f"preparing.{dataset}", recipes.code_files(dataset, data))


def publishing() -> str:
    """Of the code that plans and renders tables and draws figures."""
    folders = (PACKAGE / "plan", PACKAGE / "publish")
    return _code("publish", (file for folder in folders for file in folder.rglob("*.py")))


def training(module: str) -> str:
    """Of the code of a module of san/, and of all that it imports."""
    return _code(f"san.{module}", closure(f"san.{module}"))


def _code(name: str, files: Iterable[Path]) -> str:
    """A marker that holds the digest of some code, which no comment and no docstring changes."""
    file, content = MARKERS / "code" / name, digest(frozenset(files))
    if not file.is_file() or file.read_text(encoding="utf-8") != content:
        write_text(file, content)
    return str(file)


def _marker(name: str, reason: str) -> str:
    file = MARKERS / name
    if reason or not file.is_file():
        write_text(file, f"{datetime.now(UTC).isoformat()}: {reason}\n" if reason else "")
    if not reason:
        os.utime(file, (LONG_AGO, LONG_AGO))
    return str(file)
