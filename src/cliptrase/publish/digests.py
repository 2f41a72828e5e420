"""What was rendered into a folder: the digests of its files, by which an edited one is noticed.

Loads nothing heavy: every start of Snakemake asks.
"""

from collections.abc import Iterable
from pathlib import Path

from cliptrase.files import read_json, sha256_file, write_json

RENDERED = ".rendered.json"  # file name → sha256


def remember(folder: Path, paths: Iterable[Path], *, keep: bool = False) -> None:
    """Write down in a folder the digests of files that were just rendered into it.

    keep: those of other files stay; else they are forgotten, as nothing makes them any more.
    """
    before = read_json(folder / RENDERED) if keep else None
    digests = {path.name: sha256_file(path) for path in paths}
    write_json(folder / RENDERED, (before or {}) | digests)


def edited(folder: Path, *, or_gone: bool = False) -> str:
    """The first file of a folder that is not what was rendered, "" where there is none.

    A missing file is reported if `or_gone` is set: Snakemake makes those that are declared to it.
    """
    record = folder / RENDERED
    digests = read_json(record)
    if digests is None:
        return RENDERED if record.exists() else ""
    for name, digest in digests.items():
        path = folder / name
        if sha256_file(path) != digest if path.is_file() else or_gone:
            return name
    return ""
