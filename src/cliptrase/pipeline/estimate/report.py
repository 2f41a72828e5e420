"""An estimate in words for people."""

from __future__ import annotations

from cliptrase.data.fetch.sources import readable
from cliptrase.pipeline.estimate import speed as speeds
from cliptrase.pipeline.estimate.start import USUAL, Start
from cliptrase.pipeline.estimate.suite import Estimate, blocks, estimate, first
from cliptrase.pipeline.estimate.todo import made
from cliptrase.plan import Plan

WORTH_A_PROBE = 120.0  # seconds that a start takes, roughly: below, the probe would be much of it


def brief(
    plan: Plan,
    passes: list[str],
    left: list[str],
    mirror: str | None,
    start: Start = USUAL,
) -> list[str]:
    """Time, encoder passes and memory, for the start of a suite; nothing where nothing is left.

    This machine is timed first, once, where it is worth it.
    """
    wanted = blocks(made(plan, passes, left, mirror))
    if not wanted:
        return []

    def at(speed: speeds.Speed | None) -> Estimate:
        return estimate(plan, passes, left, mirror, speed, start)

    known = speeds.known(wanted, start.computing)
    found = at(known or speeds.reference(wanted))
    if not known and (found.gpus or found.seconds > WORTH_A_PROBE):
        found = at(speeds.probed(wanted, start.computing))
    return totals(found)


def totals(found: Estimate) -> list[str]:
    """The lines that the start of a suite and `cliptrase estimate` share."""
    return [_encoding(found), _time(found), _memory(found)]


def by_pass(found: Estimate) -> list[str]:
    """A table of the passes: runs, images, minutes."""
    lines: list[tuple[str, ...]] = [("pass", "runs", "images", "encodes", "minutes")]
    for one in found.left:
        minutes = f"{found.minutes(one):.1f}" if found.jobs else "?"
        figures = (len(one.runs), one.images, one.encodes)
        lines.append((one.one.name, *(f"{figure:,}" for figure in figures), minutes))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        for line in lines
    ]


def _encoding(found: Estimate) -> str:
    sizes = sorted({first(one.one)["image_size"] for one in found.left})
    counts = {one.one.dataset: one.images for one in found.left}
    encodes = sum(one.encodes for one in found.left)
    said = f"encoder: {encodes:,} images or windows of images"
    if not found.jobs:
        return said
    unit = f"{sum(counts.values()):,} images at {' and '.join(map(str, sizes))}"
    return f"{said}; in all {found.encoder_passes:.1f} × a bare encode of {unit}"


def _time(found: Estimate) -> str:
    if not found.jobs or not found.speed:
        return "time: unknown, as this machine could not be timed"
    cores = f"{found.cores} CPU core" + "s" * (found.cores > 1)
    if found.speed.device == "cuda":
        where = f"{found.gpus} GPU" + "s" * (found.gpus > 1) + f" and {cores}"
        note = "; no suite has been measured on a GPU: this rests on the probe alone"
    elif found.gpus:
        return "time: unknown, as torch sees no GPU that could be timed"
    else:
        where, note = cores, f", {_duration(found.work)} of one core"
    fetched = any(job.name.startswith("fetch") for job in found.jobs)
    besides = ", besides downloads" if fetched else ""
    return f"time: about {_duration(found.seconds)} on {where}{besides}{note}"


def _memory(found: Estimate) -> str:
    at_once = f"{found.at_once} passes" if found.at_once > 1 else "1 pass"
    return f"memory: about {readable(int(found.memory))} at the peak, {at_once} at once"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
