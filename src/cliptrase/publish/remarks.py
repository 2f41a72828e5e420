"""What stands above and below a table: its facts, how to read it, what to know of its numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from cliptrase.publish.cells import SHORT, Line, missing

T = TypeVar("T")
NEAR_BEST = "≈"


def facts(suite: str, lines: list[Line]) -> tuple[str, ...]:
    """What the whole table has in common: suite, model, protocol, rule, size."""
    run = [line for line in lines if line.kind not in ("quoted", "avg")]
    found = [f"suite {suite}"]
    for what in ("model", "protocol", "rule"):
        values = unique(getattr(line, what) for line in run if getattr(line, what))
        if values:
            found.append(f"{what} {', '.join(values)}")
    return (*found, *sizes_of(run))


def sizes_of(lines: Iterable[Line]) -> list[str]:
    """`224 px`; `windows of 224 px, short side 336 (560 on cityscapes19), stride 112`."""
    own = [line for line in lines if line.kind not in ("quoted", "avg")]
    windows = [line for line in own if line.short_side is not None]
    crops = {line.image_size for line in own if line.short_side is None}
    found = [f"{_and(crops)} px"] if crops else []
    if windows:
        sizes, strides = ({getattr(x, key) for x in windows} for key in ("image_size", "stride"))
        sides = f"short side {_short_sides(windows)}"
        found.append(f"windows of {_and(sizes)} px, {sides}, stride {_and(strides)}")
    return found


def _short_sides(lines: list[Line]) -> str:
    """What most benchmarks have, and in brackets which have another."""
    found: dict[str, set[int | None]] = {}
    for line in lines:
        found.setdefault(line.benchmark, set()).add(line.short_side)
    texts = {benchmark: _and(sides) for benchmark, sides in found.items()}
    usual = max(texts.values(), key=list(texts.values()).count)
    others = [f"{text} on {name}" for name, text in texts.items() if text != usual]
    return usual + (f" ({', '.join(others)})" if others else "")


def _and(numbers: Iterable[int | None]) -> str:
    return " and ".join(str(each) for each in sorted(n for n in numbers if n is not None))


def reading(kind: str) -> str:
    """How to read a cell."""
    versus, best = "the row named", "its column among the rows it stands with"
    if kind == "grid":
        versus, best = "the chosen point", "the grid"
    return (
        f"Value [95 % bootstrap interval over images]; below it the paired difference to {versus}, "
        f"with its interval. Bold: the best of {best}."
    )


def remarks_of(lines: list[Line]) -> list[str]:
    """What a reader must know of the numbers as a whole."""
    remarks = []
    if any(line.published for line in lines if line.kind != "quoted"):
        remarks.append("paper: the number that the paper prints, and in brackets ours minus it.")
    if any(line.near_best for line in lines):
        remarks.append(
            f"{NEAR_BEST} The difference to the best of the column is not significant: its 95 % "
            "interval (paired bootstrap) holds 0. A row is marked where its average is."
        )
    if words := _words(lines):
        remarks.append(f"Vocabulary and images of each benchmark: {words}.")
    commits = unique(line.commit for line in lines if line.commit)
    if commits:
        remarks.append(f"Commit of the runs: {', '.join(commits)}.")
    codes = unique(line.code[:SHORT] for line in lines if line.code)
    if len(codes) > 1:
        remarks.append(
            f"These runs were made by different code ({', '.join(codes)}): numbers of one are not "
            "compared with those of another; make the runs again by one code."
        )
    gone, wanted, _ = missing(lines)
    if gone:
        remarks.append(f"{gone} of {wanted} cells are missing.")
    return remarks


def _words(lines: list[Line]) -> str:
    """Each benchmark's vocabulary and images; where rows differ, whose the others are."""
    found: dict[str, dict[str, list[str]]] = {}
    images: dict[str, set[int]] = {}
    for line in lines:
        if line.run and line.vocabulary:
            rows = found.setdefault(line.benchmark, {}).setdefault(line.vocabulary, [])
            rows += [line.row] * (line.row not in rows)
        if line.run and line.images is not None:
            images.setdefault(line.benchmark, set()).add(line.images)
    parts = []
    for benchmark, vocabularies in found.items():
        usual = max(vocabularies, key=lambda name: len(vocabularies[name]))
        counts = sorted(images.get(benchmark, set()))
        count = f", {' or '.join(f'{n:,}' for n in counts)} images" if counts else ""
        parts.append(f"{benchmark}: {usual}{count}")
        parts += [
            f"{benchmark} in {', '.join(rows)}: {name}"
            for name, rows in vocabularies.items()
            if name != usual
        ]
    return "; ".join(parts)


def unique(items: Iterable[T]) -> list[T]:
    """The different items, in order of appearance."""
    return list(dict.fromkeys(items))
