"""The basis of counts: code, libraries, data and images, which must be equal for counts of one
start to be added to those of another."""

from collections.abc import Mapping
from pathlib import Path

from cliptrase.config import Run
from cliptrase.data.read.selfcheck import subset_digests
from cliptrase.files import sha256_file
from cliptrase.runs import code, finished
from cliptrase.runs.provenance import BESIDE, COMPUTING, versions
from cliptrase.runs.shards import Shard


def basis_of(runs: Mapping[str, Run], data: Path, device: str) -> dict[str, object]:
    """The basis of the counts of some runs, but for `part_of`."""
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


def part_of(shard: Shard, total: int) -> dict[str, object]:
    """Which images of `total` are counted."""
    images = shard.images(total)
    return {"images": [images.start, images.stop]}
