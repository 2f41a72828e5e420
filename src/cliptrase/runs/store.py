"""Run folders: metrics.json, confusion.npz, per_image.npz, config.yaml, provenance.json, and of
unsupervised runs regions.npz. A run may keep a ledger of its errors, ledger.npz, and label maps:
maps/, legend.png, legend.json.

A folder is written whole under a temporary name and renamed. Everything shown elsewhere is derived
from it.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cliptrase.config import Run
from cliptrase.files import (
    TEMPORARY,
    atomic_write,
    beside,
    claimed,
    clear_leftovers,
    discard,
    naming_the_path,
    new_folder,
    read_json,
    sealed,
    sha256_file,
    write_text,
)
from cliptrase.runs import code, finished, scoring
from cliptrase.runs.ledger import Ledger
from cliptrase.runs.provenance import commit, now
from cliptrase.runs.scoring import Result

log = logging.getLogger(__name__)
NAME_END = "[0-9a-f]" * 10  # the end of a run's name, as a pattern


def write(out: Path | str, run: Run, result: Result, provenance: Mapping[str, object]) -> Path:
    """Write the run's folder into `out`, whole, in the place of an earlier one of the same run;
    where that lacks nothing but the ledger of errors, the ledger alone.

    Raises UserError for a folder or file of that name that holds something else, and for a full
    disk.
    """
    out = Path(out)
    folder = out / run.name
    there = not finished.unwritten(folder, run)
    with naming_the_path(folder):
        clear_folders(out)
        if there and _gains_ledger(folder, result, provenance):
            return folder
        building, handle = claimed(folder, new_folder)
        try:
            if result.regions is not None:
                with atomic_write(building / finished.REGIONS) as file:
                    np.savez_compressed(file, **vars(result.regions))
            if result.ledger is not None:
                _write_ledger(building, result.ledger)
            _write_counts(building, result)
            _score(building, run, result, provenance)
            _replace(folder, building)
        finally:
            shutil.rmtree(building, ignore_errors=True)
            os.close(handle)
    return folder


def rescore(
    runs: Mapping[str, Run],
    out: Path | str,
    data: Path | str,
    *,
    freeze_code: bool = False,
    cleared: bool = False,
) -> dict[str, Run]:
    """Make metrics.json again of the runs that need no more; returns those that need their images.

    Deletes first what killed processes left in `out`, unless it was `cleared`. Raises UserError as
    `finished.status` and `write`.
    """
    left = {}
    if not cleared:
        clear_folders(Path(out))
    for name, run in runs.items():
        needed = finished.status(run, out, data, freeze_code=freeze_code)
        folder = Path(out) / name
        for file in (*finished.FILES, *finished.SOME, *finished.LEGEND):
            clear_leftovers(folder / file)
        if needed.streams:
            left[name] = run
            if needed.reason != finished.NOT_RUN:
                log.info("%s: %s; made again", name, needed.reason)
        elif needed.state == "rescore":
            log.info("%s: %s; scored again from its counts", name, needed.reason)
            scored = {"scoring": code.scoring_digest(), "scored": {"at": now(), "commit": commit()}}
            made = {**finished.read_provenance(folder), **scored}
            if finished.ledger_damage(folder, made):  # a new digest would hide it
                (folder / finished.LEDGER).unlink(missing_ok=True)
            result = scoring.read_result(folder, run, made["flops"])
            if result.regions is not None:  # classes are of the scores, too
                _write_counts(folder, result)
                shutil.rmtree(folder / finished.MAPS, ignore_errors=True)
            _score(folder, run, result, made)
    return left


def seal_maps(folder: Path, asked: int, names: Iterable[str]) -> None:
    """Write into provenance.json of a finished run that it keeps the label maps that were `asked`
    for, once their files and the legend's, `names` in `folder`, are there."""
    files = {name: sha256_file(folder / name) for name in names}
    maps = {"maps": {"asked": asked, "files": files}}
    _write_provenance(folder, {**finished.read_provenance(folder), **maps})


def read_metrics(folder: Path | str) -> dict[str, Any]:
    """metrics.json of a run folder. Raises UserError naming a file that is damaged or missing."""
    path = Path(folder) / "metrics.json"
    content = read_json(path)
    if content is None:
        raise scoring.damaged(path)
    return content


def _gains_ledger(folder: Path, result: Result, provenance: Mapping[str, object]) -> bool:
    """Whether a run folder now has the ledger, and else stays as it is: its files are those that
    were written, by the same code from the same data, and say the same."""
    made = finished.read_provenance(folder)
    alike = all(made.get(key) == provenance.get(key) for key in ("code", "scoring", "data"))
    if result.ledger is None or not alike or finished.damage_of(folder):
        return False
    with np.load(folder / "confusion.npz", allow_pickle=False) as file:
        same = np.array_equal(file["confusion"], result.confusion)
    before = vars(scoring.read_counts(folder))
    if not same or any(not np.array_equal(before[k], v) for k, v in vars(result.counts).items()):
        return False
    _write_ledger(folder, result.ledger)
    digests = made["files"] | {finished.LEDGER: sha256_file(folder / finished.LEDGER)}
    _write_provenance(folder, {**made, "files": digests})
    return True


def _write_ledger(folder: Path, ledger: Ledger) -> None:
    with atomic_write(folder / finished.LEDGER) as file:
        np.savez_compressed(file, **vars(ledger))


def _write_counts(folder: Path, result: Result) -> None:
    """Write the confusion matrix and the counts by image."""
    with atomic_write(folder / "confusion.npz") as file:
        np.savez_compressed(file, confusion=result.confusion)
    with atomic_write(folder / "per_image.npz") as file:
        np.savez_compressed(file, **vars(result.counts))


def _score(folder: Path, run: Run, result: Result, provenance: Mapping[str, object]) -> None:
    """Write what follows from the counts in `folder`; the digests of all files last, so that a run
    is unfinished until then."""
    scores = scoring.metrics(run, result)
    write_text(folder / "metrics.json", _json(scores))
    write_text(folder / "config.yaml", run.text)
    labels, files = finished.labels_digest(run), finished.file_digests(folder)
    more = {"flops": result.flops, "labels": labels, "files": files}
    _write_provenance(folder, {**provenance, **more})


def _write_provenance(folder: Path, made: Mapping[str, object]) -> None:
    """Write provenance.json, with a digest of itself."""
    write_text(folder / finished.PROVENANCE, _json(sealed(made)))


def _replace(folder: Path, building: Path) -> None:
    """Rename `building` to `folder`; what stands there is moved away first, then deleted."""
    while True:
        try:
            os.replace(building, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if folder.is_dir() and not folder.is_symlink():
            old = beside(folder)
            with contextlib.suppress(FileNotFoundError):  # another process may have been quicker
                os.replace(folder, old)
            discard(old)
        else:
            folder.unlink(missing_ok=True)


def clear_folders(out: Path) -> None:
    """Delete the run folders that killed processes left in `out` under temporary names."""
    for left in out.glob(f".*.{NAME_END}.{TEMPORARY}/"):
        discard(left)


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
