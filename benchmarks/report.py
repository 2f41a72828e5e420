"""cost.json and growth.json as the Markdown tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from typing import Any

import numpy as np

from benchmarks.growth import slope
from benchmarks.per_image import MIDDLE
from benchmarks.scenery import CLASSES, SIZES

AIMS = {20: 1.15, 171: 1.15, 847: 1.25}


def cost(figures: dict[str, Any]) -> str:
    """The tables of cost.json."""
    parts = (_multiples(figures), [""], _split(figures), [""], _single(figures))
    return "\n".join(line for part in parts for line in part) + "\n"


def _multiples(figures: dict[str, Any]) -> Iterator[str]:
    """CLIPtrase as a multiple of the encoder."""
    yield from _head("CLIPtrase / bare encoder", *(f"{count} classes" for count in CLASSES))
    for size in map(str, SIZES):
        encoder = figures["encoder_ms"][size]
        ratio, span = figures[f"ratio_{size}"], figures[f"ratio_{size}_range"]
        yield _row(
            f"{size} px; encoder {_span(encoder, 0)} ms ({encoder['way']})",
            *(
                f"**{ratio[key]:.2f}** <sub>{span[key][0]:.2f} – {span[key][1]:.2f}</sub>"
                for key in map(str, CLASSES)
            ),
        )
        alike = figures[f"ratio_{size}_same_batch"].values()
        yield _row(f"{size} px; the encoder in the same batches", *(f"{x:.2f}" for x in alike))
    yield _row("aim", *(f"{AIMS[count]:.2f}" for count in CLASSES))


def _split(figures: dict[str, Any]) -> Iterator[str]:
    """Milliseconds of each stage, beside those of the released procedure."""
    columns = {
        f"{size} px, {count}": figures["cliptrase_ms"][size][str(count)]
        for size in map(str, SIZES)
        for count in CLASSES
    }
    for size, slow in figures.get("released", {}).items():
        columns[f"released, {size} px, {slow['classes']}"] = slow["released_ms"]
    yield from _head("ms an image", *columns)
    first = next(iter(columns.values()))
    for stage in (name for name in first if name != "total"):
        yield _row(stage, *(f"{split.get(stage, 0):.1f}" for split in columns.values()))
    yield _row("total", *(_span(split["total"], 0) for split in columns.values()))


def _single(figures: dict[str, Any]) -> Iterator[str]:
    """The other figures."""
    yield from _head("what", "measured", "aim")
    for size, slow in figures.get("released", {}).items():
        name = f"released procedure / CLIPtrase, {size} px, {slow['classes']} classes"
        yield _row(name, _span(slow["speedup"], 1), "")
    text, tables = figures["text"], figures["tables"]
    prompts = f"{text['prompts']:,} prompts, 77 tokens each / here"
    yield _row(prompts, _span(text["speedup"], 1), "≥ 5")
    yield _row(f"the tables' {tables['runs']} runs, encoder passes", tables["passes"], "≤ 3")
    yield _row("the same in hours", tables["hours"], "")
    size, count = SIZES[-1], CLASSES[-1]
    peak = figures[f"peak_gb_{count}_{size}"]
    yield _row(f"memory beyond the loaded model, {count} classes, {size} px", f"{peak} GB", "≤ 2")
    for contender in ("encoder", "cliptrase"):
        for way, rate in figures["images_per_second"][contender].items():
            yield _row(f"images a second, {SIZES[0]} px, {contender}, {way}", _span(rate, 2), "")
    for size, took in figures["load_ms"].items():
        yield _row(f"decode and crop a JPEG of 500 × 375, {size} px", f"{_span(took, 1)} ms", "")


def growth(figures: dict[str, Any]) -> str:
    """One table: what grows, what it costs at each step, and what one more costs."""
    size, more = figures["size"], figures["each_more"]
    images, classes, sizes, clusters, threads = (
        figures[f"by_{name}"] for name in ("images", "classes", "size", "clusters", "threads")
    )
    sizes = [{**step, "size": f"{step['size']} px"} for step in sizes]
    clusters = [{**step, "clusters": f"{np.median(step['clusters']):.0f}"} for step in clusters]
    ends = " → ".join(f"{classes[end]['ratio']['median']:.2f}" for end in (0, -1))
    about_images = f"images ({size} px, {MIDDLE} classes, {figures['threads']} threads), s"
    about_classes = f"classes ({size} px), ms an image"
    about_clusters = f"clusters ({size} px, one thread): regions, ms an image"
    lines = [
        "| what grows | from … to | measured | one more |",
        "|---|---|---|---|",
        _steps(about_images, images, "images", "s", 2, f"{more['image_ms']:.0f} ms an image"),
        _steps(about_classes, classes, "classes", "ms", 0, f"{more['class_ms']:.3f} ms a class"),
        _steps("the same / bare encoder", classes, "classes", "ratio", 2, ends),
    ]
    for key, what, digits in (
        ("encoder_ms", "size: bare encoder, ms an image", 0),
        ("ms", f"size: CLIPtrase, {MIDDLE} classes, ms an image", 0),
        ("ratio", "the same / bare encoder", 2),
    ):
        exponent = slope((log(step["patches"]), log(step[key]["median"])) for step in sizes)
        lines.append(_steps(what, sizes, "size", key, digits, f"patches^{exponent:.2f}"))
    a_cluster = f"{more['cluster_ms']:.2f} ms a cluster"
    lines.append(_steps(about_clusters, clusters, "clusters", "regions_ms", 1, a_cluster))
    for key, contender in (("encoder_rate", "bare encoder"), ("rate", "CLIPtrase")):
        gain = threads[-1][key]["median"] / threads[0][key]["median"]
        about = f"threads ({size} px): {contender}, images a second"
        lines.append(_steps(about, threads, "threads", key, 2, f"× {gain:.2f}"))
    return "\n".join(lines) + "\n"


def peers(figures: dict[str, Any]) -> str:
    """A line a method: its pass by a pass of CLIP alone."""
    lines = _head("method", "needs", f"a pass / that of `clip`, {figures['size']} px")
    for name, ratio in figures["ratio"].items():
        needs = ", ".join(f"`{label}`" for label in figures["needs"].get(name, ()))
        shown = f"`{name}`" if name in figures["needs"] else name
        lines.append(_row(shown, needs, _span(ratio, 2)))
    peers = ", ".join(f"`{name}`" for name in figures["peers"])
    lines += ["", f"Together {peers} take, in encodes of an image more than `clip` alone:", ""]
    more = figures["together"]
    lines += _head("names", "encodes more")
    lines += [_row(names, _span(encodes, 2)) for names, encodes in more.items()]
    return "\n".join(lines) + "\n"


def _steps(
    what: str, steps: Sequence[dict[str, Any]], x: str, key: str, digits: int, more: str
) -> str:
    """A row of the table of growth: the spread under `key` at every step of `x`."""
    measured = (_span(step[key], digits) for step in steps)
    return _row(what, " · ".join(str(step[x]) for step in steps), " · ".join(measured), more)


def _span(spread: dict[str, Any], digits: int) -> str:
    median, low, high = (f"{spread[key]:.{digits}f}" for key in ("median", "min", "max"))
    return median if low == high else f"{median} <sub>{low} – {high}</sub>"


def _head(first: str, *others: str) -> list[str]:
    return [_row(first, *others), _row("---", *("---:" for _ in others))]


def _row(*cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
