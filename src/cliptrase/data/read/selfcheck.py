"""Where a prepared dataset lies, and what its self-check says of it: found without loading numpy.

`selfcheck.json` was written when the dataset was made, and names the digest of its pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cliptrase.files import read_json

SELFCHECK = "selfcheck.json"


def prepared_folder(dataset: str, data: Path | str) -> Path:
    """Where a dataset is kept below the data folder."""
    return Path(data) / "prepared" / dataset


def read_selfcheck(folder: Path) -> dict[str, Any] | None:
    """The stored self-check, None where there is none that can be read."""
    return read_json(folder / SELFCHECK)


def subset_digests(dataset: str, data: Path | str = "data") -> dict[str, str]:
    """name → sha256 of the lists of ids that a prepared dataset has, by its self-check."""
    return (read_selfcheck(prepared_folder(dataset, data)) or {}).get("subsets") or {}
