"""What a start of a suite is about, for people, before anything is fetched or computed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cliptrase import pipeline_data, space
from cliptrase.data.folder import pairs
from cliptrase.data.receipts import state
from cliptrase.data.sources import Archive, DatasetSource, how_to_get, readable, size_of
from cliptrase.plan import Pass, Plan

SCENES = 200  # of a dataset that is drawn
AN_IMAGE = 250_000  # bytes of a prepared image and its label, a generous mean of the datasets
AN_OUTCOME = 600  # bytes of an image in a run's folder, likewise
# Seconds of one CPU core, measured with the passes of suite paper: an image, by model, protocol and
# image size, and a name with its 80 templates. Rough: other cores, other speeds.
SECONDS = {
    ("vit_b16", "crop", 224): 1.1,
    ("vit_b16", "crop", 336): 2.3,
    ("vit_b16", "slide", 224): 5.8,
}
A_NAME = 0.9


def announcement(plan: Plan, passes: list[str], left: list[str], mirror: str | None = None) -> str:
    """Passes without a result and their cost: images, downloads, disk, weights, time.

    passes: those that the benchmarks asked for need. left: what `pipeline.unmade` says. mirror: a
    server that has all archives.
    """
    lacking = pipeline_data.lacking(plan, passes, mirror)
    todo = [plan.passes[name] for name in pipeline_data.without(plan, passes, lacking)]
    todo = [one for one in todo if one.name in left]
    lines = [
        f"suite {plan.suite}: {plan.title}: {len(plan.tables)} tables of {len(plan.runs)} runs",
        f"passes without a result: {len(todo)} of {len(passes)}"
        + (f", to read {sum(images(one, plan.data) for one in todo)} images" if todo else ""),
    ]
    for one in todo:
        count = images(one, plan.data)
        lines.append(f"  {one.name}: {len(one.runs)} runs from {count} images of {one.dataset}")
    for dataset, archives in lacking.items():
        gone = pipeline_data.without(plan, passes, {*plan.datasets} - {dataset})
        lines.append(f"left out: {len(gone)} passes over {dataset}, which you alone can get:")
        lines += [f"  {one.name}: {how_to_get(one, plan.data)}" for one in archives]
    if todo:
        lines += [*_downloads(plan, todo, mirror), _time(plan, todo)]
    return "\n".join(lines)


def images(one: Pass, data: Path | str) -> int:
    """How many images a pass reads."""
    source, folder = pipeline_data.source_of(one.dataset, data), pipeline_data.folder_of(one)
    count = source.count if source else SCENES
    if folder:
        count = len(pairs(folder["images_path"], folder["labels_path"]))
    limit = next(iter(one.runs.values()))["limit"]  # the runs of a pass share it
    return min(count, limit or count)


def _downloads(plan: Plan, todo: list[Pass], mirror: str | None) -> list[str]:
    """What is to be fetched for these passes, and whether the disk has room for all of it."""
    sources = _to_prepare(todo, plan.data)
    states = [state(one, plan.data, deep=False) for one in _archives(plan, sources)]
    fetched = [one for one in states if one.status in ("missing", "partial")]
    needed, words = space.to_fetch(fetched)
    lines = [f"to download: {len(fetched)} archives, {words}"] if fetched else []
    for one in fetched:
        archive, there = one.archive, one.bytes_there
        kept = f", {readable(there)} of it are there" if there else ""
        place = mirror or (archive.urls[0].split("/")[2] if archive.urls else "you")
        lines.append(f"  {archive.name}: {size_of(archive)}{kept}, from {place}")
    lines += _weights(plan, todo)
    needed += sum(source.count * AN_IMAGE for source in sources)
    needed += sum(len(one.runs) * images(one, plan.data) for one in todo) * AN_OUTCOME
    free = space.free(plan.data)
    short = space.verdict(needed, free)
    return [
        *lines,
        f"disk: about {readable(needed)} needed, {readable(free)} free in {plan.data}{short}",
    ]


def _time(plan: Plan, todo: list[Pass]) -> str:
    """How long the passes take on the cores of this machine, where that has been measured."""
    known = [SECONDS.get((one.model, one.protocol, one.image_size)) for one in todo]
    if None in known:
        return "time: unknown, nobody has measured this model, protocol and size"
    work = sum((each or 0) * images(one, plan.data) for each, one in zip(known, todo, strict=True))
    words = {
        part["sha256"]: part["count"]
        for one in todo
        for run in one.runs.values()
        for part in (run["vocabulary"]["classes"], run["vocabulary"]["background"])
        if part
    }
    cores = len(os.sched_getaffinity(0))
    hours = (work + A_NAME * sum(words.values())) / 3600 / cores
    return f"time: very roughly {hours:.1f} hours on {cores} CPU cores; no GPU has been measured"


def _weights(plan: Plan, todo: list[Pass]) -> list[str]:
    lines = []
    for label in sorted({one.model for one in todo if pipeline_data.weights(one, plan.data)}):
        if pipeline_data.weights_receipt(label, plan.data).is_file():
            continue
        from cliptrase.weights_receipt import size_and_place  # Hydra: only where it is asked for

        size, place = size_and_place(label)
        lines.append(f"weights of {label}: {size}, {place}")
    return lines


def _to_prepare(todo: list[Pass], data: str) -> list[DatasetSource]:
    """The datasets of passes that come from archives and are not prepared."""
    found = []
    for dataset in sorted({one.dataset for one in todo}):
        source = pipeline_data.source_of(dataset, data)
        if source and not Path(pipeline_data.selfcheck(dataset, data)).is_file():
            found.append(source)
    return found


def _archives(plan: Plan, sources: Iterable[DatasetSource]) -> list[Archive]:
    """What they are made from, each archive once; the optional ones where a run needs them."""
    found: dict[str, Archive] = {}
    for source in sources:
        more = source.optional.values() if pipeline_data.parts(plan, source.name) else ()
        found |= {archive.name: archive for archive in (*source.needed(), *more)}
    return list(found.values())
