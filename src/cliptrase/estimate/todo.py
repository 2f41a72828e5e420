"""What of a suite is left to do, as far as files tell: passes, their runs, datasets, archives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cliptrase import pipeline, pipeline_data
from cliptrase.data.folder import pairs
from cliptrase.data.sources import Archive, DatasetSource
from cliptrase.estimate.work import Run
from cliptrase.evaluate import seal
from cliptrase.evaluate.provenance import code_digest
from cliptrase.plan import Pass, Plan

SCENES = 200  # of a dataset that is drawn


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


def unmade(plan: Plan) -> list[str]:
    """The passes that Snakemake would make: `pipeline.unmade`, and those of other code."""
    false = pipeline.unmade(plan)
    return [
        one.name
        for one in plan.passes.values()
        if one.name in false or not all(map(_of_this_code, one.runs))
    ]


def runs_left(one: Pass) -> list[Run]:
    """The runs of a pass that it would make: not whole, or of other code."""
    folder = pipeline.RUNS
    return [
        run
        for name, run in one.runs.items()
        if seal.damage(folder / name) or not _of_this_code(name)
    ]


def _of_this_code(run: str) -> bool:
    try:
        said = json.loads((pipeline.RUNS / run / seal.PROVENANCE).read_bytes())
        return bool(said["code"] == code_digest())
    except (OSError, ValueError, KeyError, TypeError):
        return False
