"""Runs that seem to be made: folders as a pass leaves them, with files that hold nothing of use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cliptrase import pipeline
from cliptrase.files import sha256_file
from cliptrase.plan import Pass
from cliptrase.runs import code, finished


def make_run(run: Any, root: Path = Path(), **provenance: Any) -> Path:
    """The folder of a run that is finished, but for what `provenance` says."""
    folder = root / pipeline.RUNS / run.name
    some = [finished.REGIONS] * (run.method.unsupervised is not None)
    some += [finished.LEDGER] * run.ledger
    for name in (*finished.SEALED, *some):
        write(folder / name, run.text if name == "config.yaml" else f"{name} of {run.name}")
    written = {
        "files": finished.file_digests(folder),
        "code": code.prediction_digest(),
        "scoring": code.scoring_digest(),
        "labels": finished.labels_digest(run),
        "data": None,
        "flops": 0,
    }
    write(folder / finished.PROVENANCE, json.dumps(written | provenance))
    return folder


def make_pass(suite: str, one: Pass, root: Path = Path(), **provenance: Any) -> Path:
    """The runs of a pass and its pass file, which is returned."""
    folders = [make_run(run, root, **provenance) for run in one.runs.values()]
    digests = {folder.name: sha256_file(folder / "metrics.json") for folder in folders}
    return write(root / finished.pass_file(suite, one.name), json.dumps(digests))


def write(path: Path | str, text: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)
