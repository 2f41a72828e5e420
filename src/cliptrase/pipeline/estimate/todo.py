"""What of a suite is left to do, as far as files tell: passes, their runs, datasets, archives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cliptrase import pipeline
from cliptrase.data.fetch.sources import Archive, DatasetSource, sources_path
from cliptrase.data.read.folder import pairs
from cliptrase.errors import UserError
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.estimate.work import Run
from cliptrase.plan import Pass, Plan
from cliptrase.runs import seal
from cliptrase.runs.provenance import code_digest

SCENES = 200  # of a dataset that is drawn
DATA = "data"  # the folder of a suite that names none


def images(one: Pass, data: Path | str) -> int:
    """How many images a pass reads."""
    source, folder = pipeline_data.source_of(one.dataset, data), pipeline_data.folder_of(one)
    count = source.count if source else SCENES
    if folder:
        count = len(pairs(folder["images_path"], folder["labels_path"]))
    limit = next(iter(one.runs.values()))["limit"]  # the runs of a pass share it
    return min(count, limit or count)


def unprepared(todo: Iterable[Pass], data: str) -> list[str]:
    """The datasets of passes that are not prepared, sorted; a user's folder need not be."""
    datasets = {one.dataset for one in todo if not pipeline_data.folder_of(one)}
    return [
        one for one in sorted(datasets) if not Path(pipeline_data.selfcheck(one, data)).is_file()
    ]


def sources(datasets: Iterable[str], data: str) -> list[DatasetSource]:
    """Of those that come from archives."""
    found = (pipeline_data.source_of(one, data) for one in datasets)
    return [one for one in found if one]


def archives(plan: Plan, sources: Iterable[DatasetSource]) -> list[Archive]:
    """What they are made from, each archive once; the optional ones where a run needs them."""
    found: dict[str, Archive] = {}
    for source in sources:
        more = source.optional.values() if pipeline_data.parts(plan, source.name) else ()
        found |= {archive.name: archive for archive in (*source.needed(), *more)}
    return list(found.values())


def unmade(plan: Plan, false: list[str], *, frozen: bool = False) -> list[str]:
    """The passes that Snakemake would make: `false`, what `pipeline.unmade` says, and those of
    other code, unless that is frozen."""
    return [
        one.name
        for one in plan.passes.values()
        if one.name in false or not (frozen or all(map(_of_this_code, one.runs)))
    ]


def made(plan: Plan, passes: list[str], left: list[str], mirror: str | None) -> list[Pass]:
    """The passes among `passes` that a start makes: `left`, and not lacking what only the user can
    get.

    Raises UserError where they need archives, and the suite's own data folder does not list them:
    those of conf/sources.yaml are others.
    """
    lacking = pipeline_data.lacking(plan, passes, mirror)
    possible = pipeline_data.without(plan, passes, lacking)
    found = [plan.passes[name] for name in possible if name in left]
    unlisted = plan.data != DATA and sources_path(plan.data).parent != Path(plan.data)
    if unlisted and sources(unprepared(found, plan.data), plan.data):
        raise UserError(
            f"{plan.data}/sources.yaml, the list of suite {plan.suite}'s archives, is not there; "
            "run `make miniature` first, or copy conf/sources.yaml to it for the real archives"
        )
    return found


def runs_left(one: Pass, *, frozen: bool = False) -> list[Run]:
    """The runs of a pass that it would make: not whole, or of other code, unless that is frozen."""
    folder = pipeline.RUNS
    return [
        run
        for name, run in one.runs.items()
        if seal.damage(folder / name) or not (frozen or _of_this_code(name))
    ]


def _of_this_code(run: str) -> bool:
    try:
        said = json.loads((pipeline.RUNS / run / seal.PROVENANCE).read_bytes())
        return bool(said["code"] == code_digest())
    except (OSError, ValueError, KeyError, TypeError):
        return False
