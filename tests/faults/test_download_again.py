"""Fetched twice, at the same time, killed, put there by hand, served by a mirror, damaged later."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.faults.fetching import FAST, SIZE, WHOLE, archive, changed, is_whole, ranges, zipped
from tests.miniature.server import Fault

from cliptrase.data.fetch.download import fetch, main
from cliptrase.data.fetch.receipts import state
from cliptrase.data.fetch.sources import Gated
from cliptrase.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
GATED = changed(archive(), gated=Gated(page="https://example.org/ask", note="ask nicely"))
UNKNOWN = changed(archive(known=False), gated=GATED.gated)


def placed(data: Path, content: bytes = WHOLE) -> Path:
    """Put a file into <data>/raw by hand."""
    (data / "raw").mkdir(parents=True, exist_ok=True)
    (data / "raw/a.zip").write_bytes(content)
    return data / "raw/a.zip"


def listed(data: Path, url: str, known: bool = True) -> None:
    """A list of sources with this one archive, as the command reads it."""
    one = archive(url, known=known)
    entry = one.model_dump() | {"urls": [url], "checksum": dict([one.checksum or ("", "")])}
    entry["checksum"] = entry["checksum"] if known else None
    del entry["about"]
    data.mkdir(exist_ok=True)
    (data / "sources.yaml").write_text(
        yaml.safe_dump({"archives": {entry.pop("name"): entry}, "datasets": {}})
    )


def started(data: Path, before: str = "") -> subprocess.Popen:
    """A process that fetches the archive of <data>/sources.yaml, once it has run `before`."""
    code = f"from cliptrase.data.fetch import download, transfer\n{before}\ndownload.main()"
    command = [sys.executable, "-c", code, "a.zip", "--data", str(data)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
def test_two_processes_fetch_once(known, server, tmp_path):
    listed(tmp_path / "data", f"{server.url}/a.zip", known)
    server.faults["/a.zip"] = Fault(slow=0.2)
    both = [started(tmp_path / "data"), started(tmp_path / "data")]
    ends = [finished(one) for one in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert all(out == f"{tmp_path}/data/raw/a.zip: complete, 300.1 kB\n" for _, out, _ in ends)
    assert sum("another process is at it; waiting" in err for _, _, err in ends) == 1
    assert is_whole(tmp_path / "data") and server.count("/a.zip") == 1


def test_the_one_that_waited_goes_on_where_a_killed_one_stopped(server, tmp_path):
    listed(tmp_path / "data", f"{server.url}/a.zip")
    server.faults["/a.zip"] = Fault(slow=1)
    first = started(tmp_path / "data")
    wait_for(tmp_path / "data/raw/.a.zip.part", 2 * 65536)
    second = started(tmp_path / "data")
    assert "waiting" in second.stderr.readline()
    first.kill()
    code, _, err = finished(second)
    assert code == 0 and is_whole(tmp_path / "data"), err
    assert len(server.requests) == 2 and int(ranges(server)[1][6:-1]) >= 2 * 65536
    finished(first)


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
def test_killed_in_the_middle_the_rerun_goes_on(known, server, tmp_path):
    listed(tmp_path / "data", f"{server.url}/a.zip", known)
    server.faults["/a.zip"] = Fault(slow=0.2, times=1)
    process = started(tmp_path / "data")
    part = tmp_path / "data/raw/.a.zip.part"
    wait_for(part, 2 * 65536)
    process.kill()
    finished(process)
    assert not (tmp_path / "data/raw/a.zip").exists()
    there = part.stat().st_size
    assert 2 * 65536 <= there < SIZE
    one = archive(f"{server.url}/a.zip", known=known)
    assert state(one, tmp_path / "data", deep=True).status == "partial"
    assert finished(started(tmp_path / "data"))[0] == 0
    assert is_whole(tmp_path / "data") and ranges(server) == ["", f"bytes={there}-"]


KILLED = {
    "before it is checked": "download.check = kill",
    "when its version is noted": "os.replace = kill",
    "before it gets its name": "download.os = type('', (), vars(os) | {'replace': kill})",
    "before its receipt": "download.write_receipt = kill",
}


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
@pytest.mark.parametrize("moment", KILLED)
def test_killed_at_any_step_nothing_whole_is_fetched_twice(moment, known, server, tmp_path):
    listed(tmp_path / "data", f"{server.url}/a.zip", known)
    kill = "import os\ndef kill(*_, **__): os.kill(os.getpid(), 9)\n"
    assert finished(started(tmp_path / "data", kill + KILLED[moment]))[0] == -signal.SIGKILL
    assert not (tmp_path / "data/raw/a.zip.json").exists()
    assert finished(started(tmp_path / "data"))[0] == 0
    assert is_whole(tmp_path / "data")
    assert server.count("/a.zip") == (2 if "noted" in moment else 1)
    receipt = json.loads((tmp_path / "data/raw/a.zip.json").read_text())
    assert receipt["url"] == f"{server.url}/a.zip"
    left = sorted(path.name for path in (tmp_path / "data/raw").iterdir())
    assert left == [".a.zip.lock", "a.zip", *["a.zip.first.json"] * (not known), "a.zip.json"]


def wait_for(path: Path, size: int) -> None:
    end = time.monotonic() + 20
    while not path.is_file() or path.stat().st_size < size:
        assert time.monotonic() < end, f"{path} does not grow"
        time.sleep(0.01)


def test_what_is_there_is_not_asked_for_and_its_receipt_stays(server, tmp_path):
    one = archive(f"{server.url}/a.zip")
    fetch(one, tmp_path, policy=FAST)
    receipt = tmp_path / "raw/a.zip.json"
    before, written = receipt.stat().st_mtime_ns, receipt.read_bytes()
    fetch(one, tmp_path, policy=FAST)
    assert receipt.stat().st_mtime_ns == before and len(server.requests) == 1
    receipt.unlink()
    fetch(changed(one, urls=()), tmp_path)
    said, now = json.loads(written), json.loads(receipt.read_bytes())
    assert now == said | {"url": None}
    assert said["sha256"] == hashlib.sha256(WHOLE).hexdigest() and said["bytes"] == SIZE
    assert said["checksum_verified"] == "sha256"


def test_the_weaker_checksums_are_checked_too(server, tmp_path):
    for kind in ("md5", "sha1"):
        digits = hashlib.new(kind, WHOLE).hexdigest()
        one = changed(archive(f"{server.url}/a.zip"), checksum=(kind, digits))
        data = tmp_path / kind
        fetch(one, data, policy=FAST)
        receipt = json.loads((data / "raw/a.zip.json").read_bytes())
        assert receipt["checksum_verified"] == kind
        assert receipt["sha256"] == hashlib.sha256(WHOLE).hexdigest()
        other = changed(one, checksum=(kind, digits[::-1]))
        assert state(other, data, deep=False).status == "unverified"
        assert state(other, data, deep=True).status == "damaged"


def test_an_archive_damaged_later_is_fetched_again(server, tmp_path):
    one = archive(f"{server.url}/a.zip")
    path = fetch(one, tmp_path, policy=FAST)
    path.write_bytes(WHOLE[:1000] + b"?" + WHOLE[1001:])
    assert state(one, tmp_path, deep=False).status == "complete"  # a quick look cannot see it
    assert state(one, tmp_path, deep=True).status == "damaged"
    fetch(one, tmp_path, policy=FAST)
    assert is_whole(tmp_path) and len(server.requests) == 2


def test_a_damaged_archive_loses_its_receipt_though_it_cannot_be_fetched(server, tmp_path):
    one = archive(f"{server.url}/a.zip")
    path = fetch(one, tmp_path, policy=FAST)
    path.write_bytes(WHOLE[:-1])
    server.faults["/a.zip"] = Fault(status=404)
    with pytest.raises(UserError, match="status 404"):
        fetch(one, tmp_path, policy=FAST)
    assert not (tmp_path / "raw/a.zip.json").exists()


def test_an_archive_that_is_gone_loses_its_receipt(tmp_path):
    placed(tmp_path)
    fetch(archive(), tmp_path)
    (tmp_path / "raw/a.zip").unlink()
    with pytest.raises(UserError, match=r"a\.zip: missing\. Put it at .*, or name a server"):
        fetch(archive(), tmp_path)
    assert not (tmp_path / "raw/a.zip.json").exists()


def test_a_gated_archive_is_asked_for_in_words(tmp_path):
    with pytest.raises(UserError) as error:
        fetch(GATED, tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/raw/a.zip: missing. Its owner alone gives it: https://example.org/ask: "
        f"ask nicely; then put the file a.zip into {tmp_path}/raw"
    )


@pytest.mark.parametrize("one", [GATED, UNKNOWN], ids=["checksum", "no checksum"])
def test_a_file_put_there_by_hand_is_checked_and_gets_a_receipt(one, tmp_path):
    placed(tmp_path)
    assert state(one, tmp_path, deep=False).status == "unverified"
    fetch(one, tmp_path)
    assert state(one, tmp_path, deep=False).status == "complete"
    receipt = json.loads((tmp_path / "raw/a.zip.json").read_bytes())
    assert receipt["url"] is None and receipt["sha256"] == hashlib.sha256(WHOLE).hexdigest()


@pytest.mark.parametrize("one", [GATED, UNKNOWN], ids=["checksum", "no checksum"])
@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>log in</html>", WHOLE[: SIZE // 2], b""], ids=len
)
def test_a_damaged_file_of_the_users_own_is_refused_and_kept(content, one, tmp_path):
    placed(tmp_path, content)
    (tmp_path / "raw/a.zip.json").write_text("{}")
    with pytest.raises(UserError, match=r"raw/a\.zip: .*\. Get it again: https://example.org/ask:"):
        fetch(one, tmp_path)
    assert (tmp_path / "raw/a.zip").read_bytes() == content
    assert not (tmp_path / "raw/a.zip.json").exists()
    assert state(one, tmp_path, deep=True).status == "damaged"


def test_later_copies_are_held_against_the_first(server, tmp_path):
    one = archive(f"{server.url}/a.zip", known=False)
    path = fetch(one, tmp_path, policy=FAST)
    first = tmp_path / "raw/a.zip.first.json"
    assert json.loads(first.read_bytes())["sha256"] == hashlib.sha256(WHOLE).hexdigest()
    path.unlink()
    (tmp_path / "raw/a.zip.json").unlink()  # as Snakemake deletes what it makes again
    (server.folder / "a.zip").write_bytes(zipped(1))
    with pytest.raises(UserError, match=f"that of the first copy was .*delete {first}") as error:
        fetch(one, tmp_path, policy=FAST)
    assert f"{server.url}/a.zip" in str(error.value) and not path.exists()
    first.unlink()
    assert fetch(one, tmp_path, policy=FAST).read_bytes() == zipped(1)
    first.write_text("{")
    with pytest.raises(UserError, match=r"first\.json: cannot be read; delete it"):
        fetch(one, tmp_path, policy=FAST)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_takes_the_place_of_every_address(slash, server, tmp_path):
    """Also of what is gated: a laboratory serves what it may serve to its own people."""
    nowhere = archive("http://127.0.0.1:9/a.zip")
    for number, one in enumerate((nowhere, GATED)):
        fetch(one, tmp_path / str(number), mirror=f"{server.url}{slash}", policy=FAST)
        assert is_whole(tmp_path / str(number))
    assert [request.path for request in server.requests] == ["/a.zip"] * 2


def test_a_mirror_that_lacks_an_archive_is_named(server, tmp_path):
    (server.folder / "a.zip").unlink()
    with pytest.raises(UserError, match=r"/lab/a\.zip: status 404.*https://example\.org/ask"):
        fetch(GATED, tmp_path, mirror=f"{server.url}/lab", policy=FAST)


@pytest.mark.parametrize("fault", [403, 404, 410])
def test_a_mirror_without_the_archive_is_named_before_the_public_address(fault, server, tmp_path):
    server.faults["/lab/a.zip"] = Fault(status=fault)
    one = archive("https://public.example/a.zip")
    message = rf"the mirror does not give it: {server.url}/lab/a.zip: status {fault}.*public"
    with pytest.raises(UserError, match=message):
        fetch(one, tmp_path, mirror=f"{server.url}/lab", policy=FAST)


def test_a_mirror_that_cannot_be_reached(tmp_path):
    message = r"the mirror does not give it: http://127\.0\.0\.1:9/a\.zip: no connection"
    one = archive("https://public.example/a.zip")
    with pytest.raises(UserError, match=message):
        fetch(one, tmp_path, mirror="http://127.0.0.1:9", policy=FAST)


@pytest.mark.parametrize(
    "url",
    ["ftp://a.org", "a.org/x", "file:///tmp", "http://", "http://u:p@a.org", "http://a.org?x=1"],
)
def test_what_is_no_mirror(url, tmp_path):
    with pytest.raises(UserError, match=r"^mirror=.*must be the http:// or https:// address"):
        fetch(archive(), tmp_path, mirror=url)


@pytest.mark.parametrize("how", ["word", "option", "environment"])
def test_the_command_takes_a_mirror_in_three_ways(how, server, tmp_path, monkeypatch, capsys):
    listed(tmp_path / "data", "http://127.0.0.1:9/a.zip")
    words = ["a.zip", "--data", str(tmp_path / "data")]
    match how:
        case "word":
            words.insert(0, f"data.mirror={server.url}")
        case "option":
            words += ["--mirror", server.url]
        case "environment":
            monkeypatch.setenv("CLIPTRASE_MIRROR", server.url)
    main(words)
    assert is_whole(tmp_path / "data")
    assert capsys.readouterr().out == f"{tmp_path}/data/raw/a.zip: complete, 300.1 kB\n"


def test_the_command_names_what_exists_for_a_typo(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["val2017.zp", "--data", str(tmp_path)])
    assert ended.value.code == 1
    assert "unknown archive 'val2017.zp'; did you mean 'val2017.zip'?" in capsys.readouterr().err


def test_a_file_in_another_place_may_be_linked(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/voc").write_bytes(WHOLE)
    (tmp_path / "raw").mkdir()
    os.symlink(tmp_path / "store/voc", tmp_path / "raw/a.zip")
    fetch(GATED, tmp_path)
    assert (tmp_path / "raw/a.zip").is_symlink() and (tmp_path / "raw/a.zip.json").is_file()


def test_a_proxy_is_not_asked_for_this_machine(server, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fetch(archive(f"{server.url}/a.zip"), tmp_path, policy=FAST)
    assert is_whole(tmp_path)


def test_a_part_is_useless_once_the_archive_was_put_there_by_hand(tmp_path):
    placed(tmp_path)
    (tmp_path / "raw/.a.zip.part").write_bytes(WHOLE[:1000])
    (tmp_path / "raw/.a.zip.part.json").write_text('{"url": "http://of.the.part/a.zip"}')
    fetch(archive(), tmp_path)
    assert is_whole(tmp_path)
    assert json.loads((tmp_path / "raw/a.zip.json").read_text())["url"] is None


def test_stopped_by_hand_it_says_so_in_a_line(server, tmp_path):
    listed(tmp_path / "data", f"{server.url}/a.zip")
    server.faults["/a.zip"] = Fault(slow=0.2)
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = started(tmp_path / "data", listening)  # a test in the background ignores SIGINT
    wait_for(tmp_path / "data/raw/.a.zip.part", 65536)
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert (code, out, err) == (130, "", "stopped; another run goes on where this one was\n")
    assert (tmp_path / "data/raw/.a.zip.part").stat().st_size >= 65536
