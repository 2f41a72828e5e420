"""What a campaign found, summed up by what was killed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.kills.draws import Draw
from cliptrase.files import write_json, write_text
from cliptrase.runs.provenance import commit, now, versions

HEAD = (
    "| what was killed | kills | starts that needed a hand | differing files | left behind "
    "| images read again, at most | bytes written again, at most |\n"
    "|---|---:|---:|---:|---:|---:|---:|\n"
)


def read(ledger: Path) -> list[Draw]:
    """The draws that are there; a line that a kill cut off is left out."""
    draws = []
    for line in ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else ():
        try:
            draws.append(Draw(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return draws


def kills(draws: Iterable[Draw]) -> int:
    """How many kills there were; a draw may have two."""
    return sum(draw.moment.count(", then ") + 1 for draw in draws if draw.moment)


def summed(draws: list[Draw]) -> dict[str, dict[str, int]]:
    """Scene → its figures, and those of all."""
    scenes = list(dict.fromkeys(draw.scene for draw in draws))
    parts = {scene: [draw for draw in draws if draw.scene == scene] for scene in scenes}
    return {scene: _figures(part) for scene, part in (parts | {"all": draws}).items()}


def write(out: Path, draws: list[Draw]) -> None:
    """Write kills.json and kills.md."""
    figures = summed(draws)
    about = {"commit": commit(), "written": now(), "versions": versions()}
    write_json(out / "kills.json", {"about": about, "figures": figures})
    rows = [
        f"| {scene} | " + " | ".join(f"{value:,}" for value in each.values()) + " |\n"
        for scene, each in figures.items()
    ]
    write_text(out / "kills.md", HEAD + "".join(rows))


def _figures(draws: list[Draw]) -> dict[str, int]:
    return {
        "kills": kills(draws),
        "hands": sum(bool(draw.hand) for draw in draws),
        "differing": sum(len(draw.differing) for draw in draws),
        "left": sum(len(draw.left) for draw in draws),
        "images": max((draw.images for draw in draws), default=0),
        "written": max((draw.written for draw in draws), default=0),
    }
