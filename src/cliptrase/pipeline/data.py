"""What the Snakefile asks about archives and weights: receipts, and what only the user can get.

Imports neither torch nor numpy, and asks no server.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cliptrase.data.fetch.receipts import has_receipt
from cliptrase.data.fetch.sources import (
    MIRROR as MIRROR,
)
from cliptrase.data.fetch.sources import (
    Archive,
    DatasetSource,
    missing_gated,
    raw_path,
    read_sources,
    receipt_path,
)
from cliptrase.data.fetch.sources import (
    mirror_of as mirror_of,
)
from cliptrase.files import read_json
from cliptrase.plan import Pass, Plan


def selfcheck(dataset: str, data: Path | str) -> str:
    """The file that a prepared dataset has."""
    return str(Path(data) / "prepared" / dataset / "selfcheck.json")


def prepared(one: Pass, data: Path | str) -> list[str]:
    """The file that says what a pass reads; none for a user's folder, whose digest is in the names
    of its runs."""
    return [] if folder_of(one) else [selfcheck(one.dataset, data)]


def folder_of(one: Pass) -> dict[str, str] | None:
    """Where the pictures and masks of a pass lie, None for a dataset that is prepared."""
    return next(iter(one.runs.values()))["benchmark"].get("folder")


def source_of(dataset: str, data: Path | str) -> DatasetSource | None:
    """The archives of a dataset, None for one that is drawn."""
    return read_sources(data).datasets.get(dataset)


def lacking(
    plan: Plan, passes: Iterable[str], mirror: str | None = None
) -> dict[str, list[Archive]]:
    """dataset → the archives that only the user can get and that are not there, where some are so.

    A dataset that is prepared lacks nothing, whatever became of its archives; nor does any where
    there is a mirror, which serves all archives.
    """
    found: dict[str, list[Archive]] = {}
    if mirror:
        return found
    for dataset in sorted({plan.passes[name].dataset for name in passes}):
        source = source_of(dataset, plan.data)
        if source and not Path(selfcheck(dataset, plan.data)).is_file():
            found[dataset] = missing_gated(source, plan.data)
    return {dataset: archives for dataset, archives in found.items() if archives}


def without(plan: Plan, passes: list[str], datasets: Iterable[str]) -> list[str]:
    """The passes of other datasets than these."""
    return [name for name in passes if plan.passes[name].dataset not in datasets]


def receipts(dataset: str, data: Path | str) -> list[str]:
    """The receipts of the archives that a dataset is made from."""
    source = source_of(dataset, data)
    return [str(receipt_path(archive, data)) for archive in source.needed()] if source else []


def parts(plan: Plan, dataset: str) -> set[str]:
    """The parts of a dataset that planned runs are scored on, as `coco27` of coco.

    Optional archives list them, and are of use for nothing else.
    """
    benchmarks = [run["benchmark"] for run in plan.runs.values()]
    return {one["subset"] for one in benchmarks if one["dataset"] == dataset and "subset" in one}


def optional_option(plan: Plan, dataset: str) -> str:
    """What `cliptrase prepare` is told of the optional archives: nothing where a run needs one."""
    return "" if parts(plan, dataset) else "--without-optional"


def force_lacking_part(dag: Any, plan: Plan, dataset: str) -> list[str]:
    """Make Snakemake prepare a dataset again that lacks a part which a run needs; returns no input.

    It is fetched if it can be had by now. An input function, as `force_false_receipt`.
    """
    file = Path(selfcheck(dataset, plan.data))
    if file.is_file() and parts(plan, dataset) - {*((read_json(file) or {}).get("subsets") or {})}:
        dag.forcefiles.add(str(file))
    return []


def force_false_receipt(dag: Any, name: str, data: Path | str) -> list[str]:
    """Make Snakemake check an archive again that is not what its receipt says; returns no input.

    An archive that is gone asks for nothing: a prepared dataset does without it. To be called as an
    input function, as `pipeline.force_false_pass`.
    """
    archive = read_sources(data).archive(name)
    receipt = receipt_path(archive, data)
    if receipt.is_file() and raw_path(archive, data).is_file() and not has_receipt(archive, data):
        dag.forcefiles.add(str(receipt))
    return []


def mirror_option(url: str | None) -> str:
    """The mirror as words of a command line."""
    return f"--mirror {shlex.quote(str(url))}" if url else ""


def weights_receipt(model: str, data: Path | str) -> Path:
    """Where it is written down which weights a model has, by its label."""
    return Path(data) / "weights" / f"{model}.json"


def weights(one: Pass, data: Path | str) -> list[str]:
    """The receipt of the weights that a pass needs to be fetched; none for a model of files."""
    model = next(iter(one.runs.values()))["model"]
    fetched = model["kind"] == "open_clip" and model["path"] is None
    return [str(weights_receipt(one.model, data))] if fetched else []


def force_lost_weights(dag: Any, model: str, data: Path | str) -> list[str]:
    """Make Snakemake fetch weights again that are not where their receipt says; no input.

    Else the passes would, all at once. An input function, as `force_false_receipt`.
    """
    receipt = weights_receipt(model, data)
    if receipt.is_file() and not Path(str((read_json(receipt) or {}).get("file"))).is_file():
        dag.forcefiles.add(str(receipt))
    return []
