"""What the tests of downloads share: an archive of 300 kB, and what must be true of a fetch."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from pathlib import Path

import pytest
from tests.miniature.server import Server

from cliptrase.data.fetch.download import Policy, fetch
from cliptrase.data.fetch.sources import Archive
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


def archive(*urls: str, known: bool = True, name: str = "a.zip") -> Archive:
    """An archive with these addresses; `known`: its size and checksum were published."""
    checksum = ("sha256", hashlib.sha256(WHOLE).hexdigest()) if known else None
    return Archive(
        name=name,
        role="images",
        urls=urls,
        bytes=SIZE if known else None,
        checksum=checksum,
        licence="none",
        gated=None,
    )


def changed(one: Archive, **fields: object) -> Archive:
    """The archive with other values of some fields."""
    return one.model_copy(update=fields)


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
