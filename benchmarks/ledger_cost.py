"""What the ledger of errors adds to a pass: `python -m benchmarks.ledger_cost [ROUNDS]` (minutes).

The demo's pass over `shapes` at 224, where the rows of table_errors keep a ledger, and these rows
alone: with and without it, in turns. CPU seconds of the process, one thread, the median of the
rounds. Needs the prepared dataset: `cliptrase prepare shapes`.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cliptrase import config, plan
from cliptrase.config import Run
from cliptrase.evaluate.passes import run_pass

PASS = "shapes.shapes_clip.224.crop"
IMAGES = 40


def seconds(runs: Sequence[Run], ledger: bool) -> float:
    """CPU seconds of a pass of these runs on a few images, with the ledgers that they keep, or
    without."""
    few, none = f"limit={IMAGES}", () if ledger else ("ledger=false",)
    some = [config.resolve([*run.overrides, few, *none]) for run in runs]
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run_pass(
            {run.name: run for run in some},
            partial=Path(folder, "partial.npz"),
            out=folder,
            device="cpu",
            workers=1,
        )
        return time.process_time() - start


def main(rounds: int) -> None:
    """Print the seconds of each round, and what the ledger adds."""
    runs = list(plan.load("shapes").passes[PASS].runs.values())
    kept = [run for run in runs if run.ledger]
    seconds(kept, ledger=True)  # what is loaded once
    for name, some in (("the demo's pass", runs), ("table_errors alone", kept)):
        pairs = [(seconds(some, ledger=False), seconds(some, ledger=True)) for _ in range(rounds)]
        adds = [100 * (after / before - 1) for before, after in pairs]
        before, after = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(
            f"{name}, {len(some)} runs, {len(kept)} with a ledger, {IMAGES} images: {before:.2f} s "
            f"without, {after:.2f} s with; it adds {statistics.median(adds):.1f} %, "
            f"{min(adds):.1f} to {max(adds):.1f}, median of {rounds}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
