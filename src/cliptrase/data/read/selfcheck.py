"""Where a prepared dataset lies, and what its self-check says of it: found without loading numpy.

`selfcheck.json` was written when the dataset was made, and names the digest of its pixels.
"""

from pathlib import Path
from typing import TypedDict, cast

from cliptrase.files import read_sealed, sealed, write_json

SELFCHECK = "selfcheck.json"


class SelfCheck(TypedDict, total=False):
    """What selfcheck.json says of a prepared dataset.

    The figures of its content; the bytes and digests of its files; and where it is made from
    archives: their sha256 (None for one that was extracted already), what the sources stated, the
    sha256 of its lists of ids (`subsets`), and for each optional archive that could not be had, why
    (`without`). sha256: of all the rest, by which damage is noticed; older datasets have none.
    """

    dataset: str
    count: int
    ids_sha256: str
    pixels_sha256: str
    shortest_side: int
    longest_side: int
    label_bits: int
    label_pixels: dict[str, int]
    arrow_bytes: int
    sums_sha256: str
    recipe_sha256: str
    archives: dict[str, str | None]
    stated: dict[str, object]
    subsets: dict[str, str]
    without: dict[str, str]
    sha256: str


def prepared_folder(dataset: str, data: Path | str) -> Path:
    """Where a dataset is kept below the data folder."""
    return Path(data) / "prepared" / dataset


def read_selfcheck(folder: Path) -> SelfCheck | None:
    """The stored self-check, None where there is none that can be read, or it is damaged."""
    return cast("SelfCheck | None", read_sealed(folder / SELFCHECK))


def write_selfcheck(folder: Path, check: SelfCheck) -> None:
    """Store a self-check with its digest. Raises UserError as `files.write_json`."""
    write_json(folder / SELFCHECK, sealed(check))


def subset_digests(dataset: str, data: Path | str = "data") -> dict[str, str]:
    """name → sha256 of the lists of ids that a prepared dataset has, by its self-check."""
    return (read_selfcheck(prepared_folder(dataset, data)) or {}).get("subsets", {})
