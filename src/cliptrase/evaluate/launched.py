"""A sweep by one of Hydra's launchers (hydra/launcher=submitit_slurm): every pass is a job of it.

Hydra would make each point a job. Points that can share a pass stay together here too: Hydra sweeps
over the numbers of the passes, and a job makes the points of its number.
"""

import itertools
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException

from cliptrase.config import Run, files
from cliptrase.errors import UserError, counted, printable
from cliptrase.evaluate import sweep
from cliptrase.evaluate.console import log_to_stderr
from cliptrase.evaluate.sweep import Outcome, Point

log = logging.getLogger(__name__)
CHOICE, SWEEPER = "hydra/launcher=", "hydra/sweeper="
LOGS = Path("results/logs/sweeps")  # of submitit: a folder for each job
UNENDED = "its other jobs may still run (of SLURM: `squeue --me`); start again when they have ended"
IN_FULL = "HYDRA_FULL_ERROR"  # whether Hydra raises errors, or prints them and exits


def is_hydras(word: str) -> bool:
    """Whether an override is of Hydra itself, as hydra.launcher.partition=gpu."""
    return word.lstrip("+~").startswith(("hydra.", "hydra/"))


def launcher(words: Iterable[str]) -> str | None:
    """The launcher that overrides choose; None where they choose none, or a sweeper of its own."""
    chosen = [word.removeprefix(CHOICE) for word in words if word.startswith(CHOICE)]
    sweepers = {word for word in words if word.startswith(SWEEPER)} - {f"{SWEEPER}basic"}
    return chosen[-1] if chosen and not sweepers else None


def make(points: Sequence[Point], words: Sequence[str]) -> Iterator[tuple[Outcome, bool]]:
    """As `sweep.make`, by the launcher that Hydra's `words` choose; no job for runs that are there.
    Raises UserError where the launcher fails and nothing was made."""
    before = sweep.wanted(points, here=False)
    left = [isinstance(outcome, Run) for outcome in before]
    errors: dict[str, UserError] = {}  # by point, of jobs in this process
    passes = sweep.together(before, points)
    failure = _launch(passes, words, errors) if passes else None
    after = sweep.wanted(points, here=False) if passes else before
    made = [isinstance(outcome, Path) for outcome in after]
    if failure and not any(itertools.compress(made, left)):
        raise UserError(failure)
    for point, was_left, outcome in zip(points, left, after, strict=True):
        if isinstance(outcome, Run):
            unmade = failure or f"its job did not make it; its log in {LOGS} says why"
            outcome = errors.get(" ".join(point)) or UserError(unmade)
        yield outcome, isinstance(outcome, Path) and not was_left


def _launch(
    passes: list[list[Point]], words: Sequence[str], errors: dict[str, UserError]
) -> str | None:
    """Let Hydra make each pass, a list of points, in a job, and wait until all have ended, or until
    the launcher fails: that of submitit does at the first job that is killed, and leaves the others
    to run. Returns what went wrong with it, if anything; `errors` gets the errors of points."""
    here = os.getpid()

    def job(conf: Any) -> None:
        log_to_stderr()
        points = passes[conf.job]
        for point, (outcome, _) in zip(points, sweep.make(points), strict=True):
            if isinstance(outcome, UserError):
                errors[" ".join(point)] = outcome
                if os.getpid() != here:
                    print(printable(f"error: {' '.join(point)}: {outcome}"), file=sys.stderr)

    name = launcher(words) or ""
    submitit = name.startswith("submitit")
    if submitit and find_spec("submitit") is None:
        raise UserError(f"{CHOICE}{name}: not installed; pip install 'cliptrase[cluster]'")
    where = f"; logs: {LOGS}" if submitit else ""
    log.info("%s, each a job of %s%s", counted(len(passes), "pass"), name, where)
    numbers = ",".join(str(number) for number in range(len(passes)))
    start = hydra.main(version_base="1.3", config_path=str(files.CONF), config_name="evaluate")
    with tempfile.TemporaryDirectory() as folder:
        given = [f"hydra.sweep.dir={LOGS if submitit else folder}"]  # for Hydra's own record
        given += [f"hydra.launcher.submitit_folder={LOGS}/%j"] * submitit
        try:
            with command_line(["-m", *given, *words, f"+job={numbers}"]):
                start(job)()
        except Exception as error:
            if name == "basic" and not isinstance(error, HydraException):
                raise  # of a pass that was made in this process
            left = "" if isinstance(error, HydraException) else f"; {UNENDED}"
            return f"{CHOICE}{name}: {' '.join(str(error).split())[:300]}{where}{left}"
    return None


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Let Hydra read these words in the place of the command line, and raise its errors."""
    before, shown = sys.argv, os.environ.get(IN_FULL)
    sys.argv, os.environ[IN_FULL] = [before[0], *words], "1"
    try:
        yield
    finally:
        sys.argv = before
        if shown is None:
            del os.environ[IN_FULL]
        else:
            os.environ[IN_FULL] = shown
