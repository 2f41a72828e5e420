"""cost.json as Markdown: `python -m benchmarks.report results/bench/cost.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scenery import CLASSES, SIZES

AIMS = {20: 1.15, 171: 1.15, 847: 1.25}


def markdown(cost: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    return "\n".join([*quick(cost), *_multiples(cost), "", *_split(cost), "", *_single(cost), ""])


def quick(cost: dict[str, Any]) -> list[str]:
    """A warning above the tables of a trial."""
    if not cost.get("about", {}).get("quick"):
        return []
    return ["**A trial with a tiny model and hardly any repeats: these numbers mean nothing.**", ""]


def _multiples(cost: dict[str, Any]) -> Iterator[str]:
    """CLIPtrase as a multiple of the encoder."""
    yield from _head("CLIPtrase / bare encoder", *(f"{count} classes" for count in CLASSES))
    for size in map(str, SIZES):
        encoder = cost["encoder_ms"][size]
        about = f"{size} px; encoder {_range(encoder, 0)} ms ({encoder['way']})"
        found, span = cost[f"ratio_{size}"], cost[f"ratio_{size}_range"]
        yield _row(
            about,
            *(
                f"**{found[key]:.2f}** <sub>{span[key][0]:.2f} – {span[key][1]:.2f}</sub>"
                for key in map(str, CLASSES)
            ),
        )
        alike = cost[f"ratio_{size}_same_batch"]
        yield _row(
            f"{size} px; the encoder in the same batches", *(f"{one:.2f}" for one in alike.values())
        )
    yield _row("aim", *(f"{AIMS[count]:.2f}" for count in CLASSES))


def _split(cost: dict[str, Any]) -> Iterator[str]:
    """Milliseconds of each stage, beside those of the released procedure."""
    columns = [(size, str(count)) for size in map(str, SIZES) for count in CLASSES]
    splits = [cost["cliptrase_ms"][size][count] for size, count in columns]
    slow = [cost["released"][size] for size in map(str, SIZES)] if "released" in cost else []
    yield from _head(
        "ms an image",
        *(f"{size} px, {count}" for size, count in columns),
        *(f"released, {size} px, {one['classes']}" for size, one in zip(SIZES, slow, strict=False)),
    )
    for stage in (name for name in splits[0] if name != "total"):
        here = [f"{split[stage]:.1f}" for split in splits]
        there = [f"{one['released_ms'].get(stage, 0):.1f}" for one in slow]
        yield _row(stage, *here, *there)
    totals = [split["total"] for split in splits] + [one["released_ms"]["total"] for one in slow]
    yield _row("total", *(_range(one, 0) for one in totals))


def _single(cost: dict[str, Any]) -> Iterator[str]:
    """The other figures."""
    yield from _head("what", "measured", "aim")
    if "released" in cost:
        for size, one in cost["released"].items():
            name = f"released procedure / CLIPtrase, {size} px, {one['classes']} classes"
            yield _row(name, _range(one["speedup"], 1), "")
    text = cost["text"]
    prompts = f"{text['prompts']:,} prompts, 77 tokens each / here"
    yield _row(prompts, _range(text["speedup"], 1), "≥ 5")
    tables = cost["tables"]
    yield _row(f"the tables' {tables['runs']} runs, encoder passes", tables["passes"], "≤ 3")
    yield _row("the same in hours", tables["hours"], "")
    if "memory" in cost:
        size, count = SIZES[-1], CLASSES[-1]
        peak = cost[f"peak_gb_{count}_{size}"]
        yield _row(
            f"memory beyond the loaded model, {count} classes, {size} px", f"{peak} GB", "≤ 2"
        )
    for who in ("encoder", "cliptrase"):
        for how, rate in cost["images_per_second"][who].items():
            yield _row(f"images a second, {SIZES[0]} px, {who}, {how}", _range(rate, 2), "")
    for size, took in cost["load_ms"].items():
        yield _row(f"decode and crop a JPEG of 500 × 375, {size} px", f"{_range(took, 1)} ms", "")


def _range(spread: dict[str, Any], digits: int) -> str:
    median, low, high = (f"{spread[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} <sub>{low} – {high}</sub>"


def _head(first: str, *others: str) -> list[str]:
    return [_row(first, *others), _row("---", *("---:" for _ in others))]


def _row(*cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main(arguments: Sequence[str]) -> None:
    """The command line: one file."""
    (path,) = arguments
    print(markdown(json.loads(Path(path).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(sys.argv[1:])
