"""A start of Snakemake: a folder that cannot be written, a lock that was left, and signals."""

import errno
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cliptrase import files
from cliptrase.errors import UserError
from cliptrase.pipeline import start

LOCK = Path(".snakemake/locks/0.output.lock")
TAKE = "from cliptrase.pipeline import start; start.take_folder()"
# A job below the start that does not listen, as a shell's children
DEAF = """
import subprocess
from cliptrase.pipeline import start
start.end_on_signals()
try:
    subprocess.run(["bash", "-c", "trap '' INT TERM; sleep 600 & sleep 600; sleep 600"])
except SystemExit:
    pass  # Snakemake's scheduler does so, and goes on
start.exit_if_ended()
"""


@pytest.fixture
def left(empty) -> Path:
    """A lock that somebody left in the working directory."""
    LOCK.parent.mkdir(parents=True)
    LOCK.write_text("a file\n")
    return LOCK


def run(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def jobs_of(process: subprocess.Popen) -> list[psutil.Process]:
    """What runs below DEAF, once all of it has begun."""
    own, patience = psutil.Process(process.pid), time.monotonic() + 30
    while len(jobs := own.children(recursive=True)) < 3:
        assert time.monotonic() < patience
        time.sleep(0.05)
    return jobs


@pytest.mark.parametrize("name", [".snakemake", "results", "results/markers"])
def test_a_folder_that_cannot_be_made_is_one_message(empty, name):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("in the way")
    with pytest.raises(UserError, match=f"/{name}: .*--directory FOLDER") as caught:
        start.take_folder()
    assert "\n" not in str(caught.value)


def test_so_is_a_disk_that_is_read_only(empty, monkeypatch):
    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"\.snakemake: cannot be written; .*--directory FOLDER"):
        start.take_folder()


def test_the_lock_of_a_start_that_lives_stays(left):
    with run(f"{TAKE}; print('taken', flush=True); import time; time.sleep(600)") as other:
        # The lock on the disk was of nobody who lives; the next one is of this process.
        assert other.stdout.readline() == "taken\n" and not left.exists()
        left.parent.mkdir()
        left.write_text("a file\n")
        assert run(TAKE).wait() == 0 and left.exists()
        other.kill()
    assert run(TAKE).wait() == 0 and not left.exists()


def test_the_lock_of_another_machine_stays(left, monkeypatch):
    shown = left.parents[1] / "cliptrase.lock"
    shown.write_text("another-machine")
    assert run(TAKE).wait() == 0 and left.exists() and shown.read_text() == "another-machine"
    left.unlink()
    assert run(TAKE).wait() == 0 and shown.read_text() == platform.node()
    left.write_text("a file\n")
    assert run(TAKE).wait() == 0 and not left.exists()


def test_a_note_of_snakemake_that_is_damaged_is_removed(empty):
    """It would end with a traceback at a byte that is no UTF-8."""
    notes = Path(".snakemake/metadata")
    notes.mkdir(parents=True)
    (notes / "whole").write_text("{}")
    (notes / "damaged").write_bytes(b'{"rule": "\xff"}')
    start.take_folder()
    assert [note.name for note in notes.iterdir()] == ["whole"]


@pytest.mark.parametrize(("machine", "job"), [("another-machine", False), (platform.node(), True)])
def test_what_a_start_elsewhere_may_be_writing_stays(left, machine, job):
    """Another machine's start has locked the folder; or this is a job of a start."""
    note = Path(".snakemake/metadata/half")
    note.parent.mkdir()
    note.write_text('{"rule"')
    (left.parents[1] / "cliptrase.lock").write_text(machine)
    start.take_folder(job=job)
    assert left.exists() and note.exists()


def test_what_is_no_lock_of_files_stops_nothing(left, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(start.fcntl, "flock", refuse)
    start.take_folder()
    assert left.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_that_was_started_within_seconds(number):
    with run(DEAF) as process:
        jobs = jobs_of(process)
        sent = time.monotonic()
        os.kill(process.pid, number)
        assert process.wait(timeout=20) == 128 + number
        assert time.monotonic() - sent < 5
    gone, _ = psutil.wait_procs(jobs, timeout=5)
    assert len(gone) == len(jobs)


def test_what_takes_jobs_back_from_a_cluster_is_left_to_end(tmp_path):
    """Snakemake starts it when it is told to end; without it the jobs would stay in the queue."""
    (tmp_path / start.CANCELS).symlink_to("/bin/sleep")
    wait, scancel = "bash", str(tmp_path / start.CANCELS)
    code = DEAF.replace("pass  #", f"print(subprocess.run([{scancel!r}, '2.5']).returncode)  #")
    with run(code) as process:
        own, patience = psutil.Process(process.pid), time.monotonic() + 30
        while wait not in {job.name() for job in own.children()}:
            assert time.monotonic() < patience
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "0\n"


def test_the_jobs_of_slurm_are_cancelled_by_name_when_all_has_ended(tmp_path, monkeypatch):
    """Snakemake itself cancels only jobs whose number it has been told."""
    says = "import psutil, sys; print(*sys.argv[1:], len(psutil.Process().parent().children()))"
    (tmp_path / start.CANCELS).write_text(f"#!{sys.executable}\n{says}\n")
    (tmp_path / start.CANCELS).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with run(DEAF.replace("end_on_signals()", "end_on_signals('of-this-start')")) as process:
        jobs_of(process)
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "--name of-this-start 1\n"
