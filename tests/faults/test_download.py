"""Whatever a server does: the whole archive, or one message and nothing under its name."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.miniature.server import Fault, Request, Server

from cliptrase.data import transfer
from cliptrase.data.download import Policy, fetch
from cliptrase.data.sources import Archive
from cliptrase.errors import UserError

FAST = Policy(attempts=3, backoff=0.005, longest=0.01, connect=2, read=0.5, redirects=4, margin=0)


def zipped(seed: int, size: int = 300_000) -> bytes:
    """A zip whose member cannot be compressed: the same bytes for the same seed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("image.jpg"), random.Random(seed).randbytes(size))
    return file.getvalue()


WHOLE = zipped(0)
SIZE = len(WHOLE)
TENTHS = [SIZE * tenth // 10 for tenth in range(10)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "a.zip").write_bytes(WHOLE)
    with Server(folder) as running:
        yield running


def archive(*urls: str, known: bool = True, name: str = "a.zip") -> Archive:
    """An archive with these addresses; `known`: its size and checksum were published."""
    checksum = ("sha256", hashlib.sha256(WHOLE).hexdigest()) if known else None
    return Archive(name, "images", urls, SIZE if known else None, checksum, "none", None)


def is_whole(data: Path) -> bool:
    """The archive is there, with its receipt, and nothing is left of the download."""
    left = sorted(path.name for path in (data / "raw").glob("*.part*"))
    return (
        (data / "raw/a.zip").read_bytes() == WHOLE
        and (data / "raw/a.zip.json").is_file()
        and not left
    )


def refusal(one: Archive, data: Path, **more) -> str:
    """The message of a fetch that must fail, which leaves nothing that could be used."""
    with pytest.raises(UserError) as error:
        fetch(one, data, policy=more.pop("policy", FAST), **more)
    assert not (data / "raw" / one.name).exists() and not (data / "raw/a.zip.json").exists()
    message = str(error.value)
    assert one.name in message and "\n" not in message
    return message


def ranges(server: Server) -> list[str]:
    return [request.range for request in server.requests]


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


@pytest.mark.parametrize("etag", ["auto", None], ids=["another version", "no version"])
def test_two_versions_of_a_file_are_never_mixed(etag, server, tmp_path):
    """Without a checksum, only the server can say that its file is still the same."""
    one = archive(f"{server.url}/a.zip", known=False)
    server.faults["/a.zip"] = Fault(cuts=(SIZE // 2,) * 9, etag=etag)
    refusal(one, tmp_path)
    server.faults["/a.zip"] = Fault(etag=etag)
    (server.folder / "a.zip").write_bytes(zipped(1))
    os.utime(server.folder / "a.zip", ns=(1, 1))
    server.requests.clear()
    assert fetch(one, tmp_path, policy=FAST).read_bytes() == zipped(1)
    assert ranges(server) == ([f"bytes={SIZE // 2}-"] if etag else [""])


def test_a_part_of_another_file_costs_one_more_start(server, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/.a.zip.part").write_bytes(zipped(1)[: SIZE // 2])
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and ranges(server) == [f"bytes={SIZE // 2}-", ""]


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/.a.zip.part").write_bytes(WHOLE)
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and not server.requests


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/.a.zip.part").write_bytes(WHOLE + b"more")
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and ranges(server) == [""]


@pytest.mark.parametrize("at", [1000, *TENTHS[1:], SIZE - 1])
def test_one_wrong_byte_is_a_wrong_checksum(at, server, tmp_path):
    server.faults["/a.zip"] = Fault(wrong_byte=at)
    message = refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert re.search(r"its sha256 is [0-9a-f]{64} instead of [0-9a-f]{64}", message)
    assert len(server.requests) == 1 and not list((tmp_path / "raw").glob(".a.zip.part*"))


PAGES = {
    "called HTML": Fault(page="text/html; charset=utf-8"),
    "called an archive": Fault(page="application/zip"),
}


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_status_200_is_no_archive(page, known, server, tmp_path):
    server.faults["/a.zip"] = PAGES[page]
    message = refusal(archive(f"{server.url}/a.zip", known=known), tmp_path)
    assert f"{server.url}/a.zip: an HTML page" in message or f"instead of {SIZE:,}" in message
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [b"{}" * 5000, tarfile.TarInfo("x").tobuf() * 9, b""])
def test_another_kind_of_file_is_refused_at_its_first_bytes(content, server, tmp_path):
    (server.folder / "a.zip").write_bytes(content)
    message = refusal(archive(f"{server.url}/a.zip", known=False), tmp_path)
    assert "it does not begin as a .zip file does" in message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_is_refused_for_good_is_asked_once_and_the_next_address_serves(
    status, server, tmp_path
):
    server.faults["/old/a.zip"] = Fault(status=status)
    one = archive(f"{server.url}/old/a.zip", f"{server.url}/a.zip")
    fetch(one, tmp_path, policy=FAST)
    assert is_whole(tmp_path)
    assert [request.path for request in server.requests] == ["/old/a.zip", "/a.zip"]
    assert f'"url": "{server.url}/a.zip"' in (tmp_path / "raw/a.zip.json").read_text()


@pytest.mark.parametrize("status", [403, 404])
def test_every_address_and_its_reason_is_named(status, server, tmp_path):
    server.faults["/a.zip"] = Fault(status=status)
    message = refusal(archive(f"{server.url}/a.zip", f"{server.url}/b.zip"), tmp_path)
    assert f"{server.url}/a.zip: status {status} " in message
    assert f"{server.url}/b.zip: status 404 Not Found" in message
    assert f"by hand and put it at {tmp_path}/raw/a.zip" in message


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_tried_again(status, server, tmp_path):
    server.faults["/a.zip"] = Fault(status=status, times=2, retry_after="0")
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and len(server.requests) == 3


def test_what_does_not_pass_is_given_up_and_the_next_address_serves(server, tmp_path):
    server.faults["/b.zip"] = Fault(status=500)
    fetch(archive(f"{server.url}/b.zip", f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and server.count("/b.zip") == 3


def test_waits_grow_and_a_servers_wish_is_heard(server, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    patient = dataclasses.replace(FAST, attempts=5, backoff=1, longest=5)
    server.faults["/a.zip"] = Fault(status=500)
    refusal(archive(f"{server.url}/a.zip"), tmp_path, policy=patient)
    assert waits == [1, 2, 4, 5]
    waits.clear()
    server.faults["/a.zip"] = Fault(status=503, times=2, retry_after="3")
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=patient)
    assert waits == [3, 3]


def test_nobody_answers(tmp_path):
    with Server(tmp_path) as gone:
        pass
    message = refusal(archive(f"{gone.url}/a.zip"), tmp_path)
    assert "no connection after 0 bytes" in message and "(3 times in a row)" in message


def test_redirects_are_followed_also_to_another_server(server, tmp_path):
    server.faults["/b.zip"] = Fault(redirect="/c.zip")
    with Server(tmp_path) as other:
        server.faults["/c.zip"] = Fault(redirect=f"{other.url}/d.zip")
        other.faults["/d.zip"] = Fault(redirect=f"{server.url}/a.zip")
        fetch(archive(f"{server.url}/b.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path)


def test_redirects_in_a_circle_end(server, tmp_path):
    server.faults["/a.zip"] = Fault(redirect="loop")
    assert "redirects more than 4 times" in refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "ftp://127.0.0.1/a.zip", "http://127.0.0.1:port/"]
)
def test_redirects_to_anything_else_are_not_followed(target, server, tmp_path):
    server.faults["/a.zip"] = Fault(redirect=target)
    message = refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert "redirects to" in message and len(server.requests) == 1


def test_what_was_asked_over_https_is_not_sent_over_http(monkeypatch, tmp_path):
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.scheme == "https"
        return httpx.Response(302, headers={"Location": "http://127.0.0.1/a.zip"})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr(transfer, "_client", lambda policy: client)
    assert "is not followed from https" in refusal(archive("https://127.0.0.1/a.zip"), tmp_path)


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
def test_a_server_without_ranges_starts_over(known, server, tmp_path):
    server.faults["/a.zip"] = Fault(cuts=(SIZE // 3, SIZE // 2), ranges=False)
    fetch(archive(f"{server.url}/a.zip", known=known), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and len(server.requests) == 3


def test_a_server_that_goes_on_elsewhere_is_not_believed(server, tmp_path):
    server.faults["/a.zip"] = Fault(cuts=(SIZE // 2,), wrong_range=True)
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and ranges(server) == ["", f"bytes={SIZE // 2}-", ""]


@pytest.mark.parametrize("wrong", [-5000, 5000])
def test_a_length_that_is_not_the_published_one_is_refused_at_once(wrong, server, tmp_path):
    server.faults["/a.zip"] = Fault(more_length=wrong)
    message = refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert f"offers {SIZE + wrong:,} bytes instead of {SIZE:,}" in message
    assert len(server.requests) == 1


def test_a_length_that_is_too_small_leaves_a_file_without_its_end(server, tmp_path):
    server.faults["/a.zip"] = Fault(more_length=-5000)
    assert "its end is missing" in refusal(archive(f"{server.url}/a.zip", known=False), tmp_path)


def test_a_length_that_is_too_large_is_not_waited_for(server, tmp_path):
    """The server has nothing more, and says so when it is asked to go on."""
    server.faults["/a.zip"] = Fault(more_length=5000)
    fetch(archive(f"{server.url}/a.zip", known=False), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and ranges(server) == ["", f"bytes={SIZE}-"]


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
@pytest.mark.parametrize("tenth", [TENTHS[5], TENTHS[9]])
def test_an_end_that_nobody_announced_is_found_missing(tenth, known, server, tmp_path):
    server.faults["/a.zip"] = Fault(whole_length=False, cuts=(tenth,) * 9)
    message = refusal(archive(f"{server.url}/a.zip", known=known), tmp_path)
    assert (f"{tenth:,} bytes instead of {SIZE:,}" if known else "its end is missing") in message


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w:"), ("a.tar.gz", "w:gz")])
def test_the_end_of_a_tar_is_missed_too(name, mode, server, tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        member = tarfile.TarInfo("image.jpg")
        member.size = 50_000
        tar.addfile(member, io.BytesIO(random.Random(0).randbytes(50_000)))
    (server.folder / name).write_bytes(file.getvalue())
    one = archive(f"{server.url}/{name}", known=False, name=name)
    server.faults[f"/{name}"] = Fault(whole_length=False, cuts=(40_000,) * 9)
    assert "its end is missing" in refusal(one, tmp_path)
    server.faults.clear()
    assert fetch(one, tmp_path, policy=FAST).read_bytes() == file.getvalue()


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path):
    server.faults["/a.zip"] = Fault(stall=5, times=1)
    brief = dataclasses.replace(FAST, read=0.2)
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=brief)
    assert is_whole(tmp_path) and ranges(server)[1].startswith("bytes=")


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
def test_no_space_is_seen_before_anything_is_written(known, server, tmp_path, monkeypatch):
    def little(folder: Path) -> object:
        return type("Usage", (), {"free": SIZE + FAST.margin - 1})()

    monkeypatch.setattr(transfer.shutil, "disk_usage", little)
    message = refusal(archive(f"{server.url}/a.zip", known=known), tmp_path / "a.zip")
    assert "300.1 kB are to be fetched and 300.1 kB are free" in message and "free some" in message
    assert not list((tmp_path / "a.zip/raw").glob("*.part"))
    assert len(server.requests) == (not known)


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
from tests.faults.test_download import FAST, archive
from cliptrase.data import download, transfer
transfer.need_space = lambda *_: None
download.need_space = lambda *_: None
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


def test_a_long_download_says_a_line_a_minute(server, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "cliptrase")
    clock = iter(range(0, 10**6, 45))
    monkeypatch.setattr(transfer.time, "monotonic", lambda: float(next(clock)))
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    said = [record.message for record in caplog.records if " of 300.1 kB" in record.message]
    assert said and all(re.fullmatch(r"a\.zip: [\d.]+ kB of 300\.1 kB", line) for line in said)
    assert Request("/a.zip", "", "") in server.requests
