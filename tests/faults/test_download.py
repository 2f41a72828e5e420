"""Broken connections, parts, wrong bytes, full disks: the rerun goes on, nothing wrong is kept."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.fetching import (
    FAST,
    SIZE,
    TENTHS,
    WHOLE,
    archive,
    is_whole,
    ranges,
    refusal,
    zipped,
)
from tests.miniature.server import Fault

from cliptrase.data.fetch import transfer
from cliptrase.data.fetch.download import fetch
from cliptrase.errors import UserError


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
def test_broken_at_every_tenth_it_goes_on_where_it_stopped(known, server, tmp_path):
    server.faults["/a.zip"] = Fault(cuts=tuple(TENTHS))
    fetch(archive(f"{server.url}/a.zip", known=known), tmp_path, policy=FAST)
    assert is_whole(tmp_path)
    assert ranges(server) == ["", "", *(f"bytes={tenth}-" for tenth in TENTHS[1:])]


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
@pytest.mark.parametrize("tenth", TENTHS)
def test_given_up_at_any_tenth_another_run_goes_on_from_there(tenth, known, server, tmp_path):
    one, once = archive(f"{server.url}/a.zip", known=known), dataclasses.replace(FAST, attempts=1)
    server.faults["/a.zip"] = Fault(cuts=(tenth, tenth))
    message = refusal(one, tmp_path, policy=dataclasses.replace(once, attempts=1))
    assert f"{server.url}/a.zip: the connection broke after {tenth:,} bytes" in message
    assert "download http://127.0.0.1" in message.lower() and f"{tmp_path}/raw/a.zip" in message
    assert ("are kept" in message) == (tenth > 0)
    server.faults.clear()
    server.requests.clear()
    fetch(one, tmp_path, policy=once)
    assert is_whole(tmp_path) and ranges(server) == [f"bytes={tenth}-" if tenth else ""]
    assert bool(server.requests[0].if_range) == (tenth > 0)


def test_a_connection_that_never_brings_anything_new_is_given_up(server, tmp_path):
    server.faults["/a.zip"] = Fault(cuts=(1000,) * 50)
    assert "(3 times in a row)" in refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert len(server.requests) == 4  # the first one brought 1000 bytes


@pytest.mark.parametrize("version", ["another one", "not heeded", "not told"])
def test_two_versions_of_a_file_are_never_mixed(version, server, tmp_path):
    """Without a checksum, only the server can say that its file is still the same."""
    one = archive(f"{server.url}/a.zip", known=False)
    etag, heeded = None if version == "not told" else "auto", version != "not heeded"
    server.faults["/a.zip"] = Fault(cuts=(SIZE // 2,) * 9, etag=etag)
    refusal(one, tmp_path)
    server.faults["/a.zip"] = Fault(etag=etag, if_range=heeded)
    (server.folder / "a.zip").write_bytes(zipped(1))
    os.utime(server.folder / "a.zip", ns=(1, 1))
    server.requests.clear()
    assert fetch(one, tmp_path, policy=FAST).read_bytes() == zipped(1)
    asked = {"another one": [SIZE // 2], "not heeded": [SIZE // 2, 0], "not told": [0]}[version]
    assert ranges(server) == [f"bytes={start}-" if start else "" for start in asked]


def test_a_part_of_another_file_costs_one_more_start(server, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/.a.zip.part").write_bytes(zipped(1)[: SIZE // 2])
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and ranges(server) == [f"bytes={SIZE // 2}-", ""]


def test_wrong_and_broken_every_time_it_ends(server, tmp_path):
    """Continued or not: a file that is wrong twice is wrong."""
    server.faults["/a.zip"] = Fault(wrong_byte=5000, first_cut=SIZE // 2)
    assert "its sha256 is" in refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert ranges(server) == ["", f"bytes={SIZE // 2}-"] * 2


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/.a.zip.part").write_bytes(WHOLE)
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and not server.requests


def test_a_whole_part_needs_no_space(server, tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/.a.zip.part").write_bytes(WHOLE)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    fetch(archive(f"{server.url}/a.zip"), tmp_path)
    assert is_whole(tmp_path)


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/.a.zip.part").write_bytes(WHOLE + b"more")
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and ranges(server) == [f"bytes={SIZE + 4}-", ""]


@pytest.mark.parametrize("at", [1000, *TENTHS[1:], SIZE - 1])
def test_one_wrong_byte_is_a_wrong_checksum(at, server, tmp_path):
    server.faults["/a.zip"] = Fault(wrong_byte=at)
    message = refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert re.search(r"its sha256 is [0-9a-f]{64} instead of [0-9a-f]{64}", message)
    assert len(server.requests) == 1 and not list((tmp_path / "raw").glob(".a.zip.part*"))


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
def test_no_space_is_seen_before_anything_is_written(known, server, tmp_path, monkeypatch):
    def little(folder: Path) -> object:
        return type("Usage", (), {"free": SIZE + FAST.margin - 1})()

    monkeypatch.setattr(transfer.shutil, "disk_usage", little)
    message = refusal(archive(f"{server.url}/a.zip", known=known), tmp_path / "a.zip")
    assert "300.1 kB are to be fetched and 300.1 kB are free" in message and "free some" in message
    assert "of which 0 bytes must stay free" in message
    assert not list((tmp_path / "a.zip/raw").glob("*.part"))
    assert len(server.requests) == 1


def test_a_disk_that_fills_up_is_one_message_and_the_rerun_goes_on(server, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, piece) -> int:
            if self.tell() + len(piece) > SIZE // 2:
                if self.tell() == SIZE // 2:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                piece = piece[: SIZE // 2 - self.tell()]  # as a disk does: some of it
            return super().write(piece)

    monkeypatch.setattr(
        transfer, "open", lambda path, mode, buffering: Full(path, mode), raising=False
    )
    message = refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert "no space left on the disk; free some and run again" in message
    monkeypatch.undo()
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and ranges(server) == ["", f"bytes={SIZE // 2}-"]


def test_a_small_real_disk(server, tmp_path):
    """A file system of 200 kB, where the kernel lets us have one."""
    code = f"""
from tests.faults.fetching import FAST, archive
from cliptrase.data.fetch import download, transfer
transfer.need_space = lambda *_: None
try:
    download.fetch(archive({f"{server.url}/a.zip"!r}), "disk", policy=FAST)
except download.UserError as error:
    print(error)
"""
    (tmp_path / "disk").mkdir()
    mounted = 'mount -t tmpfs -o size=200k none disk && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mounted, "sh", sys.executable, "-c", code]
    path = os.pathsep.join(sys.path)
    try:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no file system of our own here: {done.stderr}")
    assert done.stdout.startswith("disk/raw/.a.zip.part: no space left on the disk"), done.stderr


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(UserError, match=r"raw: a file or folder of that name stands in the way"):
        fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    (tmp_path / "raw").unlink()
    (tmp_path / "raw/a.zip").mkdir(parents=True)
    with pytest.raises(UserError, match=r"a\.zip: a folder stands where the archive belongs"):
        fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert not server.requests


def test_a_long_download_prints_its_progress_once_a_minute(capsys):
    with transfer._bar("a.zip") as bar:
        bar.total = 300_100
        bar.update(100_000)
        assert capsys.readouterr().err == "", "the first minute is not over"
        bar.start_t -= 61
        bar.last_print_t -= 61
        bar.update(100_000)
        assert re.search(r"a\.zip: +67%.*200k/300k", capsys.readouterr().err)
        bar.update(100_000)
        assert capsys.readouterr().err == "", "the second minute is not over"
