"""The lines that say how far the passes of a start are, from their logs and pass files."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from cliptrase.evaluate import passes
from cliptrase.pipeline import progress
from cliptrase.plan import Pass, Plan
from cliptrase.runs.finished import pass_file

START = 1_000_000.0  # of the passes, by the clock of files


@pytest.fixture
def small(smoke, empty):
    """A suite of two passes over 4 images each, of one run and of three."""
    runs = [*smoke.runs.items()]
    made = {
        name: Pass(name, "shapes", "shapes_clip", 224, "crop", dict(runs[:count]))
        for name, count in (("one", 1), ("three", 3))
    }
    return Plan("small", "", False, made, {}, dict(runs[:3]))


def write(file, text, seconds):
    """A file that was written so many seconds after the start."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (START + seconds, START + seconds))


def log(name, text, seconds=1):
    write(Path("results/logs/small/evaluate_pass", f"{name}.log"), text, seconds)


def told(plan, seconds=30.0):
    return progress.progress(plan, [*plan.passes.values()], START, seconds)


def test_nothing_is_said_before_the_first_image(small):
    assert told(small) == ("", False)
    log("one", "2 runs to make, 0 already there\n")
    assert told(small) == ("", False)


def test_images_are_added_up_and_time_goes_by_runs(small):
    log("one", "1 of 4 images, 2.0 a second\n3 of 4 images, 1.5 a second\n")
    # in 30 s 3 images of one run; 1 × 1 + 4 × 3 are left
    assert told(small) == ("3 of 8 images (37 %), about 2 minutes left", False)
    log("three", "2 of 4 images, 1.0 a second\n")  # 9 of 16 in 30 s
    assert told(small) == ("5 of 8 images (62 %), about 23 seconds left", False)
    write(pass_file("small", "one"), "{}", 20)
    assert told(small) == ("6 of 8 images (75 %), about 18 seconds left", False)
    write(pass_file("small", "three"), "{}", 25)
    assert told(small)[1]


def test_images_of_shards_are_added_up(small):
    for shard, done in (("1-of-2", 2), ("2-of-2", 1)):
        file = Path("results/logs/small/evaluate_shard", f"three.{shard}.log")
        write(file, f"{done} of 2 images, 1.0 a second\n", 1)
    # in 30 s 3 images of three runs; 1 × 3 + 4 × 1 are left
    assert told(small) == ("3 of 8 images (37 %), about 23 seconds left", False)


def test_images_of_an_earlier_start_cost_no_time(small):
    log("three", "going on from image 2\n3 of 4 images, 1.0 a second\n")
    # in 30 s 1 image of three runs; 4 × 1 + 1 × 3 are left
    assert told(small) == ("3 of 8 images (37 %), about 70 seconds left", False)


def test_files_of_an_earlier_start_do_not_count(small):
    log("one", "4 of 4 images, 1.0 a second\n", seconds=-5)
    write(pass_file("small", "three"), "{}", -5)
    assert told(small) == ("", False)


def test_a_pass_logs_what_is_read_here(small, caplog, monkeypatch):
    """Every image, where each takes longer than the time between lines."""
    caplog.set_level("INFO")
    for after, images in ((-1.0, ["1", "2", "3", "4"]), (1e9, ["4"])):
        monkeypatch.setattr(passes, "REPORT_AFTER", after)
        caplog.clear()
        assert [*passes._shown(iter("abcd"), 0, 4)] == [*"abcd"]
        assert progress.DONE.findall("\n".join(caplog.messages)) == images


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_on_a_terminal_only(terminal, small, monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "_changed", lambda file, since: file.is_file())
    for name in small.passes:
        log(name, "1 of 4 images, 1.0 a second\n")
    threads = {*threading.enumerate()}
    progress.watch(small, [*small.passes.values()])
    progress.watch(small, [])
    new = {*threading.enumerate()} - threads
    assert len(new) == terminal and all(thread.daemon for thread in new)
    said = ""
    while terminal and "\n" not in said:  # the passes end after a first look at them
        said += capfd.readouterr().err
        time.sleep(0.01)
    for name in small.passes:
        write(pass_file("small", name), "{}", 0)
    for thread in new:
        thread.join(60)
        assert not thread.is_alive()
    lines = (said + capfd.readouterr().err).splitlines()
    assert bool(lines) == terminal
    assert all(line.startswith("2 of 8 images (25 %), about ") for line in lines[:1])
