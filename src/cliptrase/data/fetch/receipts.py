"""Whether an archive is what it should be, and the receipts of what was checked.

`<data>/raw/<name>.json`, the receipt: what the archive was when it was last checked, the same bytes
for the same file. `<name>.first.json`: the sha256 of the first copy of an archive that nobody
published a checksum of; later copies must agree with it.
"""

import gzip
import hashlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, cast

from cliptrase.data.fetch.sources import Archive, raw_path, readable, receipt_path, sources_path
from cliptrase.errors import UserError
from cliptrase.files import read_json, write_json

HEAD = 512  # bytes that tell what kind of file this is
_CHUNK = 1 << 20


class Damaged(Exception):
    """A file that is not the archive: its text says why."""


class Receipt(TypedDict, total=False):
    """What an archive was when it was checked.

    checksum, checksum_verified: the published digits and their kind, which the file agrees with,
    None where none are published. url: where it came from, None for a file that was there.
    """

    name: str
    bytes: int
    sha256: str
    checksum: str | None
    checksum_verified: str | None
    url: str | None


@dataclass(frozen=True)
class State:
    """What there is of an archive.

    status: "unverified" is there, but was never checked; "partial": its download was broken off.
    message: a reason, or how it was checked.
    """

    archive: Archive
    status: Literal["complete", "unverified", "damaged", "partial", "missing"]
    bytes_there: int
    message: str = ""


def state(archive: Archive, data: Path | str = "data", *, deep: bool) -> State:
    """What there is of an archive below a data folder; nothing is changed.

    deep: read the whole file, else its size and its receipt are believed.
    """
    path = raw_path(archive, data)
    if path.is_dir():
        return State(archive, "damaged", 0, "a folder of that name stands in the way")
    if not path.is_file():
        size = size_of_part(part_path(archive, data))
        return State(archive, "partial" if size else "missing", size)
    size = path.stat().st_size
    try:
        if not deep:
            check_kind(path, archive)
            if has_receipt(archive, data):
                return State(archive, "complete", size, "as its receipt says")
            other = read_receipt(archive, data) is not None
            reason = "its receipt is of another file" if other else "it has no receipt"
            return State(archive, "unverified", size, reason)
        kind = check(path, archive, data)["checksum_verified"]
        if kind:
            return State(archive, "complete", size, f"{kind} agrees")
        if read_first(archive, data):
            return State(archive, "complete", size, "the same as the first copy")
        return State(archive, "unverified", size, "its source publishes no checksum")
    except (Damaged, UserError) as fault:
        return State(archive, "damaged", size, str(fault))
    except OSError as error:
        return State(archive, "damaged", size, f"cannot be read ({error.strerror})")


def to_fetch(states: Sequence[State]) -> tuple[int, str]:
    """The bytes that archives still lack, as far as they are known, and the same in words.

    `3.0 GB`, `about 3.0 GB, 1 of unknown size`; "" for no archive.
    """
    sized = [state for state in states if state.archive.size]
    lacking = sum(max(0, (state.archive.size or 0) - state.bytes_there) for state in sized)
    words = []
    if sized:
        exact = all(state.archive.bytes for state in states)
        words.append(("" if exact else "about ") + readable(lacking))
    if len(states) > len(sized):
        words.append(f"{len(states) - len(sized)} of unknown size")
    return lacking, ", ".join(words)


def free_space(folder: Path | str) -> int:
    """The bytes that are free on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path | str) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = Path(folder).absolute()
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def check(path: Path, archive: Archive, data: Path | str) -> Receipt:
    """Compare a file with everything that is known about an archive; its receipt without the url.

    That is its size, its kind, and its checksum or, where none is published, the first copy's;
    where there is no first copy either, that its end is there. Raises Damaged.
    """
    check_kind(path, archive)
    kind, published = archive.checksum or (None, None)
    sha256, digest = _digests(path, "sha256", kind or "sha256")
    if kind is not None:
        if digest != published:
            raise Damaged(
                f"its {kind} is {digest} instead of {published} (if that is what its owner "
                f"gives, correct `checksum:` of {archive.name} in {sources_path(data)})"
            )
    else:
        first = read_first(archive, data)
        if first is None:
            _check_end(path, archive.name)
        elif first != sha256:
            raise Damaged(
                f"its sha256 is {sha256}, and that of the first copy was {first} (if "
                f"the source has really changed, delete {first_path(archive, data)})"
            )
    return {
        "name": archive.name,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "checksum_verified": kind,
        "checksum": published,
        "url": None,
    }


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


def format_of(head: bytes) -> str | None:
    """ "zip", "gz" or "tar" of a file's first 512 bytes, None for anything else.

    A tar is recognized by the checksum in its first header: the oldest form names no format.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return "tar"


def write_receipt(archive: Archive, data: Path | str, receipt: Receipt) -> None:
    """Write the receipt of a checked archive; one that says the same already stays as it is.

    The url of an older receipt of the same file is kept where the new one has none.
    """
    first = first_path(archive, data)
    if archive.checksum is None and not first.exists():
        content = {"name": archive.name, "bytes": receipt["bytes"], "sha256": receipt["sha256"]}
        write_json(first, content)
    before = read_receipt(archive, data) or {}
    if receipt["url"] is None and before.get("sha256") == receipt["sha256"]:
        receipt = {**receipt, "url": before.get("url")}
    if before != receipt:
        write_json(receipt_path(archive, data), {**receipt})


def read_receipt(archive: Archive, data: Path | str) -> Receipt | None:
    """The receipt of an archive, None where there is none that can be read."""
    return cast("Receipt | None", read_json(receipt_path(archive, data)))


def has_receipt(archive: Archive, data: Path | str) -> bool:
    """Whether the archive has a receipt of just this file, by the checksum published today."""
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
    """The sha256 of the first copy, None where there was none. Raises UserError: unreadable."""
    path = first_path(archive, data)
    digest = (read_json(path) or {}).get("sha256")
    if digest is None and path.exists():
        raise UserError(f"{path}: cannot be read; delete it, and the next copy counts as first")
    return digest


def size_of_part(part: Path) -> int:
    """The bytes that a download has so far."""
    return part.stat().st_size if part.is_file() else 0


def part_path(archive: Archive, data: Path | str) -> Path:
    """The file that a download grows in."""
    return raw_path(archive, data).with_name(f".{archive.name}.part")


def _digests(path: Path, *kinds: str) -> list[str]:
    """The checksums of a file, which is read once."""
    sums = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            for each in sums.values():
                each.update(chunk)
    return [sums[kind].hexdigest() for kind in kinds]


def _check_end(path: Path, name: str) -> None:
    """Raise Damaged where the end of an archive is missing, which no checksum would tell."""
    if name.endswith(".zip"):
        whole = zipfile.is_zipfile(path)
    elif name.endswith("gz"):
        try:
            with gzip.open(path) as file:
                while file.read(_CHUNK):
                    pass
            whole = True
        except (EOFError, OSError, zlib.error):
            whole = False
    else:
        with open(path, "rb") as tar:
            tar.seek(-min(path.stat().st_size, 2 * HEAD), 2)
            whole = tar.read() == bytes(2 * HEAD)  # two empty blocks close a tar
    if not whole:
        raise Damaged("its end is missing")
