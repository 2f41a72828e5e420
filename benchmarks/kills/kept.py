"""What must be equal between work that was killed and work that was not: every file that is kept,
less what tells the time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from cliptrase.files import TEMPORARY

# Snakemake's own notes, logs, markers (a marker with a reason has the time), locks, W&B's folders.
UNEQUAL = re.compile(
    r"(^|/)\.snakemake/|^results/(logs|markers)/|\.lock$|^results/[^/]+/wandb/(?!ledger\.json$)"
)
# Of provenance.json: when and how a run was made, which a kill may change; the digest of all that.
TIMES = ("started", "finished", "seconds", "peak_memory_bytes", "scored", "commit", "sha256")
SHARED = ("workers", "runs_in_pass", "shards")
PAGE = re.compile(r"^results/[^/]+/(index\.html|\.rendered\.json)$")  # shows what TIMES say
SHOWN = re.compile(
    rb'<section id="cost".*?</section>|"seconds":\{[^}]*\}|"(peak_memory_bytes|runs_in_pass)":\d+'
    rb"|\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(\+00:00| UTC)?)?",
    re.DOTALL,
)
LEFT = re.compile(rf"(^|/)\.[^/]+\.({TEMPORARY}|[0-9]+|[0-9]+\.old)(/|$)")


def contents(folder: Path) -> dict[str, str]:
    """File → sha256 of what must be equal in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = ((path, path.relative_to(folder).as_posix()) for path in files)
    return {name: _digest(path, name) for path, name in names if not UNEQUAL.search(name)}


def left_behind(folder: Path) -> list[str]:
    """Temporary files and folders, of which a finished folder has none."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return [name for name in names if LEFT.search(name) and not UNEQUAL.search(name)]


def differing(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """The files that only one of two folders has, or that differ."""
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


def _digest(path: Path, name: str) -> str:
    content = path.read_bytes()
    if path.name == "provenance.json":
        try:
            made = json.loads(content)
        except ValueError:  # damaged
            made = {"damaged": content.hex()}
        content = json.dumps({key: made[key] for key in made if key not in TIMES + SHARED}).encode()
    elif path.name == "ledger.json":
        content = re.sub(rb'"offline-run-[0-9_]+-', b'"offline-run-', content)
    elif PAGE.search(name):
        content = b"" if path.suffix == ".json" else SHOWN.sub(b"", content)
    return hashlib.sha256(content).hexdigest()
