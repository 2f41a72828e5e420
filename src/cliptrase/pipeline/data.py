"""What the Snakefile asks about archives, datasets and weights, and what only the user can get.

Imports neither torch nor numpy, and asks no server.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from cliptrase.data.fetch.sources import (
    Archive,
    DatasetSource,
    missing_gated,
    read_sources,
    receipt_path,
    sources_path,
)
from cliptrase.data.read.folder import pairs
from cliptrase.data.read.selfcheck import prepared_folder, read_selfcheck
from cliptrase.errors import UserError
from cliptrase.plan import Pass, Plan

SCENES = 200  # images of a dataset that is drawn
DATA = "data"  # the folder of a suite that names none


def selfcheck(dataset: str, data: str) -> str:
    """The file that a prepared dataset has."""
    return str(Path(data) / "prepared" / dataset / "selfcheck.json")


def prepared(a_pass: Pass, data: str) -> list[str]:
    """The file that says what a pass reads; none for a user's folder, which runs name by digest."""
    folder = next(iter(a_pass.runs.values())).benchmark.folder
    return [] if folder else [selfcheck(a_pass.dataset, data)]


def images(a_pass: Pass, data: str) -> int:
    """How many images a pass reads."""
    run = next(iter(a_pass.runs.values()))  # they share the images
    folder = run.benchmark.folder
    paired = folder and pairs(*folder.names)
    total = len(paired) if paired else count(a_pass.dataset, data)
    return min(total, run.limit or total)


def count(dataset: str, data: str) -> int:
    """How many images a dataset has that is prepared."""
    source = read_sources(data).datasets.get(dataset)
    return source.count if source else SCENES


def lacking(
    plan: Plan, passes: Iterable[str], mirror: str | None = None
) -> dict[str, list[Archive]]:
    """dataset → the archives that only the user can get and that are not there, where some are so.

    A dataset that is prepared lacks nothing, whatever became of its archives; nor does any where
    there is a mirror, which serves all archives.
    """
    datasets = unprepared((plan.passes[name] for name in passes), plan.data) if not mirror else []
    listed = sources(datasets, plan.data)
    gated = {source.name: missing_gated(source, plan.data) for source in listed}
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
    reading = {each.dataset: prepared(each, data) for each in passes}
    return sorted(name for name, files in reading.items() if not all(map(os.path.isfile, files)))


def sources(datasets: Iterable[str], data: str) -> list[DatasetSource]:
    """Of the datasets that come from archives."""
    listed = read_sources(data).datasets
    return [listed[dataset] for dataset in datasets if dataset in listed]


def archives(plan: Plan, datasets: Iterable[str]) -> list[Archive]:
    """What datasets are made from, each archive once; the optional ones where a run needs them."""
    needed: dict[str, Archive] = {}
    for source in sources(datasets, plan.data):
        more = source.optional.values() if parts(plan, source.name) else ()
        needed |= {archive.name: archive for archive in (*source.needed(), *more)}
    return list(needed.values())


def receipts(dataset: str, data: str) -> list[str]:
    """The receipts of the archives that a dataset is made from, but for extracted ones."""
    check = read_selfcheck(prepared_folder(dataset, data)) or {}
    extracted = {name for name, sha256 in check.get("archives", {}).items() if sha256 is None}
    needed = (archive for source in sources([dataset], data) for archive in source.needed())
    kept = (archive for archive in needed if archive.name not in extracted)
    return [str(receipt_path(archive, data)) for archive in kept]


def parts(plan: Plan, dataset: str) -> set[str]:
    """The parts of a dataset that planned runs are scored on, as `coco27` of coco.

    Optional archives list them, and are of use for nothing else.
    """
    benchmarks = [run.benchmark for run in plan.runs.values()]
    return {each.subset for each in benchmarks if each.dataset == dataset and each.subset}


def weights_receipt(network: str, data: str) -> Path:
    """Where it is written down which weights a model or backbone has, by its label."""
    return Path(data) / "weights" / f"{network}.json"


def fetched_networks(a_pass: Pass) -> list[str]:
    """Labels of the networks whose weights a pass needs to be fetched; none of files."""
    model = next(iter(a_pass.runs.values())).model
    fetched = {a_pass.model} if model.kind == "open_clip" and model.path is None else set[str]()
    for run in a_pass.runs.values():
        fetched |= {each.label for each in run.method.networks if each.path is None}
    return sorted(fetched)


def weights(a_pass: Pass, data: str) -> list[str]:
    """The receipts of the weights that a pass needs to be fetched."""
    return [str(weights_receipt(label, data)) for label in fetched_networks(a_pass)]
