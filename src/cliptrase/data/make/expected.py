"""What a prepared dataset must be: figures known before, and those of its first preparation.

Imports nothing heavy: planning asks whether a dataset is what its sources say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cliptrase.data.fetch.sources import DatasetSource, sources_path
from cliptrase.errors import UserError
from cliptrase.files import write_json

IDS = Path(__file__).parents[1] / "ids"
KNOWN = ("ids", "ids_sha256", "label_values", "shares", "shortest_side", "longest_side")
# What a later preparation must have in common with the first one. (Not the hash of the decoded
# pixels: another JPEG decoder may round otherwise, and the archives' checksums guard the bytes.)
KEPT = ("count", "ids_sha256", "label_pixels", "shortest_side", "longest_side")


def ranges(dataset: str, expected: dict[str, Any]) -> list[tuple[int, int]] | None:
    """`label_values` as pairs (low, high), None where any value may be.

    Raises UserError for an `expected` of the sources that is not as conf/sources.yaml says.
    """
    for key in expected:
        if key not in KNOWN:
            raise UserError(
                f"the sources of {dataset}: expected: unknown key {key!r}; there is: "
                f"{', '.join(KNOWN)}"
            )
    values = expected.get("label_values")
    try:
        return None if values is None else [(int(low), int(high)) for low, high in values]
    except (TypeError, ValueError):
        raise UserError(
            f"the sources of {dataset}: expected: label_values must be pairs [low, high]"
        ) from None


def shares(dataset: str, expected: dict[str, Any]) -> list[tuple[set[int], float, float]]:
    """`shares` as (raw values, low, high), of all pixels. Raises UserError as `ranges`."""
    try:
        given = [(set(map(int, raw)), float(a), float(b)) for raw, a, b in expected["shares"]]
    except KeyError:
        return []
    except (TypeError, ValueError):
        given = []
    if not given:
        raise UserError(
            f"the sources of {dataset}: expected: shares must be a list of [raw values, low, high]"
        )
    return given


def check_ids(dataset: str, ids: Iterable[str], known: Iterable[str] | None) -> None:
    """Hold ids against the list of the source, if there is one.

    Raises UserError naming one that is missing, and one that is too many.
    """
    if known is None:
        return
    there, wanted = set(ids), set(known)
    if there == wanted:
        return
    faults = ((wanted - there, "missing"), (there - wanted, "not of this dataset"))
    named = [f"{_some(sorted(which))} {what}" for which, what in faults if which]
    raise UserError(
        f"{dataset}: images by `expected: ids` of its source: {', and '.join(named)}; the archives "
        "are not those of the source"
    )


def check(dataset: str, expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Hold a self-check against the figures of the sources.

    Raises UserError naming the dataset, the figure, and what was found.
    """
    for key in ("ids_sha256", "shortest_side", "longest_side"):
        if key in expected and found[key] != expected[key]:
            raise UserError(_other(dataset, key, found[key], expected[key]))
    pixels = found["label_pixels"]
    for wanted, low, high in shares(dataset, expected):
        share = sum(pixels[raw] for raw in pixels if int(raw) in wanted) / sum(pixels.values())
        if not low <= share <= high:
            what = f"share of pixels of label {', '.join(map(str, sorted(wanted)))}"
            raise UserError(_other(dataset, what, f"{share:.4f}", f"{low} to {high}"))


def known_ids(source: DatasetSource, data: Path) -> list[str] | None:
    """The ids that `expected: ids` of the sources lists, or names a list of.

    That is a file beside the sources, or a shipped one. None where there is none. Raises UserError
    for a file that is not there.
    """
    ids = source.expected.get("ids")
    if ids is None or isinstance(ids, list):
        return ids if ids is None else list(map(str, ids))
    own = sources_path(data).parent / str(ids)
    for path in (own, IDS / str(ids)):
        if path.is_file():
            return path.read_text(encoding="utf-8").split()
    raise UserError(f"{source.name}: expected: ids: there is no file {own}")


def first_path(folder: Path) -> Path:
    """Where the figures of a dataset's first preparation are kept, beside its folder."""
    return folder.with_name(f"{folder.name}.first.json")


def check_first(folder: Path, found: dict[str, Any], stated: dict[str, Any]) -> None:
    """Hold a self-check against that of the first preparation, where there was one.

    stated: what the sources say of the dataset. Where they say something else today, the first
    preparation was one of another source. Raises UserError naming the figure and both values.
    """
    path, first = first_path(folder), _first(folder)
    if first.get("stated_sha256") != _digest(stated):
        return
    for key in KEPT:
        if key in first and first[key] != found[key]:
            before, now = first[key], found[key]
            if isinstance(before, dict):
                before, now = _first_difference(before, now)
            raise UserError(
                f"{folder.name}: {key} is {now}, and was {before} at the first preparation "
                f"({path}); delete that file if the source has really changed"
            )


def keep_first(folder: Path, found: dict[str, Any], stated: dict[str, Any]) -> None:
    """Keep the figures of a first preparation."""
    if _first(folder).get("stated_sha256") == _digest(stated):
        return
    kept = {key: found[key] for key in KEPT} | {"stated_sha256": _digest(stated)}
    write_json(first_path(folder), kept)


def _some(ids: list[str]) -> str:
    return f"{ids[0]} is" if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more are"


def _digest(stated: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _first(folder: Path) -> dict[str, Any]:
    path = first_path(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and run again") from error
    return content if isinstance(content, dict) else {}


def _first_difference(before: dict[str, int], now: dict[str, int]) -> tuple[str, str]:
    raw = next(
        raw for raw in sorted({*before, *now}, key=int) if before.get(raw, 0) != now.get(raw, 0)
    )
    return f"{before.get(raw, 0)} for label {raw}", f"{now.get(raw, 0)} for label {raw}"


def _other(dataset: str, what: str, found: object, expected: object) -> str:
    return (
        f"{dataset}: {what}: {found} instead of {expected}; the archives are not those of the "
        "source"
    )
