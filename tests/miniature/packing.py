"""Archives with the same bytes on every run: fixed times, owners, order and compression.

Members are stored in a shuffled order: a real archive's order means nothing, and no reader may
lean on it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath

WHEN = (2012, 5, 11, 12, 0, 0)
SECONDS = 1336737600  # the same moment, since 1970

Members = Mapping[str, bytes]


def zipped(members: Members, stored: bool = False) -> bytes:
    """A zip; `stored`: without compression, as pictures are usually packed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in _ordered(members):
            entry = zipfile.ZipInfo(name, WHEN)
            entry.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, members.get(name, b""))
    return file.getvalue()


def tarred(members: Members, compressed: bool = False) -> bytes:
    """A tar, or a tar.gz."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in _ordered(members):
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mtime, entry.uname, entry.gname = SECONDS, "robots", "robots"
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            content = members.get(name, b"")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0) if compressed else file.getvalue()


def _ordered(members: Members) -> list[str]:
    """Folders first, then the files in an order of their own."""
    folders = {f"{folder}/" for name in members for folder in PurePosixPath(name).parents}
    files = sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest())
    return sorted(folders - {"./"}) + files
