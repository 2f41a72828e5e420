"""Whether an archive is what it should be, and what is written down about it.

`<data>/raw/<name>.json`, the receipt: what the archive was when it was last checked, the same bytes
for the same file. `<name>.first.json`: the sha256 of the first copy of an archive that nobody
published a checksum of; later copies must agree with it. Until a dataset was prepared from that
copy it is on trial: where preparing fails, it is forgotten, and another one may be the first.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliptrase.data.fetch.sources import Archive, raw_path, receipt_path
from cliptrase.data.make.containers import format_of
from cliptrase.errors import UserError
from cliptrase.files import read_json, write_json

HEAD = 512  # bytes that tell what kind of file this is
_CHUNK = 1 << 20


class Damaged(Exception):
    """A file that is not the archive: its text says why."""


class OtherChecksum(Damaged):
    """A whole file that has another checksum than the published one: `digits` instead of it."""

    def __init__(self, kind: str, digits: str, published: str) -> None:
        super().__init__(f"its {kind} is {digits} instead of {published}")
        self.digits = digits


@dataclass(frozen=True)
class Checked:
    """What a file is: its size, its sha256, and the kind of checksum that it agreed with."""

    bytes: int
    sha256: str
    verified: str | None


@dataclass(frozen=True)
class State:
    """What there is of an archive.

    status: "complete"; "unverified": there, but never checked; "damaged"; "partial": its download
    was broken off; "missing". message: a reason, or how it was checked.
    """

    archive: Archive
    status: str
    bytes_there: int
    message: str


def state(archive: Archive, data: Path | str = "data", *, deep: bool) -> State:
    """What there is of an archive below a data folder; nothing is changed.

    deep: read the whole file, else its size and its receipt are believed.
    """
    path = raw_path(archive, data)
    if not path.is_file():
        if path.exists():
            return State(archive, "damaged", 0, "a folder of that name stands in the way")
        part = part_path(archive, data)
        size = part.stat().st_size if part.is_file() else 0
        return State(archive, "partial" if size else "missing", size, "")
    size = path.stat().st_size
    try:
        status, message = _deep(path, archive, data) if deep else _quick(path, archive, data)
    except (Damaged, UserError) as fault:
        status, message = "damaged", str(fault)
    except OSError as error:
        status, message = "damaged", f"cannot be read ({error.strerror})"
    return State(archive, status, size, message)


def check(path: Path, archive: Archive, data: Path | str) -> Checked:
    """Hold a file against everything that is known about an archive.

    That is its size, its kind, its checksum or, where there is none, the first copy's; where there
    is no first copy either, that its end is there. Raises Damaged.
    """
    check_kind(path, archive)
    size = path.stat().st_size
    kind, digits = archive.checksum or ("sha256", None)
    found = _digests(path, {"sha256", kind})
    if digits is not None:
        if found[kind] != digits:
            raise OtherChecksum(kind, found[kind], digits)
        return Checked(size, found["sha256"], kind)
    first = read_first(archive, data)
    if first is None:
        _check_end(path, archive.name)
    elif first != found["sha256"]:
        raise Damaged(
            f"its sha256 is {found['sha256']}, and that of the first copy was {first} (if the "
            f"source has really changed, delete {first_path(archive, data)})"
        )
    return Checked(size, found["sha256"], None)


def check_kind(path: Path, archive: Archive) -> None:
    """Size and first bytes, without reading the rest. Raises Damaged."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        check_head(file.read(HEAD), archive)
    if archive.bytes is not None and size != archive.bytes:
        raise Damaged(f"{size:,} bytes instead of {archive.bytes:,}")


def check_head(head: bytes, archive: Archive) -> None:
    """Whether the first 512 bytes are those of the archive's format. Raises Damaged."""
    name = archive.name
    wanted = "zip" if name.endswith(".zip") else "gz" if name.endswith("gz") else "tar"
    if format_of(head) == wanted:
        return
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise Damaged("an HTML page instead of the archive")
    raise Damaged(f"it does not begin as a {Path(name).suffix} file does")


def write_receipt(archive: Archive, data: Path | str, checked: Checked, url: str | None) -> None:
    """Write down a checked archive; a receipt that says the same already stays as it is.

    url: where it came from, None for a file that was there: what an older receipt says of the same
    file is then kept.
    """
    first = first_path(archive, data)
    if archive.checksum is None and not first.exists():
        write_json(first, {"name": archive.name, "bytes": checked.bytes, "sha256": checked.sha256})
    before = read_receipt(archive, data) or {}
    if url is None and before.get("sha256") == checked.sha256:
        url = before.get("url")
    receipt = {
        "name": archive.name,
        "bytes": checked.bytes,
        "sha256": checked.sha256,
        "checksum_verified": checked.verified,
        "checksum": archive.checksum[1] if archive.checksum else None,
        "url": url,
    }
    if before != receipt:
        write_json(receipt_path(archive, data), receipt)


def read_receipt(archive: Archive, data: Path | str) -> dict[str, Any] | None:
    """The receipt of an archive, None where there is none that can be read."""
    return read_json(receipt_path(archive, data))


def has_receipt(archive: Archive, data: Path | str) -> bool:
    """Whether there is a receipt of the file that lies there, checked as it would be now."""
    receipt, path = read_receipt(archive, data), raw_path(archive, data)
    if receipt is None or not path.is_file() or receipt.get("bytes") != path.stat().st_size:
        return False
    kind, digits = archive.checksum or (None, None)
    if digits is None and read_first(archive, data) not in (None, receipt.get("sha256")):
        return False
    return receipt.get("checksum_verified") == kind and receipt.get("checksum") == digits


def first_path(archive: Archive, data: Path | str) -> Path:
    """Where the first copy's sha256 is kept."""
    return raw_path(archive, data).with_name(f"{archive.name}.first.json")


def read_first(archive: Archive, data: Path | str) -> str | None:
    """The sha256 of the first copy, None where there was none yet.

    Raises UserError for a file that cannot be read.
    """
    path = first_path(archive, data)
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read; delete it, and the next copy counts as first"
        ) from error


def confirm_first(archive: Archive, data: Path | str) -> None:
    """The first copy is the archive: a dataset was prepared from it."""
    first = read_json(first_path(archive, data))
    if archive.checksum is None and first and not first.get("prepared"):
        write_json(first_path(archive, data), first | {"prepared": True})


def forget_first(archive: Archive, data: Path | str) -> None:
    """The first copy may be no such archive: no dataset could be prepared from it."""
    if not (read_json(first_path(archive, data)) or {}).get("prepared"):
        first_path(archive, data).unlink(missing_ok=True)


def part_path(archive: Archive, data: Path | str) -> Path:
    """Where a download grows."""
    return raw_path(archive, data).with_name(f".{archive.name}.part")


def _deep(path: Path, archive: Archive, data: Path | str) -> tuple[str, str]:
    checked = check(path, archive, data)
    if checked.verified:
        return "complete", f"{checked.verified} agrees"
    if read_first(archive, data):
        return "complete", "the same as the first copy"
    return "unverified", "its source publishes no checksum"


def _quick(path: Path, archive: Archive, data: Path | str) -> tuple[str, str]:
    check_kind(path, archive)
    if has_receipt(archive, data):
        return "complete", "as its receipt says"
    other = read_receipt(archive, data) is not None
    return "unverified", "its receipt is of another file" if other else "it has no receipt"


def _digests(path: Path, kinds: set[str]) -> dict[str, str]:
    found = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            for one in found.values():
                one.update(chunk)
    return {kind: one.hexdigest() for kind, one in found.items()}


def _check_end(path: Path, name: str) -> None:
    """Whether the end of an archive is there, where no checksum would tell. Raises Damaged."""
    if name.endswith(".zip"):
        whole = zipfile.is_zipfile(path)
    elif name.endswith("gz"):
        whole = _gzip_is_whole(path)
    else:
        with open(path, "rb") as file:
            file.seek(-min(path.stat().st_size, 2 * HEAD), 2)
            whole = file.read() == bytes(2 * HEAD)  # two empty blocks close a tar
    if not whole:
        raise Damaged("its end is missing")


def _gzip_is_whole(path: Path) -> bool:
    try:
        with gzip.open(path) as file:
            while file.read(_CHUNK):
                pass
    except (EOFError, OSError, zlib.error):
        return False
    return True
