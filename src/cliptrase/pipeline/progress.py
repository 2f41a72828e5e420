"""How far the passes of a start are: a line now and then, for people at a terminal."""

import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cliptrase.errors import counted
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.announcement import duration
from cliptrase.plan import Pass, Plan
from cliptrase.runs.finished import pass_file

EVERY = 10.0  # seconds between two lines; later a twentieth of the time so far
DONE = re.compile(r"^(\d+) of \d+ images?, .* a second$", re.MULTILINE)  # as a pass logs it
BEFORE = re.compile(r"^going on from image (\d+)$", re.MULTILINE)


def watch(plan: Plan, made: Sequence[Pass]) -> None:
    """Say on a terminal how far the passes are that this start makes, until they are made."""
    if made and sys.stderr.isatty():
        threading.Thread(target=_watch, args=(plan, made), daemon=True).start()


def _watch(plan: Plan, made: Sequence[Pass]) -> None:
    started, since = time.monotonic(), time.time()
    while True:
        seconds = time.monotonic() - started
        time.sleep(max(EVERY, seconds / 20))
        line, complete = progress(plan, made, since, time.monotonic() - started)
        if complete:
            return
        if line:
            os.write(2, f"{line}\n".encode())  # a print could hold a lock as the process ends


def progress(plan: Plan, made: Sequence[Pass], since: float, seconds: float) -> tuple[str, bool]:
    """The line, "" before the first image is done; and whether all passes are made.

    since: when they were started, by the clock of files. seconds: how long ago that is. An image
    counts as often as its pass has runs where time is concerned.
    """
    images = total = 0
    work = left = 0.0
    complete = True
    for each in made:
        of_pass = pipeline_data.images(each, plan.data)
        is_made = _changed(pass_file(plan.suite, each.name), since)
        before, done = _logged(plan, each, since)
        done = of_pass if is_made else min(done, of_pass)
        complete = complete and is_made
        images, total = images + done, total + of_pass
        work += len(each.runs) * (done - before)
        left += len(each.runs) * (of_pass - done)
    if not work:
        return "", complete
    remaining = duration(seconds * left / work)
    share = 100 * images // total
    return f"{images:,} of {counted(total, 'image')} ({share} %), about {remaining} left", complete


def _logged(plan: Plan, a_pass: Pass, since: float) -> tuple[int, int]:
    """Images of a pass that were done before it was started, and until now, by its log or those of
    its shards."""
    logs = Path("results/logs", plan.suite)
    files = [logs / "evaluate_pass" / f"{a_pass.name}.log"]
    files += (logs / "evaluate_shard").glob(f"{a_pass.name}.*-of-*.log")
    before = done = 0
    for file in files:
        if _changed(file, since):
            text = file.read_text(encoding="utf-8", errors="replace")
            first, last = ([0, *map(int, pattern.findall(text))][-1] for pattern in (BEFORE, DONE))
            before, done = before + first, done + max(first, last)
    return before, done


def _changed(file: Path, since: float) -> bool:
    """Whether a file is there and was written since."""
    return file.is_file() and file.stat().st_mtime >= since
