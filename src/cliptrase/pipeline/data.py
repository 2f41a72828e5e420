"""What the Snakefile asks about archives, datasets and weights, and what only the user can get.

Imports neither torch nor numpy, and asks no server.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from cliptrase.config.schema import Folder
from cliptrase.data.fetch.sources import MIRROR as MIRROR
from cliptrase.data.fetch.sources import (
    Archive,
    DatasetSource,
    missing_gated,
    read_sources,
    receipt_path,
    sources_path,
)
from cliptrase.data.fetch.sources import mirror_of as mirror_of
from cliptrase.data.read.folder import pairs
from cliptrase.errors import UserError
from cliptrase.plan import Pass, Plan

SCENES = 200  # images of a dataset that is drawn
DATA = "data"  # the folder of a suite that names none


def selfcheck(dataset: str, data: Path | str) -> str:
    """The file that a prepared dataset has."""
    return str(Path(data) / "prepared" / dataset / "selfcheck.json")


def prepared(one: Pass, data: Path | str) -> list[str]:
    """The file that says what a pass reads; none for a user's folder, whose digest is in the names
    of its runs."""
    return [] if folder_of(one) else [selfcheck(one.dataset, data)]


def folder_of(one: Pass) -> Folder | None:
    """Where the pictures and masks of a pass lie, None for a dataset that is prepared."""
    return next(iter(one.runs.values())).benchmark.folder


def source_of(dataset: str, data: Path | str) -> DatasetSource | None:
    """The archives of a dataset, None for one that is drawn."""
    return read_sources(data).datasets.get(dataset)


def images(one: Pass, data: Path | str) -> int:
    """How many images a pass reads."""
    folder, limit = folder_of(one), next(iter(one.runs.values())).limit
    if folder:
        total = len(pairs(folder.images_path, folder.labels_path))
    else:
        total = count(one.dataset, data)
    return min(total, limit or total)


def count(dataset: str, data: Path | str) -> int:
    """How many images a dataset that is prepared has."""
    source = source_of(dataset, data)
    return source.count if source else SCENES


def lacking(
    plan: Plan, passes: Iterable[str], mirror: str | None = None
) -> dict[str, list[Archive]]:
    """dataset → the archives that only the user can get and that are not there, where some are so.

    A dataset that is prepared lacks nothing, whatever became of its archives; nor does any where
    there is a mirror, which serves all archives.
    """
    gated: dict[str, list[Archive]] = {}
    for dataset in sorted({plan.passes[name].dataset for name in passes}):
        source = source_of(dataset, plan.data)
        if source and not mirror and not Path(selfcheck(dataset, plan.data)).is_file():
            gated[dataset] = missing_gated(source, plan.data)
    return {dataset: archives for dataset, archives in gated.items() if archives}


def without(plan: Plan, passes: Iterable[str], datasets: Iterable[str]) -> list[str]:
    """The passes of other datasets than these."""
    return [name for name in passes if plan.passes[name].dataset not in datasets]


def to_make(plan: Plan, asked: list[str], left: Iterable[str], mirror: str | None) -> list[Pass]:
    """The passes that a start makes: those asked for that are `left`, unless they lack what only
    the user can get.

    Raises UserError where they need archives, and the suite's own data folder does not list them:
    those of conf/sources.yaml are others.
    """
    possible = without(plan, asked, lacking(plan, asked, mirror))
    made = [plan.passes[name] for name in possible if name in left]
    unlisted = plan.data != DATA and sources_path(plan.data).parent != Path(plan.data)
    if unlisted and sources(unprepared(made, plan.data), plan.data):
        raise UserError(
            f"{plan.data}/sources.yaml, the list of suite {plan.suite}'s archives, is not there; "
            "run `make miniature` first, or copy conf/sources.yaml to it for the real archives"
        )
    return made


def unprepared(passes: Iterable[Pass], data: str) -> list[str]:
    """The datasets of passes that are not prepared, sorted; a user's folder need not be."""
    datasets = {one.dataset for one in passes if not folder_of(one)}
    return [name for name in sorted(datasets) if not Path(selfcheck(name, data)).is_file()]


def sources(datasets: Iterable[str], data: str) -> list[DatasetSource]:
    """Of the datasets that come from archives."""
    each = (source_of(dataset, data) for dataset in datasets)
    return [source for source in each if source]


def archives(plan: Plan, datasets: Iterable[str]) -> list[Archive]:
    """What datasets are made from, each archive once; the optional ones where a run needs them."""
    needed: dict[str, Archive] = {}
    for source in sources(datasets, plan.data):
        more = source.optional.values() if parts(plan, source.name) else ()
        needed |= {archive.name: archive for archive in (*source.needed(), *more)}
    return list(needed.values())


def receipts(dataset: str, data: Path | str) -> list[str]:
    """The receipts of the archives that a dataset is made from."""
    source = source_of(dataset, data)
    return [str(receipt_path(archive, data)) for archive in source.needed()] if source else []


def parts(plan: Plan, dataset: str) -> set[str]:
    """The parts of a dataset that planned runs are scored on, as `coco27` of coco.

    Optional archives list them, and are of use for nothing else.
    """
    benchmarks = [run.benchmark for run in plan.runs.values()]
    return {each.subset for each in benchmarks if each.dataset == dataset and each.subset}


def optional_option(plan: Plan, dataset: str) -> str:
    """What `cliptrase prepare` is told of the optional archives: nothing where a run needs one."""
    return "" if parts(plan, dataset) else "--without-optional"


def mirror_option(url: str | None) -> str:
    """The mirror as words of a command line."""
    return f"--mirror {shlex.quote(str(url))}" if url else ""


def weights_receipt(model: str, data: Path | str) -> Path:
    """Where it is written down which weights a model has, by its label."""
    return Path(data) / "weights" / f"{model}.json"


def weights(one: Pass, data: Path | str) -> list[str]:
    """The receipt of the weights that a pass needs to be fetched; none for a model of files."""
    model = next(iter(one.runs.values())).model
    fetched = model.kind == "open_clip" and model.path is None
    return [str(weights_receipt(one.model, data))] if fetched else []
