"""Whatever a server answers: the whole archive, or one message and nothing under its name."""

from __future__ import annotations

import dataclasses
import errno
import io
import random
import tarfile
import time

import httpcore
import httpx
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
)
from tests.miniature.server import Fault, Server

from cliptrase.data.fetch.download import fetch

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


@pytest.mark.parametrize("content", [b"{}" * 500_000, tarfile.TarInfo("x").tobuf() * 9, b""])
def test_another_kind_of_file_is_refused_at_its_first_bytes(content, server, tmp_path):
    (server.folder / "a.zip").write_bytes(content)
    server.faults["/a.zip"] = Fault(slow=0.5)
    started = time.monotonic()
    message = refusal(archive(f"{server.url}/a.zip", known=False), tmp_path)
    assert "it does not begin as a .zip file does" in message
    assert time.monotonic() - started < 5  # the million bytes would take eight seconds
    assert not list((tmp_path / "raw").glob(".a.zip.part*"))


def test_more_than_there_can_be_is_not_written(server, tmp_path):
    (server.folder / "a.zip").write_bytes(WHOLE + bytes(10**6))
    server.faults["/a.zip"] = Fault(whole_length=False)
    assert f"sends more than {SIZE:,} bytes" in refusal(archive(f"{server.url}/a.zip"), tmp_path)
    assert not list((tmp_path / "raw").glob(".a.zip.part*"))


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
    monkeypatch.setattr(time, "sleep", waits.append)
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


def offline(*_: object) -> None:
    """As httpx says it: the cause is told by the context alone."""
    try:
        try:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        except OSError as error:
            raise httpcore.ConnectError(error) from error
    except httpcore.ConnectError as error:
        raise httpx.ConnectError(str(error)) from error


@pytest.mark.parametrize("how", ["no such name", "no network"])
def test_without_a_network_nothing_is_waited_for(how, tmp_path, monkeypatch):
    """Neither is tried again; each address says so once."""
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it is tried again"))
    if how == "no network":
        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", offline)
    hosts = ("http://a.invalid/a.zip", "http://b.invalid/a.zip")
    message = refusal(archive(*hosts), tmp_path)
    assert message.startswith("a.zip could not be fetched: http://a.invalid/a.zip: no network, or")
    assert "b.invalid/a.zip: no network, or no server of that name (" in message


def test_a_network_that_breaks_in_the_middle_is_waited_for(server, tmp_path, monkeypatch):
    server.faults["/a.zip"] = Fault(cuts=(SIZE // 2,))
    answer, calls = httpx.HTTPTransport.handle_request, []

    def broken_once(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return offline() if len(calls) == 2 else answer(self, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", broken_once)
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path) and len(calls) == 3


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

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda _, request: answer(request))
    assert "is not followed from https" in refusal(archive("https://127.0.0.1/a.zip"), tmp_path)


def test_what_was_asked_over_http_may_be_sent_over_https(monkeypatch, tmp_path):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return httpx.Response(301, headers={"Location": "https://127.0.0.1/a.zip"})
        return httpx.Response(200, stream=httpx.ByteStream(WHOLE))

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda _, request: answer(request))
    fetch(archive("http://127.0.0.1/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path)


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
