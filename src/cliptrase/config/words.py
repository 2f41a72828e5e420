"""Which lists of words a run has: the chosen ones, the protocol's, or the benchmark's own.

Torch-free and quick to import: planning a suite reads these lists.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from cliptrase.data.read.vocabularies import (
    VOCABULARIES,
    background_path,
    read_names,
    read_templates,
    split_classes,
    template_path,
    vocabulary_path,
)
from cliptrase.errors import UserError


def describe_vocabulary(run: dict[str, Any], given: bool) -> dict[str, Any]:
    """Classes, background words (None where the benchmark scores no background) and templates.

    Each {name, path, count, sha256}: count is lines, that is classes, however many names a line
    holds. `vocabulary=…` brings its background words along where there is a list of them beside it.
    So does the protocol's list, which a benchmark gets unless its own words are `given`.

    Raises UserError naming the key or the file.
    """
    benchmark = run["benchmark"]
    usual = _protocol_list(benchmark, run["protocol"].get("vocabularies"))
    chosen = run["vocabulary"]
    if chosen is None and not given:
        chosen = usual
    classes = vocabulary_path(str(benchmark["classes"] if chosen is None else chosen))
    background = benchmark["background"]
    if background is not None:
        beside = None if chosen is None else background_path(classes)
        background = _list(beside or vocabulary_path(str(background)), "background")
    return {
        "classes": _list(classes, "classes"),
        "background": background,
        "templates": _list(template_path(str(benchmark["templates"])), "templates"),
    }


def _protocol_list(benchmark: dict[str, Any], kind: str | None) -> str | None:
    """The shipped list `sclip_…` for a benchmark's words, where protocol.vocabularies is sclip.

    Named after the benchmark, the same without `_standard`, or its class list; with background
    words exactly if the benchmark scores a background. None where there is none.
    """
    if kind is None:
        return None
    if kind != "sclip":
        raise UserError(
            f"protocol.vocabularies={kind}: must be sclip, or null for the benchmarks' own lists; "
            "vocabulary=… chooses any other"
        )
    name = str(benchmark["name"])
    for of in (name, name.removesuffix("_standard"), benchmark["classes"]):
        path = VOCABULARIES / f"{kind}_{of}.txt"
        scored = benchmark["background"] is not None
        if path.is_file() and scored == (background_path(path) is not None):
            return path.stem
    return None


def _list(path: Path, kind: str) -> dict[str, Any]:
    return dict(_read_list(path, kind, path.stat().st_mtime_ns))


@functools.lru_cache(maxsize=256)
def _read_list(path: Path, kind: str, mtime_ns: int) -> dict[str, Any]:
    """A text file as a run keeps it. Shipped lists may repeat a name, and background words too."""
    if kind == "templates":
        lines = read_templates(path)
    else:
        lines = read_names(path)
        unique = kind == "classes" and path.parent != VOCABULARIES
        split_classes(lines, str(path), unique=unique)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return {"name": path.stem, "path": str(path), "count": len(lines), "sha256": digest}
