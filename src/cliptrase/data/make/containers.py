"""Archives as they were fetched, zip, tar or tar.gz: their members by name, never extracted.

Nothing of an archive reaches the disk, and of its members only one at a time is in memory. What no
archive of pictures holds is refused: names that lead out of the folder, links, bombs, doubles.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from cliptrase.errors import UserError

LARGEST = 64 * 2**20  # bytes of a member: several times the largest picture of any source
RATIO = 100  # a picture is compressed already; deflate makes at most 1032 bytes of one
_SMALL = 2**20  # below this many bytes a member may be compressed as well as it likes
_GZIP_RATIO, _GZIP_FREE = 300, 2**30  # of a whole tar.gz, beyond its first GiB
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    OSError,
    zlib.error,
    struct.error,
    UnicodeError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_BLOCK = 512


class Container(ABC):
    """An open archive. Every error is a UserError that names the archive, the member, the cure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def names(self) -> list[str]:
        """The names of its files, folders left out, in the order in which they lie in it."""

    @abstractmethod
    def keep(self, names: Collection[str]) -> None:
        """Forget the other members, of which a large archive has a million."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a member."""

    def iterate(self, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The wanted members that are there, each once, in the archive's order."""
        wanted = frozenset(wanted)
        for name in self.names():
            if name in wanted:
                yield name, self.read(name)

    def _refuse(self, member: str, fault: str) -> UserError:
        return UserError(f"{self.path}: {member}: {fault}; {self._cure()}")

    def _cure(self) -> str:
        return f"this is not the archive of its source: delete {self.path} and fetch it again"

    def _checked(self, name: str, seen: Collection[str]) -> str:
        """A member's name, once it is sure that it stays inside and is the only one."""
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise self._refuse(repr(name), "a name that leads out of the folder")
        name = name.removeprefix("./")
        if name in seen:
            raise self._refuse(name, "is in it twice")
        return name

    def _check_size(self, name: str, size: int, limit: int = LARGEST) -> None:
        if size > limit:
            raise self._refuse(name, f"{size} bytes, more than any picture has")

    @contextlib.contextmanager
    def _reading(self, member: str = "") -> Iterator[None]:
        """Turn what goes wrong with a container into one message about it."""
        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file") from None
        except PermissionError:
            raise UserError(f"{self.path}: may not be read; check its permissions") from None
        except _DAMAGE as error:
            where = f"{self.path}: {member}" if member else f"{self.path}"
            raise UserError(
                f"{where}: truncated or damaged ({error}); delete {self.path} and fetch it again"
            ) from error


def format_of(head: bytes) -> str | None:
    """ "zip", "gz" or "tar" of a file's first 512 bytes, None for anything else.

    A tar is told by the sum that its first header holds: the oldest form names no format.
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


def open_container(path: Path | str) -> Container:
    """Open a zip, tar or tar.gz, told apart by content. Raises UserError for everything else."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(_BLOCK)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    found = format_of(head)
    if found == "gz":
        return _GzippedTar(path)
    if found == "tar":
        return _Tar(path)
    if found == "zip":
        return _Zip(path)
    page = " (it is a web page)" if b"<html" in head.lower() or b"<!doc" in head.lower() else ""
    raise UserError(
        f"{path}: not a zip, tar or tar.gz archive{page}; delete {path} and fetch it again"
    )


class _Zip(Container):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        with self._reading():
            self._zip = self._stack.enter_context(zipfile.ZipFile(path))
        for info in self._zip.infolist():
            if not info.is_dir():
                self._members[self._checked(info.filename, self._members)] = info

    def names(self) -> list[str]:
        return list(self._members)

    def keep(self, names: Collection[str]) -> None:
        self._members = {name: self._members[name] for name in names}
        self._zip.filelist.clear()
        self._zip.NameToInfo.clear()

    def read(self, name: str) -> bytes:
        info = self._members[name]
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise self._refuse(name, "a link or another thing that is no file")
        if info.flag_bits & 0x1:
            raise self._refuse(name, "is encrypted")
        self._check_size(name, info.file_size)
        if info.file_size > max(_SMALL, RATIO * info.compress_size):
            raise self._refuse(name, f"more than {RATIO} times as large as compressed, a bomb")
        with self._reading(name), self._zip.open(info) as file:
            content = file.read(info.file_size + 1)
        if len(content) != info.file_size:
            raise self._refuse(name, f"{len(content)} bytes instead of {info.file_size}")
        return content


class _Place(NamedTuple):
    offset: int
    size: int
    plain: bool


class _Tar(Container):
    """A tar without compression: an index of its members is made once, by their headers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: dict[str, _Place] = {}
        with self._reading():
            self._file = self._stack.enter_context(path.open("rb"))
            tar = self._stack.enter_context(tarfile.TarFile(fileobj=self._file))
            self._index(tar)
            if os.pread(self._file.fileno(), _BLOCK, tar.offset) != bytes(_BLOCK):
                raise EOFError("it does not end as a tar does")

    def _index(self, tar: tarfile.TarFile) -> None:
        for info in tar:
            vars(tar)["members"].clear()  # what is listed below need not be kept twice
            if not info.isdir():
                name = self._checked(info.name, self._members)
                place = _Place(info.offset_data, info.size, info.type in _PLAIN)
                self._members[name] = place

    def names(self) -> list[str]:
        return list(self._members)

    def keep(self, names: Collection[str]) -> None:
        self._members = {name: self._members[name] for name in names}

    def read(self, name: str) -> bytes:
        place = self._members[name]
        if not place.plain:
            raise self._refuse(name, "a link or another thing that is no file")
        self._check_size(name, place.size)
        with self._reading(name):
            content = os.pread(self._file.fileno(), place.size, place.offset)
            if len(content) != place.size:
                raise EOFError(f"{len(content)} of {place.size} bytes")
        return content


class _GzippedTar(Container):
    """A tar.gz can only be read from its beginning: each call goes through it once, to its end."""

    def names(self) -> list[str]:
        return [name for name, _ in self._stream(frozenset())]

    def keep(self, names: Collection[str]) -> None:
        pass  # no list of them is kept

    def read(self, name: str) -> bytes:
        return dict(self.iterate([name]))[name]

    def iterate(self, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for name, content in self._stream(frozenset(wanted)):
            if content is not None:
                yield name, content

    def _stream(self, wanted: frozenset[str]) -> Iterator[tuple[str, bytes | None]]:
        seen: set[str] = set()
        with contextlib.ExitStack() as stack:
            with self._reading():
                unpacked = _Unpacked(self, stack.enter_context(gzip.open(self.path)))
                tar = stack.enter_context(tarfile.open(fileobj=unpacked, mode="r|"))  # type: ignore[call-overload]
            while True:
                with self._reading():
                    info = tar.next()
                    vars(tar)["members"].clear()
                if info is None:
                    break
                if info.isdir():
                    continue
                name = self._checked(info.name, seen)
                seen.add(name)
                yield name, self._content(tar, info, name) if name in wanted else None
            with self._reading():
                while unpacked.read(_SMALL):  # to its end, where gzip keeps a checksum
                    pass

    def _content(self, tar: tarfile.TarFile, info: tarfile.TarInfo, name: str) -> bytes:
        if info.type not in _PLAIN:
            raise self._refuse(name, "a link or another thing that is no file")
        self._check_size(name, info.size)
        with self._reading(name):
            file = tar.extractfile(info)
            content = b"" if file is None else file.read()
            if len(content) != info.size:
                raise EOFError(f"{len(content)} of {info.size} bytes")
        return content


class _Unpacked:
    """A gzip's content, which may not be out of all proportion to the file."""

    def __init__(self, container: Container, file: gzip.GzipFile) -> None:
        self._container, self._file, self._total = container, file, 0
        self._most = max(_GZIP_FREE, _GZIP_RATIO * container.path.stat().st_size)

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._total += len(content)
        if self._total > self._most:
            raise UserError(
                f"{self._container.path}: unpacks to more than {self._most} bytes, a bomb; "
                f"{self._container._cure()}"
            )
        return content
