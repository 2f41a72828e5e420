"""Shards of a pass added up: run folders out of the files that hold their counts.

They are added in the order of their images, so the runs have the bytes of a pass that was not cut,
whichever shard is finished first. Counts are integers. Shards of unsupervised runs hold the
descriptors of their regions, too, which are not.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.data import open_dataset
from cliptrase.errors import UserError, counted
from cliptrase.evaluate import kept
from cliptrase.evaluate.basis import basis_of, part_of
from cliptrase.evaluate.tally import About, Progress, tally_of
from cliptrase.evaluate.write_runs import write_runs
from cliptrase.runs.provenance import Stages, describe, now
from cliptrase.runs.shards import shards_of

CURE = "delete it and start again: it is counted anew"


def add_up(
    runs: Mapping[str, Run], files: Sequence[Path], out: Path, data: Path, *, any_code: bool
) -> None:
    """Write the run folders of `runs` from the counts of all shards of a pass, in their order.

    Raises UserError for a file that is missing or damaged, lacks a run, or was counted with other
    code, libraries or data.
    """
    started, stages, first = now(), Stages(), next(iter(runs.values()))
    with stages("open"):
        dataset = open_dataset(first, data, any_code=any_code)
    progress = Progress({name: tally_of(run, len(dataset)) for name, run in runs.items()})
    basis: dict[str, object] = {}
    for shard, file in zip(shards_of(len(files)), files, strict=True):
        about, saved = _read(file)
        basis = basis or basis_of(runs, data, str(about["basis"]["device"]))
        expected = basis | part_of(shard, len(dataset))
        if differ := [key for key in expected if about["basis"].get(key) != expected[key]]:
            raise UserError(f"{file}: counted with another {_listed(differ)}; {CURE}")
        if lacking := progress.lacking(saved):
            some = f"{counted(len(lacking), 'run')}, as {lacking[0]}"
            raise UserError(f"{file}: lacks {some}; {CURE}")
        progress.extend(about, saved)
    stages.add(progress.seconds)
    cost = {"runs_in_pass": len(runs), "shards": len(files)}
    provenance = describe(stages, started, str(basis["device"]), **cost)
    write_runs(runs, progress, dataset.ids, out, data, provenance)


def _read(file: Path) -> tuple[About, dict[str, NDArray[Any]]]:
    """What a shard's file says of its counts, and they."""
    if not file.is_file():
        raise UserError(f"{file}: missing; count this shard first, with --shard")
    saved = kept.read(file, CURE)
    if saved is None:
        raise UserError(f"{file}: damaged; {CURE}")
    return json.loads(str(saved["about"])), saved


def _listed(keys: Sequence[str]) -> str:
    names = {
        "code": "prediction code",
        "versions": "version of a library",
        "data": "dataset",
        "subsets": "list of images",
        "labels": "table of labels",
        "device": "kind of device",
        "images": "part of the images",
    }
    return " and another ".join(names[key] for key in keys)
