"""The files of a folder whose names fit a pattern, as `**/{stem}_labels.png`.

`{stem}` is what a picture and its mask share, `{name}` the whole file name of the picture, `*`
anything within a name, `**/` any subfolders, or none.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cliptrase.errors import UserError

_FIELDS = {"{stem}": r"(?P<stem>[^/]+?)", "{name}": r"(?P<name>[^/]+)", "**/": r"(?P<at>(?:.*/)?)"}
_NEEDED = {"image": ("{stem}", "*"), "mask": ("{stem}", "{name}")}


@dataclass(frozen=True)
class File:
    """A file that fits. place: in the folder, with `/`. at: what `**/` stands for, else ""."""

    path: Path
    place: str
    stem: str
    name: str
    at: str


def fitting(folder: Path, key: str, pattern: str) -> list[File]:
    """The files in a folder that fit `benchmark.<key>`, sorted; hidden ones left out.

    Subfolders are searched where the pattern has a `/`. A pattern that ends in `{stem}` leaves the
    suffix open. Raises UserError for a pattern that cannot be meant.
    """
    files, fits = [], _regex(key, pattern)
    paths = files_below(folder, deep="/" in pattern)
    for place in sorted(path.relative_to(folder).as_posix() for path in paths):
        if match := fits.fullmatch(place):
            path, fields = folder / place, match.groupdict()
            stem, name = fields.get("stem") or path.stem, fields.get("name") or path.name
            files.append(File(path, place, stem, name, fields.get("at") or ""))
    return files


def files_below(
    folder: Path,
    *,
    deep: bool = True,
    unread: Callable[[OSError], None] | None = None,
    above: frozenset[Path] = frozenset(),
) -> Iterator[Path]:
    """The files of a folder, sorted, then with `deep` those of each subfolder. Hidden ones are left
    out.

    Links are followed, but not to a folder that the walk came through, nor to one that it lies in
    (`above`). unread: is called for a folder that cannot be read.
    """
    above |= {folder.resolve(), *folder.resolve().parents}
    _, inner, names = next(os.walk(folder, onerror=unread), (folder, [], []))
    yield from (folder / name for name in sorted(names) if name[0] != ".")
    for name in sorted(inner) if deep else ():
        if name[0] != "." and (folder / name).resolve() not in above:
            yield from files_below(folder / name, unread=unread, above=above)


def _regex(key: str, pattern: str) -> re.Pattern[str]:
    """What a place in the folder must match."""
    wrong, (first, second) = "", _NEEDED[key]
    if pattern.startswith("/") or ".." in pattern.split("/"):
        wrong = (
            f"must be relative to the folder benchmark.{'images' if key == 'image' else 'labels'}"
        )
    elif first not in pattern and second not in pattern:
        wrong = f"needs {first} or {second}, for what differs from file to file"
    elif re.search(r"[{}]", re.sub(r"\{(stem|name)\}", "", pattern)):
        wrong = "only {stem} and {name} can stand in braces"
    if wrong:
        example = "**/{stem}_photo.jpg" if key == "image" else "{stem}_mask.png"
        raise UserError(f"benchmark.{key}={pattern}: {wrong}; write it as {example}")
    text, seen = "", set[str]()
    for part in re.split(r"(\{stem\}|\{name\}|\*\*/|\*)", pattern):
        again = "(?:.*/)?" if part == "**/" else f"(?P={part.strip('{}')})"
        field = again if part in seen else _FIELDS.get(part)
        text += field or ("[^/]*" if part == "*" else re.escape(part))
        seen |= {part} & _FIELDS.keys()
    return re.compile(text + r"\.[^./]+" * pattern.endswith("{stem}"), re.DOTALL)
