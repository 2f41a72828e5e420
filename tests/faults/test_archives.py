"""Archives that are damaged, foreign, hostile or not whole, and preparations that are cut short.

Each ends in one message that names the archive or the image, and leaves no prepared dataset.
"""

import contextlib
import errno
import io
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from tests.miniature import edited
from tests.miniature.contents import Contents
from tests.miniature.edited import ARCHIVES, a_png, members, packed, place, put, refused

from cliptrase.data.fetch.download import alone
from cliptrase.data.make import prepare
from cliptrase.data.read import prepared
from cliptrase.data.read.prepared import open_prepared
from cliptrase.errors import UserError

COCO, CITY = edited.ids("coco"), edited.ids("cityscapes")


@pytest.mark.parametrize("dataset", ["coco", "cityscapes"])
def test_swapped_archives(dataset: str, tmp_path: Path) -> None:
    """Each under the other's name."""
    data = place(tmp_path, dataset)
    names = [data / "raw" / ARCHIVES[dataset][role][0] for role in ("images", "labels")]
    contents = [path.read_bytes() for path in names]
    for path, content in zip(names, reversed(contents), strict=True):
        path.write_bytes(content)
    text = refused(data, dataset, "holds no photographs .*is it another archive under this name")
    assert text.startswith(f"{dataset}: {names[0]}: ")
    firsts = "with what is called *.first.json beside it"
    cure = f"delete {names[0]}, {names[1]} {firsts} and run `cliptrase prepare {dataset}"
    assert text.endswith(f"{cure} --data {data}` again")


def test_folders_that_are_swapped_inside_an_archive(tmp_path: Path) -> None:
    def swapped(held: Contents) -> Contents:
        other = {"images": "annotations", "annotations": "images"}
        suffix = {".jpg": ".png", ".png": ".jpg"}
        moved = {}
        for name, content in held.items():
            if name.endswith((".jpg", ".png")):
                root, kind, rest = name.split("/", 2)
                name = f"{root}/{other[kind]}/{rest[:-4]}{suffix[rest[-4:]]}"
            moved[name] = content
        return moved

    data = place(tmp_path, "ade2016", {"images": swapped})
    refused(data, "ade2016", r"ADE_val_00000002\.jpg: a PNG of mode L is no photograph; .*swapped")


@pytest.mark.parametrize("dataset", ARCHIVES)
def test_archives_that_are_cut_off(dataset: str, tmp_path: Path) -> None:
    """At several places, without any checksum that would tell before."""
    for role, (name, _) in ARCHIVES[dataset].items():
        whole = packed(name, members(name))
        if name.endswith(".tar"):
            whole = whole.rstrip(b"\0")
        for part in (0.5, 0.98):
            content = whole[: int(len(whole) * part)]
            data = place(tmp_path / f"{role}{part}", dataset, {role: lambda _, c=content: c})
            text = refused(
                data, dataset, r"truncated or damaged|its end is missing|does not begin as"
            )
            assert f"{data}/raw/{name}" in text and re.search("etch it again|Get it again", text)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>Please log in</html>" * 40])
def test_something_else_in_the_place_of_an_archive(content: bytes, tmp_path: Path) -> None:
    data = place(tmp_path, "cityscapes", {"images": lambda _: content})
    assert "leftImg8bit_trainvaltest.zip" in refused(
        data, "cityscapes", "does not begin as a .zip|an HTML page"
    )


def linked(held: Contents) -> bytes:
    """The tar, its second mask a link to the first."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in held.items():
            entry = tarfile.TarInfo(name)
            if name.endswith("SegmentationClass/2007_000042.png"):
                entry.type, entry.linkname = tarfile.SYMTYPE, "2007_000033.png"
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def bomb(held: Contents) -> bytes:
    """The zip, one of its masks 65 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, bytes(65 * 2**20) if f"{COCO[1]}.png" in name else content)
    return file.getvalue()


def test_a_link_and_a_bomb(tmp_path: Path) -> None:
    data = place(tmp_path / "voc", "voc2012", {"images": linked})
    refused(data, "voc2012", r"2007_000042\.png: a link or another thing")
    data = place(tmp_path / "coco", "coco", {"labels": bomb})
    refused(data, "coco", rf"{COCO[1]}\.png: .*more than any picture has")


def test_a_picture_that_is_a_bomb(tmp_path: Path) -> None:
    """A hundred bytes of PNG that say 20,000 x 20,000 pixels are not decoded."""
    small = a_png(np.zeros((1, 1), np.uint8))
    head = b"IHDR" + struct.pack(">II", 20_000, 20_000) + small[24:29]
    content = small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]
    data = place(tmp_path, "coco", {"labels": put(f"val2017/{COCO[1]}.png", content)})
    refused(data, "coco", rf"{COCO[1]}\.png: too large to be decoded")


KILLED = """
import os, signal, sys
from cliptrase.data.make import prepare
from cliptrase.data.read import prepared
dataset, data, when = sys.argv[1], sys.argv[2], int(sys.argv[3])
replace = os.replace
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if when < 3:  # after so many records
    def cut(records):
        for number, record in enumerate(records):
            die() if number == when else None
            yield record
    write = prepared.write_arrow
    prepared.write_arrow = lambda path, records: write(path, cut(records))
elif when == 3:
    prepared.self_check = die
else:  # whole, but not in its place
    os.replace = lambda old, new: replace(old, new) if os.path.isfile(old) else die()
prepare.prepare(dataset, data)
"""


@pytest.mark.parametrize(("dataset", "when"), [("pcontext", 2), ("ade2021", 4)])
def test_killed_with_9_the_rerun_gives_the_same_bytes(
    dataset: str, when: int, tmp_path: Path
) -> None:
    whole = prepare.prepare(dataset, place(tmp_path / "whole", dataset))
    data = place(tmp_path / "killed", dataset)
    command = [sys.executable, "-c", KILLED, dataset, str(data), str(when)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="not prepared; run `cliptrase prepare"):
        open_prepared(dataset, data)
    again = prepare.prepare(dataset, data)
    for name in ("samples.arrow", "selfcheck.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert not list((data / "prepared").glob(f".{dataset}.[0-9]*")), "what was left is cleared away"


@pytest.mark.parametrize("place_of_fault", ["arrow", "unpacked"])
def test_no_space_left(
    place_of_fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place(tmp_path, "pcontext")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if place_of_fault == "arrow":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr("cliptrase.data.make.containers.tempfile.TemporaryFile", full)
    with pytest.raises(UserError, match="no space left on the disk; free some"):
        prepare.prepare("pcontext", data)
    monkeypatch.undo()
    assert len(prepared.PreparedSamples(prepare.prepare("pcontext", data))) == edited.SCENES


def test_what_is_set_aside_lies_on_the_disk_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar.gz is unpacked beside the archive: /tmp may be small."""
    data = place(tmp_path, "pcontext")
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    assert len(prepared.PreparedSamples(prepare.prepare("pcontext", data))) == edited.SCENES
    left = sorted(path.name for path in (data / "prepared").iterdir())
    assert left == [".pcontext.lock", "pcontext"]


def preparing_cityscapes(data: Path) -> list[str]:
    """The command that prepares it in a process of its own."""
    module = "cliptrase.data.make.prepare"
    return [sys.executable, "-m", module, "cityscapes", "--data", str(data)]


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    data = place(tmp_path, "cityscapes")
    command = preparing_cityscapes(data)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [f"{data}/prepared/cityscapes: 3 samples\n"] * 2
    assert [sample.id for sample in open_prepared("cityscapes", data)] == CITY


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of another kind would outlast a process that is killed."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(UserError, match=r"\.a\.lock: cannot be written .Function not implemented"),
        alone(tmp_path / ".a.lock", "a"),
    ):
        pytest.fail("there is no lock")


def test_what_a_download_says_of_its_progress_is_said_while_preparing(tmp_path: Path) -> None:
    """For a log, a line a minute; here, that each has to wait: for the archive, for its turn."""
    data = place(tmp_path, "cityscapes")
    name = ARCHIVES["cityscapes"]["images"][0]
    (data / "prepared").mkdir()
    locks = {"cityscapes": data / "prepared/.cityscapes.lock", name: data / f"raw/.{name}.lock"}
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        for stack, (of, path) in zip((first, second), locks.items(), strict=True):
            stack.enter_context(alone(path, of))
        process = subprocess.Popen(preparing_cityscapes(data), stderr=subprocess.PIPE, text=True)
        for stack, of in ((first, "cityscapes"), (second, name)):
            assert process.stderr is not None
            assert process.stderr.readline() == f"{of}: another process is at it; waiting\n"
            stack.close()
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
