"""A start of Snakemake in its folder: what it must be able to write, what a killed one left there,
and how Ctrl-C and SIGTERM end it."""

import contextlib
import fcntl
import functools
import itertools
import os
import platform
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType

import psutil

from cliptrase.errors import UserError
from cliptrase.files import make_ready, read_json
from cliptrase.pipeline.markers import MARKERS

HOME = Path(".snakemake")
ENDINGS = ((signal.SIGINT, 1.0), (signal.SIGTERM, 1.0))  # what jobs are told, and seconds to obey
CANCELS = "scancel"  # SLURM's program that ends jobs
YOUNG = 1.0  # seconds in which a forked process becomes its program, also where others compute
_signals: list[int] = []  # those that ended this start


def take_folder(*, job: bool = False) -> None:
    """Make what every start writes to, and remove the lock that a killed one left, and those of
    Snakemake's notes on finished jobs that are damaged.

    Every start holds a lock of its own as long as it lives: where nobody has it, Snakemake's lock
    is of a process that is gone. A shared disk may not show the locks of other machines, so the
    name of the machine is written down, and the lock of another one stays. Raises UserError where
    the folder cannot be written. job: this is a job of a cluster, and the start that submitted it
    may live on another machine: nothing is removed.
    """
    for folder in (HOME, MARKERS.parent, MARKERS):
        try:
            make_ready(folder.absolute())
        except UserError as error:
            cure = "`snakemake --directory FOLDER …` works in another folder"
            raise UserError(f"{error} (even a dry run writes there); {cure}") from None
    lock = os.open(HOME / "cliptrase.lock", os.O_RDWR | os.O_CREAT, 0o666)  # closed by its end
    if not job:
        with contextlib.suppress(OSError):  # another start lives, or the disk knows no locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(lock)
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_SH)


def _clear(lock: int) -> None:
    """Remove what a killed start left, and write this machine's name into the lock; nothing where
    a start on another machine may live."""
    here, locked = platform.node().encode(), any((HOME / "locks").glob("*.lock"))
    if locked:
        if os.read(lock, 1024) not in (b"", here):
            return
        shutil.rmtree(HOME / "locks")
        os.write(2, b"removed the lock of a start that was killed\n")
    os.ftruncate(lock, 0)
    os.pwrite(lock, here, 0)
    for record in (HOME / "metadata").rglob("*"):  # Snakemake ends with a traceback on some
        if record.is_file() and read_json(record) is None:
            record.unlink(missing_ok=True)


def end_on_signals(name: str | None = None) -> None:
    """Let Ctrl-C and SIGTERM end the jobs, then this process, within seconds.

    Snakemake takes SIGTERM for itself when it has planned, so this is called again after that.
    name: of this start's jobs in SLURM. At the end all that bear it are cancelled: Snakemake
    cancels none that it is submitting, and none at all while it looks at the queue.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, functools.partial(_end, name))


def exit_if_ended() -> None:
    """End with exit code 130 after Ctrl-C and 143 after SIGTERM; else go on."""
    if _signals:
        raise SystemExit(128 + _signals[0])


def _end(name: str | None, number: int, _: FrameType | None) -> None:
    if not _signals:
        _signals.append(number)
        os.write(2, b"interrupted: ending the jobs; the next start goes on from here\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Snakemake's pages on each job that ends so
        jobs = psutil.Process().children(recursive=True)  # before one of them leaves an orphan
        threading.Thread(target=_end_jobs, args=[{*jobs}, name]).start()
        exit_if_ended()


def _end_jobs(jobs: set[psutil.Process], name: str | None) -> None:
    """Tell these processes and all below this one to end, ever more firmly, until it has ended and
    all are gone; then cancel the jobs of SLURM that bear this name."""
    for number, seconds in itertools.chain(ENDINGS, itertools.repeat((signal.SIGKILL, 0.2))):
        jobs = {job for job in jobs | {*psutil.Process().children(recursive=True)} if _lives(job)}
        if not jobs and not threading.main_thread().is_alive():
            break
        for job in jobs:
            with contextlib.suppress(psutil.NoSuchProcess):
                if _is_named(job):
                    job.send_signal(number)
        time.sleep(seconds)
    if name:
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):  # no SLURM that answers
            subprocess.run([CANCELS, "--name", name], check=False, timeout=60)


def _is_named(job: psutil.Process) -> bool:
    """Whether it bears the name of its program: a child that was just forked bears this one's, and
    may be about to become CANCELS."""
    forked = job.ppid() == os.getpid() and job.name() == psutil.Process().name()
    return not forked or time.time() - job.create_time() > YOUNG


def _lives(job: psutil.Process) -> bool:
    """Whether it runs and is to be ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(job.status() != psutil.STATUS_ZOMBIE and job.name() != CANCELS)
    return False
