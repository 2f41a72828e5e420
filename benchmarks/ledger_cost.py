"""What the ledger of errors adds to a pass: `python -m benchmarks.ledger_cost [ROUNDS]` (minutes).

The runs of table_errors on one dataset, with and without it, in turns; CPU seconds of the process,
one thread, the median of the rounds. Needs the prepared dataset: `cliptrase prepare shapes`.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from cliptrase import config
from cliptrase.evaluate.passes import run_pass

METHODS = (
    ["method=clip"],
    ["method=sclip"],
    ["method=cliptrase", "method.regions.vote=none"],
    ["method=cliptrase"],
)
BENCHMARKS = ("shapes_bg", "shapes")


def seconds(ledger: bool) -> float:
    """CPU seconds of a pass, with or without the ledger."""
    asked = f"ledger={str(ledger).lower()}"
    points = ([f"benchmark={name}", *each, asked] for name in BENCHMARKS for each in METHODS)
    runs = {run.name: run for run in map(config.resolve, points)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run_pass(runs, partial=Path(folder, "partial.npz"), out=folder, device="cpu", workers=1)
        return time.process_time() - start


def main(rounds: int) -> None:
    """Print the seconds of each round, and what the ledger adds."""
    seconds(True)  # what is loaded once
    pairs = [(seconds(False), seconds(True)) for _ in range(rounds)]
    for without, with_ledger in pairs:
        print(f"without {without:.2f} s, with {with_ledger:.2f} s")
    adds = statistics.median(100 * (after / before - 1) for before, after in pairs)
    print(f"the ledger adds {adds:.1f} %, median of {rounds}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
