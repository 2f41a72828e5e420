"""`cliptrase verify`: a line an archive, what it says of each state, and when it fails."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cliptrase.cli import main
from cliptrase.data.fetch.download import fetch
from cliptrase.data.fetch.sources import read_sources
from cliptrase.model import hub


def zipped(text: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt"), text)
    return file.getvalue()


FETCH = "python -m cliptrase.data.fetch.download"
WHOLE = zipped("whole")
SHA1 = hashlib.sha1(WHOLE).hexdigest()
GATE = {"page": "https://example.org/ask", "note": "ask nicely"}


def entry(**changes: Any) -> dict[str, Any]:
    known = {"bytes": len(WHOLE), "checksum": {"sha1": SHA1}, "urls": ["http://127.0.0.1:9/x"]}
    return {"role": "r", "licence": "l", "gated": None} | known | changes


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder whose list has an archive of every kind, and of which nothing is there."""
    monkeypatch.chdir(tmp_path)
    content = {
        "archives": {
            "known.zip": entry(),
            "large.zip": entry(bytes=3 * 10**9, checksum=None),
            "about.zip": entry(bytes=None, checksum=None, about=2 * 10**6),
            "unknown.zip": entry(bytes=None, checksum=None),
            "gated.zip": entry(urls=[], bytes=None, checksum=None, gated=GATE),
        },
        "datasets": {
            "toy": {
                "archives": {"images": "known.zip", "labels": "large.zip"},
                "optional": {"list": "unknown.zip"},
                "count": 2,
                "expected": {},
            },
            "other": {
                "archives": {"images": "about.zip", "labels": "gated.zip"},
                "optional": {},
                "count": 2,
                "expected": {},
            },
        },
    }
    folder = tmp_path / "data"
    (folder / "raw").mkdir(parents=True)
    (folder / "sources.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """What is said of each name; of the disk under "free"."""
    main(["verify", *words])
    printed = capsys.readouterr()
    assert printed.err == ""
    return lines(printed.out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, str], str]:
    with pytest.raises(SystemExit) as ended:
        main(["verify", *words])
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return lines(printed.out), printed.err


def lines(text: str) -> dict[str, str]:
    return {
        line.split(": ")[0].split(" on ")[0]: line.partition(": ")[2] for line in text.splitlines()
    }


def test_before_anything_is_fetched(data, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    before = sorted(data.rglob("*"))
    said = told(capsys)
    assert said["known.zip"] == f"missing, {len(WHOLE)} bytes"
    assert said["large.zip"] == "missing, 3.0 GB"
    assert said["about.zip"] == "missing, about 2.0 MB"
    assert said["unknown.zip"] == "missing, unknown size, optional"
    assert said["gated.zip"] == (
        "gated and missing, unknown size; https://example.org/ask: ask nicely; then put the file "
        "gated.zip into data/raw"
    )
    assert said["free"] == "5.0 GB; to fetch: about 3.0 GB, 1 of unknown size, 1 gated by hand"
    assert sorted(data.rglob("*")) == before


@pytest.mark.parametrize(("free", "short"), [(4, ""), (3, ": NOT ENOUGH")])
def test_networks_that_are_not_in_the_cache_are_summed_up(free, short, data, capsys, monkeypatch):
    """Those that ship need nothing; 343 + 343 + 346 + 346 + 375 + 1250 MB of the others."""
    monkeypatch.setattr(hub, "is_cached", lambda one: one.path or one.label == "sam_vit_h")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 10**9))
    said = told(capsys, "--quick")
    assert said["sam_vit_h"].startswith("complete") and said["sam_vit_l"].startswith("missing")
    (line,) = (text for name, text in said.items() if name.startswith("free for networks in "))
    assert line == f"{free}.0 GB; to fetch: about 3.0 GB, 1 gated by hand{short}"


def test_too_little_space_is_said(data, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 10**9))
    assert told(capsys)["free"].endswith(": NOT ENOUGH")


def test_a_data_folder_that_is_not_there_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = told(capsys, "--data", "no/such/folder")
    assert set(said) >= {"val2017.zip", "VOCtrainval_11-May-2012.tar", "ADEChallengeData2016.zip"}
    assert "3 gated by hand" in said["free"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("quick", [False, True], ids=["deep", "quick"])
def test_what_each_state_is_called(quick, data, capsys):
    words = ["--quick"] * quick
    raw = data / "raw"
    (raw / "known.zip").write_bytes(WHOLE)
    (raw / "gated.zip").write_bytes(WHOLE)
    (raw / ".large.zip.part").write_bytes(bytes(1500))
    (raw / ".about.zip.part").write_bytes(bytes(1500))
    size = f"{len(WHOLE)} bytes"
    said = told(capsys, *words)
    assert said["large.zip"] == "partial, 1.5 kB of 3.0 GB"
    assert said["about.zip"] == "partial, 1.5 kB of about 2.0 MB"
    never = f"present but never checked, {size}, "
    if quick:
        assert said["known.zip"] == never + "it has no receipt"
        assert said["gated.zip"] == never + "it has no receipt"
    else:
        assert said["known.zip"] == f"complete, {size}, sha1 agrees"
        assert said["gated.zip"] == never + "its source publishes no checksum"
    for name in ("known.zip", "gated.zip"):
        fetch(read_sources(data).archive(name), data)
    said = told(capsys, *words)
    as_what = {"known.zip": "sha1 agrees", "gated.zip": "the same as the first copy"}
    for name, how in as_what.items():
        assert said[name] == f"complete, {size}, " + ("as its receipt says" if quick else how)


def test_one_changed_byte_is_damage_and_a_quick_look_misses_it(data, capsys):
    (data / "raw/known.zip").write_bytes(WHOLE)
    fetch(read_sources(data).archive("known.zip"), data)
    (data / "raw/known.zip").write_bytes(WHOLE.replace(b"whole", b"whale"))
    assert told(capsys, "--quick")["known.zip"].startswith("complete")
    said, error = refused(capsys)
    assert said["known.zip"].startswith(f"damaged, {len(WHOLE)} bytes, its sha1 is ")
    assert "free" in said  # everything else was looked at
    assert "data/raw/known.zip: its sha1 is" in error
    assert "run `python -m cliptrase.data.fetch.download known.zip --data data`" in error


def test_another_size_shows_at_once_where_only_the_receipt_knows_it(data, capsys):
    (data / "raw/about.zip").write_bytes(WHOLE)
    fetch(read_sources(data).archive("about.zip"), data)
    (data / "raw/about.zip").write_bytes(zipped("another"))
    said = told(capsys, "--quick")["about.zip"]
    assert said.startswith("present but never checked") and "of another file" in said
    assert "that of the first copy was" in refused(capsys)[1]


@pytest.mark.parametrize("quick", [False, True], ids=["deep", "quick"])
@pytest.mark.parametrize("content", [b"<html>log in</html>", WHOLE + b"more", b""], ids=len)
def test_damage_that_shows_at_once(content, quick, data, capsys):
    (data / "raw/known.zip").write_bytes(content)
    said, error = refused(capsys, *["--quick"] * quick)
    assert said["known.zip"].startswith("damaged, ") and "data/raw/known.zip: " in error


def test_a_damaged_file_of_the_users_own_says_how_to_get_it_again(data, capsys):
    (data / "raw/gated.zip").write_bytes(WHOLE[:-5])
    said, error = refused(capsys)
    assert said["gated.zip"].endswith("its end is missing")
    assert "gated.zip: its end is missing; https://example.org/ask: ask nicely" in error


def test_a_folder_in_an_archives_place(data, capsys):
    (data / "raw/known.zip").mkdir()
    assert "a folder of that name stands in the way" in refused(capsys)[1]


def test_a_named_archive_must_be_complete(data, capsys):
    (data / "raw/known.zip").write_bytes(WHOLE)
    assert list(told(capsys, "known.zip")) == ["known.zip"]
    for name, reason in (
        (
            "large.zip",
            "missing; run `python -m cliptrase.data.fetch.download large.zip --data data`",
        ),
        ("gated.zip", "missing; https://example.org/ask: ask nicely; then put the file gated.zip"),
    ):
        said, error = refused(capsys, name, "known.zip")
        assert list(said) == [name, "known.zip"]
        assert f"error: data/raw/{name}: {reason}" in error
    (data / "raw/.large.zip.part").write_bytes(b"PK")
    assert "large.zip: not whole yet; run" in refused(capsys, "large.zip")[1]
    assert "known.zip: never checked; run" in refused(capsys, "known.zip", "--quick")[1]
    (data / "raw/gated.zip").write_bytes(WHOLE)
    error = refused(capsys, "gated.zip")[1]
    assert f"gated.zip: never checked; run `{FETCH} gated.zip" in error


def test_a_named_dataset_must_be_prepared_and_its_archives_are_told(data, capsys):
    said, error = refused(capsys, "toy")
    assert list(said) == ["known.zip", "large.zip", "unknown.zip"]
    assert error.startswith("error: data/prepared/toy: not prepared")
    (data / "raw/known.zip").write_bytes(b"broken")
    error = refused(capsys, "toy")[1]
    assert "data/raw/known.zip: " in error and "data/prepared/toy: not prepared" in error


def test_a_name_that_is_neither(data, capsys):
    error = refused(capsys, "knwn.zip")[1]
    assert "unknown dataset, archive or network 'knwn.zip'; did you mean 'known.zip'?" in error
    assert "shapes" in error and "toy" in error


def test_a_first_copy_that_cannot_be_read_hides_nothing_else(data, capsys):
    (data / "raw/about.zip").write_bytes(WHOLE)
    (data / "raw/about.zip.first.json").write_text("{")
    said, error = refused(capsys)
    assert "about.zip.first.json: cannot be read; delete it" in error
    assert "unknown.zip" in said and "free" in said


def test_help_says_when_it_fails(capsys):
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "exit code 1 where something is damaged (what is only missing is none)" in text


def test_nothing_is_left_of_an_archive_that_was_prepared_and_deleted(data, capsys):
    """Space may be won back: only the receipt stays, and the archive counts as missing."""
    (data / "raw/known.zip").write_bytes(WHOLE)
    fetch(read_sources(data).archive("known.zip"), data)
    (data / "raw/known.zip").unlink()
    assert told(capsys)["known.zip"].startswith("missing")
    shutil.rmtree(data / "raw")
    assert told(capsys)["known.zip"].startswith("missing")
