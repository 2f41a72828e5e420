"""Writes the run folders of a pass, once the counts of all its images are there."""

import logging
from collections.abc import Mapping
from pathlib import Path

from cliptrase.config import Run
from cliptrase.errors import counted
from cliptrase.evaluate.tally import Progress
from cliptrase.runs import finished, store
from cliptrase.runs.provenance import origin
from cliptrase.runs.scoring import result_of

log = logging.getLogger(__name__)


def write_runs(
    runs: Mapping[str, Run],
    progress: Progress,
    ids: list[str],
    out: Path,
    data: Path,
    provenance: dict[str, object],
) -> None:
    """Write the run folders of `runs` to `out`, from the tallies of `progress`.

    Those that another process has finished meanwhile stay: a job goes on when Snakemake alone was
    killed.
    """
    facts = progress.facts
    # last what may fail: of too few regions no clusters can be made
    for name in sorted(runs, key=lambda name: runs[name].method.unsupervised is not None):
        run, tally = runs[name], progress.tallies[name]
        needed = finished.status(run, out, data)
        if needed.scored and not needed.streams:
            continue
        result = result_of(run, tally.counted(ids), facts["flops"][name])
        more = facts["compared"] | {"data": facts["data"][name]} | origin(run, data)
        store.write(out, run, result, provenance | more)
    log.info("%s written to %s", counted(len(runs), "run"), out)
