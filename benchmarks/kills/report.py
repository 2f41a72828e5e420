"""What a campaign found, summed up by what was killed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from benchmarks.kills.damage import Outcome
from benchmarks.kills.draws import Draw
from cliptrase.files import write_json, write_text
from cliptrase.runs.provenance import commit, now, versions

Line = TypeVar("Line", Draw, Outcome)
OUTCOMES = ("healed", "made anew", "refused", "unread", "wrong")  # what comes of a damaged file
HEAD = (
    "| what was killed | kills | boundaries, copied | states of them "
    "| starts that needed manual help | differing files | left behind "
    "| images read again, at most | bytes written again, at most |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)
DAMAGED = (
    "| kind of file | damaged | "
    + " | ".join(OUTCOMES)
    + " |\n|---|---:|---:|---:|---:|---:|---:|\n"
)


def read(ledger: Path, kind: type[Line]) -> list[Line]:
    """The lines that are there; one that a kill cut off is left out."""
    lines = []
    for line in ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else ():
        try:
            lines.append(kind(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return lines


def kills(draws: Iterable[Draw]) -> int:
    """How many kills there were; a draw may have two, or none where the work ended before it, or a
    copy stood for it."""
    killed = (draw for draw in draws if not draw.boundaries)
    return sum(call != "" for draw in killed for call in draw.call.split(", then "))


def summed(draws: list[Draw]) -> dict[str, dict[str, int]]:
    """Scene → its figures, and those of all."""
    scenes = list(dict.fromkeys(draw.scene for draw in draws))
    parts = {scene: [draw for draw in draws if draw.scene == scene] for scene in scenes}
    return {scene: _figures(part) for scene, part in (parts | {"all": draws}).items()}


def write(out: Path, draws: list[Draw], outcomes: list[Outcome]) -> None:
    """Write kills.json and kills.md."""
    figures, damaged = summed(draws), counted_by_kind(outcomes)
    about = {"commit": commit(), "written": now(), "versions": versions()}
    write_json(out / "kills.json", {"about": about, "figures": figures, "damaged": damaged})
    texts = [HEAD, *map(_row, figures.items())]
    texts += ["\n", DAMAGED, *map(_row, damaged.items())] if damaged else []
    write_text(out / "kills.md", "".join(texts))


def counted_by_kind(outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """Kind of file → how often it was damaged, and what came of it."""
    kinds = {
        each.kind: [other for other in outcomes if other.kind == each.kind] for each in outcomes
    }
    return {
        kind: {"damaged": len(part)}
        | {how: sum(each.how == how for each in part) for how in OUTCOMES}
        for kind, part in kinds.items()
    }


def _row(named: tuple[str, dict[str, int]]) -> str:
    name, values = named
    return f"| {name} | " + " | ".join(f"{value:,}" for value in values.values()) + " |\n"


def _figures(draws: list[Draw]) -> dict[str, int]:
    return {
        "kills": kills(draws),
        "boundaries": sum(draw.boundaries for draw in draws),
        "states": sum(draw.boundaries > 0 for draw in draws),
        "hands": sum(bool(draw.hand) for draw in draws),
        "differing": sum(len(draw.differing) for draw in draws),
        "left": sum(len(draw.left) for draw in draws),
        "images": max((draw.images for draw in draws), default=0),
        "written": max((draw.written for draw in draws), default=0),
    }
