"""Room on a disk, and what of it archives still need; in words for people."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from cliptrase.data.fetch.receipts import State
from cliptrase.data.fetch.sources import readable


def to_fetch(states: Iterable[State]) -> tuple[int, str]:
    """The bytes that archives still lack, as far as they are known, and the same in words.

    `3.0 GB`, `about 3.0 GB, 1 of unknown size`; "" for no archive.
    """
    states = list(states)
    sized = [state for state in states if state.archive.size]
    lacking = sum(max(0, (state.archive.size or 0) - state.bytes_there) for state in sized)
    words = []
    if sized:
        exact = all(state.archive.bytes for state in states)
        words.append(("" if exact else "about ") + readable(lacking))
    if len(states) > len(sized):
        words.append(f"{len(states) - len(sized)} of unknown size")
    return lacking, ", ".join(words)


def free(folder: Path | str) -> int:
    """The bytes that are free on the disk of a folder, which need not exist yet."""
    place = Path(folder).absolute()
    while not place.is_dir():
        place = place.parent
    return shutil.disk_usage(place).free


def verdict(needed: int, there: int) -> str:
    """The end of a line about room: nothing, or that it is too little."""
    return ": NOT ENOUGH" if needed > there else ""
