"""The run folder: metrics.json, confusion.npz, per_image.npz, config.yaml, provenance.json.

Written whole under a temporary name and renamed; everything shown elsewhere is derived from it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cliptrase import config
from cliptrase.config import Run
from cliptrase.data.read.labels import TABLES
from cliptrase.data.read.prepared import prepared_folder, read_selfcheck, subset_digests
from cliptrase.errors import UserError
from cliptrase.files import naming_the_path, sha256_file
from cliptrase.runs import bootstrap, seal
from cliptrase.runs.counts import ImageCounts as ImageCounts
from cliptrase.runs.metrics import METRICS, RULES, class_counts, class_iou, scores
from cliptrase.runs.provenance import code_digest
from cliptrase.runs.seal import FILES as FILES

DIGITS = 6  # of the per cent in metrics.json
STALE_SECONDS = 3600.0  # a temporary folder this old belongs to a process that was killed


@dataclass(frozen=True)
class Result:
    """What a pass found out for one run. `names` has one name a scored class, in order."""

    names: list[str]
    confusion: NDArray[np.int64]  # (K, K), rows = ground truth
    counts: ImageCounts
    flops: int  # of the first image, as torch counts them


def unfinished(
    runs: dict[str, Run], out: Path | str, data: Path | str, freeze_code: bool = False
) -> dict[str, Run]:
    """Those of `runs` (name → resolved run) whose folder in `out` is not `finished`."""
    return {name: run for name, run in runs.items() if not finished(out, run, data, freeze_code)}


def finished(
    out: Path | str, run: Run, data: Path | str = "data", freeze_code: bool = False
) -> bool:
    """Whether the folder of `run` in `out` is whole, as written, by this code from this data.

    `freeze_code` lets it stand whatever code made it. Raises UserError where a folder of the run's
    name holds something else.
    """
    folder = Path(out) / config.run_name(run)
    if not _ours(folder, run) or seal.damage(folder):
        return False
    try:
        made = json.loads((folder / seal.PROVENANCE).read_text(encoding="utf-8"))
        code, source, labels = made["code"], made["data"], made["labels"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    same_code = freeze_code or code == code_digest()
    return same_code and labels == labels_digest(run) and data_digest(run, data) in (None, source)


def make_ready(folder: Path) -> None:
    """Make a folder and write into it, so that a long pass does not end at one that it cannot.

    Raises UserError where that is not possible, or a file stands there.
    """
    with naming_the_path(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".ready."):
            pass


def data_digest(run: Run, data: Path | str = "data") -> str | None:
    """The digest of the prepared dataset's pixels and labels, from its self-check; of the list of
    images too, where the run is scored on some of them.

    None where it is not prepared, and for a user's folder, whose digest is in the run's identity.
    """
    benchmark = run["benchmark"]
    pixels = dataset_digest(benchmark["dataset"], data)
    if pixels is None or "subset" not in benchmark:
        return pixels
    listed = subset_digests(benchmark["dataset"], data).get(benchmark["subset"])
    return hashlib.sha256(f"{pixels} {listed}".encode()).hexdigest() if listed else pixels


def dataset_digest(dataset: str, data: Path | str = "data") -> str | None:
    """The digest of a prepared dataset's pixels and labels alone, as `data_digest`."""
    check = read_selfcheck(prepared_folder(dataset, data))
    return None if check is None else check.get("pixels_sha256")


def labels_digest(run: Run) -> str | None:
    """The digest of the table from raw labels to classes, None where there is none."""
    table = run["benchmark"]["labels"]["map"]
    return None if table is None else sha256_file(TABLES / f"{table}.csv")


def write(out: Path | str, run: Run, result: Result, provenance: dict[str, Any]) -> Path:
    """Write the run's folder into `out`, whole, in the place of an earlier one of the same run.

    Raises UserError for a folder of that name that holds something else, and for a full disk.
    """
    out = Path(out)
    folder = out / config.run_name(run)
    _ours(folder, run)
    with naming_the_path(folder):
        out.mkdir(parents=True, exist_ok=True)
        _sweep(out, folder.name)
        building = out / f".{folder.name}.{uuid.uuid4().hex[:8]}"  # not mkdtemp: only ours to read
        building.mkdir()
        try:
            _fill(building, run, result, provenance)
            _replace(folder, building)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def metrics(run: Run, result: Result) -> dict[str, Any]:
    """The content of metrics.json: per cent, `None` for what does not exist, no NaN."""
    rule = run["protocol"]["rule"]
    counts = class_counts(result.confusion)
    points = {name: scores(name, *counts) for name in RULES}
    per_image = result.counts
    values = bootstrap.resampled(rule, per_image.tp, per_image.gt, per_image.pred)
    intervals = {
        metric: bootstrap.interval(float(points[rule][metric]), values[metric])
        for metric in METRICS
    }
    ious = class_iou(rule, *counts)
    pairs = zip(result.names, ious, strict=True)
    skipped = int(per_image.skipped.sum())
    return {
        **{metric: _plain(points[rule][metric]) for metric in METRICS},
        "rule": rule,
        "rules": {
            name: {metric: _plain(values[metric]) for metric in METRICS}
            for name, values in points.items()
        },
        "ci": {metric: [_plain(low), _plain(high)] for metric, (low, high) in intervals.items()},
        "iou": [{"name": name, "value": _plain(value)} for name, value in pairs],
        "images": len(per_image.ids) - skipped,
        "skipped": skipped,
        "classes": len(result.names),
        "vocabulary": vocabulary_digest(run),
        "flops": result.flops,
    }


def vocabulary_digest(run: Run) -> str:
    """sha256 of what the classes are called: names, background words and templates, by content."""
    lists = {key: None if entry is None else entry.sha256 for key, entry in run.vocabulary}
    return hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()


def read_metrics(folder: Path | str) -> dict[str, Any]:
    """metrics.json of a run folder. Raises UserError naming a file that is damaged or missing."""
    path = Path(folder) / "metrics.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise _damaged(path)
    return content


def read_counts(folder: Path | str) -> ImageCounts:
    """per_image.npz of a run folder. Raises UserError naming a file that is damaged or missing."""
    path = Path(folder) / "per_image.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return ImageCounts(**{key: file[key] for key in ("ids", "skipped", "tp", "gt", "pred")})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: missing or damaged; delete {path.parent} and make the run again")


def _ours(folder: Path, run: Run) -> bool:
    """Whether `folder` exists and belongs to `run`. Raises UserError where it is another's."""
    if not folder.exists():
        return False
    if folder.is_dir() and not any(folder.iterdir()):
        return False
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        mine = yaml.safe_load(text) == config.identity(run)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        mine = False
    if not mine:
        raise UserError(
            f"{folder}: holds another configuration than this run; delete it, or choose another "
            "folder with out=…"
        )
    return True


def _fill(folder: Path, run: Run, result: Result, provenance: dict[str, Any]) -> None:
    _write(folder / "metrics.json", _json(metrics(run, result)))
    np.savez_compressed(folder / "confusion.npz", confusion=result.confusion)
    result.counts.save(folder / "per_image.npz")
    _write(folder / "config.yaml", config.dump(run))
    rest = {"labels": labels_digest(run), "files": seal.digests(folder)}
    _write(folder / seal.PROVENANCE, _json(provenance | rest))
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _replace(folder: Path, building: Path) -> None:
    """Rename `building` to `folder`; what stands there is moved away first, then deleted."""
    while True:
        try:
            os.replace(building, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):  # another process may have been quicker
            os.replace(folder, old / folder.name)
        shutil.rmtree(old, ignore_errors=True)


def _sweep(out: Path, name: str) -> None:
    """Delete what a killed process left of this run."""
    for path in out.glob(f".{name}.*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> float | None:
    number = float(value)
    return round(number, DIGITS) if math.isfinite(number) else None
