"""A data folder whose `shapes` has a few scenes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cliptrase.data.make.recipes import recipe
from cliptrase.data.make.records import Record, png
from cliptrase.data.read import prepared
from cliptrase.shapes.scenes import evaluation_scene


def write_scenes(root: Path, scenes: Sequence[int]) -> Path:
    """Prepare the scenes of these numbers, in this order, in `root`; returns it."""
    folder = prepared.prepared_folder("shapes", root)
    folder.mkdir(parents=True)
    records = []
    for place, index in enumerate(scenes):  # ids must be sorted
        scene = evaluation_scene("shapes", index)
        name = f"{place:03}:scene_{index}"
        records.append(Record(name, png(scene.image), png(scene.label)))
    prepared.write_arrow(folder / prepared.ARROW, records)
    check = prepared.self_check(prepared.PreparedSamples(folder))
    check["recipe_sha256"] = recipe("shapes").digest()
    check["arrow_bytes"] = (folder / prepared.ARROW).stat().st_size
    (folder / "selfcheck.json").write_text(json.dumps(check))
    return root
