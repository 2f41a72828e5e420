"""Before and after the images of a pass: what counts must be made on that are added, and the run
folders out of counts."""

import logging
from collections.abc import Mapping
from pathlib import Path

from cliptrase.config import Run
from cliptrase.data.read.selfcheck import subset_digests
from cliptrase.errors import counted
from cliptrase.evaluate.tally import LedgerTally, Progress, RegionTally, Tally
from cliptrase.evaluate.targets import scored_classes, surplus_of
from cliptrase.files import sha256_file
from cliptrase.runs import code, finished, store
from cliptrase.runs.provenance import BESIDE, COMPUTING, origin, versions
from cliptrase.runs.scoring import result_of

log = logging.getLogger(__name__)


def basis_of(runs: Mapping[str, Run], data: Path, device: str) -> dict[str, object]:
    """What must be equal for counts of one start to be added to those of another."""
    dataset = next(iter(runs.values())).benchmark.dataset
    networks = any(run.method.networks for run in runs.values())
    computing = (*COMPUTING, *BESIDE) if networks else COMPUTING
    return {
        "code": code.prediction_digest(),
        "versions": {package: versions()[package] for package in computing},
        "data": finished.dataset_digest(dataset, data),
        # of all subsets and tables: some of the runs may be finished by the next start
        "subsets": subset_digests(dataset, data),
        "labels": [sha256_file(table) for table in sorted(finished.TABLES.glob("*.csv"))],
        "device": device,
    }


def tally_of(run: Run, images: int) -> Tally | RegionTally:
    """What adds up a run."""
    if _is_unsupervised(run):
        return RegionTally(images)
    if run.ledger:
        return LedgerTally(images, scored_classes(run))
    return Tally(images, scored_classes(run), surplus_of(run))


def write_runs(
    runs: Mapping[str, Run],
    progress: Progress,
    ids: list[str],
    out: Path,
    data: Path,
    provenance: dict[str, object],
) -> None:
    """Write the run folders, the counts of all images being there. Those that another process has
    finished meanwhile stay: a job goes on when Snakemake alone was killed."""
    facts = progress.facts
    # last what may fail: of too few regions no clusters can be made
    for name in sorted(runs, key=lambda name: _is_unsupervised(runs[name])):
        run, tally = runs[name], progress.tallies[name]
        needed = finished.status(run, out, data)
        if needed.scored and not needed.streams:
            continue
        result = result_of(run, tally.counted(ids), facts["flops"][name])
        more = facts["compared"] | {"data": facts["data"][name]} | origin(run, data)
        store.write(out, run, result, provenance | more)
    log.info("%s written to %s", counted(len(runs), "run"), out)


def _is_unsupervised(run: Run) -> bool:
    return run.method.unsupervised is not None
