"""Names from before runs/finished.py, which whoever still uses them should ask instead."""

from __future__ import annotations

from pathlib import Path

from cliptrase.runs.finished import FILES as FILES
from cliptrase.runs.finished import PROVENANCE as PROVENANCE
from cliptrase.runs.finished import SEALED as SEALED
from cliptrase.runs.finished import _damage
from cliptrase.runs.finished import file_digests as digests

__all__ = ["digests"]


def damage(folder: Path) -> str:
    """What is wrong with the files of a run folder, "" where all are as written."""
    return _damage(folder, SEALED)
