"""Whether a run folder is what was written: provenance.json holds the digests of the other files.

Loads no numpy: every start of Snakemake asks.
"""

from __future__ import annotations

import json
from pathlib import Path

from cliptrase.files import sha256_file

PROVENANCE = "provenance.json"
SEALED = ("metrics.json", "confusion.npz", "per_image.npz", "config.yaml")
FILES = (*SEALED, PROVENANCE)


def digests(folder: Path) -> dict[str, str]:
    """File → sha256 of the files that provenance.json answers for."""
    return {name: sha256_file(folder / name) for name in SEALED}


def damage(folder: Path) -> str:
    """What is wrong with the files of a run folder, naming the first; "" where all are as written.

    A provenance.json that was changed to fit a changed file is not noticed here; the pass file is
    what remembers.
    """
    for name in FILES:
        if not (folder / name).is_file():
            return f"{name} is missing"
    try:
        written = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["files"]
        for name in SEALED:
            if sha256_file(folder / name) != written[name]:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{PROVENANCE} is damaged"
    return ""
