"""What a run's provenance.json says, changed."""

from __future__ import annotations

import json
from pathlib import Path

from cliptrase.files import sealed, write_json
from cliptrase.runs.finished import PROVENANCE


def change_provenance(folder: Path, **values: object) -> None:
    """Write other values, and the digest that fits them, as a pass that had made them would."""
    said = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    write_json(folder / PROVENANCE, sealed({**said, **values}))
