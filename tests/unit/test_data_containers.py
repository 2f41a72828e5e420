"""Archives as containers: every member by its name, to the byte, and what no reader may trust."""

import gzip
import io
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cliptrase.data.fetch import receipts
from cliptrase.data.fetch.sources import Archive
from cliptrase.data.make import containers
from cliptrase.data.make.containers import open_container
from cliptrase.errors import UserError

HELD = {
    "b/second.jpg": bytes(range(256)) * 40,
    "a/first.png": b"first",
    "a/empty.txt": b"",
    "ünï/third.mat": b"third" * 1000,
}


def a_zip(held: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.mkdir("a")
        for name, content in held.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def a_tar(held: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in held.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def a_tar_gz(held: dict[str, bytes]) -> bytes:
    return gzip.compress(a_tar(held), mtime=0)


def a_v7_tar(held: dict[str, bytes]) -> bytes:
    """The oldest form: a header ends after 257 bytes, and names no format."""
    content = bytearray(a_tar(held))
    with tarfile.open(fileobj=io.BytesIO(bytes(content))) as archive:
        for member in archive:
            head = content[member.offset :][:257].ljust(512, b"\0")
            head[148:156] = b" " * 8
            head[148:156] = b"%06o\0 " % sum(head)
            content[member.offset : member.offset + 512] = head
    assert b"ustar" not in content
    return bytes(content)


KINDS = {
    "deflated.zip": a_zip,
    "stored.zip": lambda held: a_zip(held, zipfile.ZIP_STORED),
    "gnu.tar": a_tar,
    "pax.tar": lambda held: a_tar(held, tarfile.PAX_FORMAT),
    "v7.tar": a_v7_tar,
    "plain.tar.gz": a_tar_gz,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def written(folder: Path, kind: str, held: dict[str, bytes]) -> Path:
    path = folder / kind
    path.write_bytes(KINDS[kind](held))
    return path


def everything(path: Path) -> dict[str, bytes]:
    with open_container(path) as container:
        return {name: container.read(name) for name in container.names()}


@every_kind
def test_what_a_check_of_the_archive_takes_is_what_can_be_opened(kind: str, tmp_path: Path) -> None:
    fields = {"role": "r", "urls": (), "bytes": None, "checksum": None, "licence": "l"}
    one = Archive(name=kind, gated=None, **fields)  # type: ignore[arg-type]
    content = KINDS[kind](HELD)
    receipts.check_head(content[:512], one)
    for broken in (b"\0" * 512, b"PK\1\2" + content[4:512], content[7:519], b"x" + content[1:512]):
        with pytest.raises(receipts.Damaged):
            receipts.check_head(broken, one)
        (tmp_path / kind).write_bytes(broken)
        with pytest.raises(UserError, match="not a zip, tar or tar"):
            open_container(tmp_path / kind)


@every_kind
def test_members_in_the_order_of_the_archive(kind: str, tmp_path: Path) -> None:
    with open_container(written(tmp_path, kind, HELD)) as container:
        assert container.names() == list(HELD)
        assert {name: container.read(name) for name in reversed(HELD)} == HELD
    assert [path.name for path in tmp_path.iterdir()] == [kind], "nothing is extracted"


@every_kind
@pytest.mark.parametrize(
    "name", ["../out.jpg", "/out.jpg", "a/../../out.jpg", "a\\..\\..\\out.jpg"]
)
def test_a_name_that_leads_out_of_the_folder(kind: str, name: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, HELD | {name: b"out"})
    with pytest.raises(UserError, match=r"out of the folder; .*delete .* fetch it again") as error:
        everything(path)
    assert str(error.value).startswith(f"{path}: ")


@every_kind
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_doubled_name(kind: str, tmp_path: Path) -> None:
    class Twice(dict):  # type: ignore[type-arg]
        def items(self):  # type: ignore[no-untyped-def]
            return [*super().items(), ("a/first.png", b"another")]

    path = written(tmp_path, kind, Twice(HELD))
    with pytest.raises(UserError, match=r"a/first\.png: is in it twice"):
        everything(path)


@every_kind
def test_truncated_at_every_twentieth(kind: str, tmp_path: Path) -> None:
    """What is cut off says so; nothing it gives before that is other than it was."""
    whole = KINDS[kind](HELD)
    if kind.endswith(".tar"):  # it is filled up with zeros, of which only the first block counts
        whole = whole[: (len(whole.rstrip(b"\0")) + 511 & ~511) + 512]
    path = tmp_path / kind
    for part in range(20):
        path.write_bytes(whole[: len(whole) * part // 20])
        with pytest.raises(UserError, match=r"delete .* and fetch it again") as error:
            everything(path)
        assert str(error.value).startswith(f"{path}: ")
    if kind.endswith(".tar"):  # cut where a member ends, nothing is amiss but the end itself
        path.write_bytes(whole[:-512])
        with pytest.raises(UserError, match="does not end as a tar does"):
            everything(path)


@pytest.mark.parametrize("kind", ["deflated.zip", "stored.zip", "plain.tar.gz"])
def test_a_flipped_bit_is_noticed_wherever_there_is_a_checksum(kind: str, tmp_path: Path) -> None:
    whole = bytearray(KINDS[kind]({"one": HELD["b/second.jpg"]}))
    whole[whole.find(b"one", 10) + 12 if kind != "plain.tar.gz" else len(whole) // 2] ^= 4
    path = tmp_path / kind
    path.write_bytes(whole)
    with pytest.raises(UserError, match="truncated or damaged"):
        everything(path)


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>", b"\x89PNG\r\n\x1a\n" + bytes(600), b"Rar!\x1a\x07"]
)
def test_something_else_than_an_archive(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "val2017.zip"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not a zip, tar or tar\.gz archive") as error:
        open_container(path)
    assert ("a web page" in str(error.value)) == (b"html" in content)
    with pytest.raises(UserError, match=r"absent\.zip: cannot be read"):
        open_container(tmp_path / "absent.zip")


def linked_tar(kind: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("a/mask.png")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    return file.getvalue()


def linked_zip(kind: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        entry = zipfile.ZipInfo("a/mask.png")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        *map(linked_tar, (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)),
        gzip.compress(linked_tar(tarfile.SYMTYPE)),
        linked_zip(stat.S_IFLNK),
        linked_zip(stat.S_IFIFO),
    ],
)
def test_a_link_where_a_file_is_wanted(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(content)
    with open_container(path) as container:
        assert container.names() == ["a/mask.png"]  # it may be there; it is not followed
    with pytest.raises(UserError, match=r"archive: a/mask\.png: a link"):
        everything(path)


def huge_tar(folder: Path) -> Path:
    path = folder / "huge.tar"
    with open(path, "wb") as file:
        entry = tarfile.TarInfo("a.png")
        entry.size = containers.LARGEST + 1
        file.write(entry.tobuf())
        file.truncate(512 + entry.size // 512 * 512 + 512 + 1024)
    return path


def bomb_zip(folder: Path) -> Path:
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(containers.LARGEST + 1))
    return path


def lying_zip(folder: Path) -> Path:
    """Its listing says that the member has 100 bytes, and it has a million."""
    path = folder / "lying.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    content = path.read_bytes()
    path.write_bytes(content.replace((10**6).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    return path


def secret_zip(folder: Path) -> Path:
    path = folder / "secret.zip"
    content = bytearray(a_zip({"a.png": b"content"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.rfind(mark) + offset] |= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (huge_tar, "more than any picture has"),
        (bomb_zip, "more than any picture has"),
        (lying_zip, "truncated or damaged"),
        (secret_zip, "is encrypted"),
    ],
)
def test_bombs_and_secrets(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"a\.png: .*({message})"):
        everything(make(tmp_path))


def test_a_gzip_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_GZIP_FREE", 2**20)
    path = written(tmp_path, "plain.tar.gz", {"a.txt": bytes(4 * 2**20)})
    with pytest.raises(UserError, match=r"unpacks to more than [0-9]+ bytes, a bomb; .*delete"):
        everything(path)


def test_memory_is_that_of_one_member(tmp_path: Path) -> None:
    """300 MB of members in a process of its own, which grows by a few of them."""

    def held() -> Iterator[tuple[str, bytes]]:
        for number in range(150):
            yield f"{number:03d}.jpg", bytes([number]) * 2_000_000

    with tarfile.open(tmp_path / "big.tar", "w") as tar:
        for name, content in held():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    code = (
        "import resource, sys\n"
        "from cliptrase.data.make.containers import open_container\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "with open_container(sys.argv[1]) as container:\n"
        "    total = sum(len(container.read(name)) for name in container.names())\n"
        "assert total == 300_000_000 and peak() - before < 30, (total, before, peak())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "big.tar")], check=True)
