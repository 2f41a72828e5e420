"""What a start of a suite is about, for people, before anything is fetched or computed."""

from __future__ import annotations

from cliptrase.data.fetch import space
from cliptrase.data.fetch.receipts import state
from cliptrase.data.fetch.sources import how_to_get, readable, size_of
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.estimate.report import brief
from cliptrase.pipeline.estimate.start import USUAL, Start
from cliptrase.pipeline.estimate.todo import archives, images, made, sources, unprepared
from cliptrase.plan import Pass, Plan

AN_IMAGE = 250_000  # bytes of a prepared image and its label, a generous mean of the datasets
AN_OUTCOME = 600  # bytes of an image in a run's folder, likewise


def announcement(
    plan: Plan,
    passes: list[str],
    left: list[str],
    mirror: str | None = None,
    start: Start = USUAL,
    *,
    by_pass: list[str] | None = None,
    totals: list[str] | None = None,
) -> str:
    """Passes without a result and their cost: images, downloads, disk, weights, time, memory.

    passes: those that the benchmarks asked for need. left: those that are to be made. mirror: a
    server that has all archives. by_pass, totals: what an estimate says where there is one already;
    else one is made, for the totals alone. Raises UserError as `todo.made`.
    """
    lacking = pipeline_data.lacking(plan, passes, mirror)
    todo = made(plan, passes, left, mirror)
    lines = [
        f"suite {plan.suite}: {plan.title}: {len(plan.tables)} tables of {len(plan.runs)} runs",
        f"passes without a result: {len(todo)} of {len(passes)}"
        + (f", to read {sum(images(one, plan.data) for one in todo)} images" if todo else ""),
    ]
    lines += [f"  {line}" for line in by_pass] if by_pass else [_about(one, plan) for one in todo]
    for dataset, lost in lacking.items():
        gone = pipeline_data.without(plan, passes, {*plan.datasets} - {dataset})
        lines.append(f"left out: {len(gone)} passes over {dataset}, which you alone can get:")
        lines += [f"  {one.name}: {how_to_get(one, plan.data)}" for one in lost]
    if todo:
        if totals is None:
            totals = brief(plan, passes, left, mirror, start)
        lines += [*_downloads(plan, todo, mirror), *totals]
    return "\n".join(lines)


def _about(one: Pass, plan: Plan) -> str:
    count = images(one, plan.data)
    return f"  {one.name}: {len(one.runs)} runs from {count} images of {one.dataset}"


def _downloads(plan: Plan, todo: list[Pass], mirror: str | None) -> list[str]:
    """What is to be fetched for these passes, and whether the disk has room for all of it."""
    made_of = sources(unprepared(todo, plan.data), plan.data)
    states = [state(one, plan.data, deep=False) for one in archives(plan, made_of)]
    fetched = [one for one in states if one.status in ("missing", "partial")]
    needed, words = space.to_fetch(fetched)
    lines = [f"to download: {len(fetched)} archives, {words}"] if fetched else []
    for one in fetched:
        archive, there = one.archive, one.bytes_there
        kept = f", {readable(there)} of it are there" if there else ""
        place = mirror or (archive.urls[0].split("/")[2] if archive.urls else "you")
        lines.append(f"  {archive.name}: {size_of(archive)}{kept}, from {place}")
    lines += _weights(plan, todo)
    needed += sum(source.count * AN_IMAGE for source in made_of)
    needed += sum(len(one.runs) * images(one, plan.data) for one in todo) * AN_OUTCOME
    free = space.free(plan.data)
    short = space.verdict(needed, free)
    return [
        *lines,
        f"disk: about {readable(needed)} needed, {readable(free)} free in {plan.data}{short}",
    ]


def _weights(plan: Plan, todo: list[Pass]) -> list[str]:
    lines = []
    for label in sorted({one.model for one in todo if pipeline_data.weights(one, plan.data)}):
        if pipeline_data.weights_receipt(label, plan.data).is_file():
            continue
        from cliptrase.model.receipt import size_and_place  # Hydra: only where it is asked for

        size, place = size_and_place(label)
        lines.append(f"weights of {label}: {size}, {place}")
    return lines
