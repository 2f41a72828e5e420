"""Archives as they were fetched, zip, tar or tar.gz: their members by name, never extracted.

Only one member at a time is in memory. What no archive of pictures holds is refused: names that
lead out of the folder, links, bombs, two members of one name. The folders that somebody extracted
archives to are read in the same way.
"""

import contextlib
import gzip
import logging
import os
import re
import stat
import tarfile
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from cliptrase.data.fetch.receipts import format_of
from cliptrase.data.read.images import DAMAGE
from cliptrase.data.read.patterns import files_below
from cliptrase.errors import UserError
from cliptrase.files import naming_the_path

LOG = logging.getLogger(__name__)
LARGEST = 64 * 2**20  # bytes of a member: several times the largest picture of any source
_GZIP_RATIO, _GZIP_FREE = 300, 2**30  # of a whole tar.gz, beyond its first GiB
_CHUNK = 2**20
_BLOCK = 512


class Container(contextlib.ExitStack, ABC):
    """An open archive. Every error is a UserError that names the archive, the member, the cure.

    other: what to do where this is not the archive that was wanted.
    """

    other = "is it another archive under this name? Put the right one in its place"
    _above = ""  # the pattern of what may stand before the names that are looked for
    _members: Mapping[str, object]

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def names(self) -> list[str]:
        """The names of its files, without folders, in the order of the archive."""
        return list(self._members)

    def find(self, pattern: str) -> list[re.Match[str]]:
        """The matches of the names that a pattern fits as a whole, in the order of the archive."""
        fitting = re.compile(f"{self._above}(?:{pattern})").fullmatch
        return [match for match in map(fitting, self._members) if match]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a member."""

    def called(self, name: str) -> str:
        """What to call a member in a message."""
        return f"{self.path}: {name}"

    def _refuse(self, member: str, fault: str) -> UserError:
        return UserError(
            f"{self.called(member)}: {fault}; this is not the archive of its source: delete "
            f"{self.path} and fetch it again"
        )

    def _checked(self, name: str) -> str:
        """A member's name. Raises UserError if it leads out of the folder or is in it twice."""
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise self._refuse(repr(name), "a name that leads out of the folder")
        name = name.removeprefix("./")
        if name in self._members:
            raise self._refuse(name, "is in it twice")
        return name

    def _check_kind(self, name: str, *, plain: bool, size: int) -> None:
        if not plain:
            raise self._refuse(name, "a link or another thing that is no file")
        if size > LARGEST:
            raise self._refuse(name, f"{size} bytes, more than any picture has")

    @contextlib.contextmanager
    def _reading(self, member: str = "") -> Iterator[None]:
        """Turn every error of reading into a UserError about the archive and the member."""
        try:
            yield
        except (*DAMAGE, zipfile.BadZipFile, tarfile.TarError) as error:
            where = self.called(member) if member else f"{self.path}"
            raise UserError(
                f"{where}: truncated or damaged ({error}); delete {self.path} and fetch it again"
            ) from error


def open_container(path: Path | str, *more: Path) -> Container:
    """Open a zip, tar or tar.gz, whose content says which it is, or folders, as if they were one.

    Raises UserError for others.
    """
    path = Path(path)
    if path.is_dir():
        return _Folders(path, *more)
    try:
        with open(path, "rb") as file:
            head = file.read(_BLOCK)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    match format_of(head):
        case "zip":
            return _Zip(path)
        case "tar":
            return _Tar(path)
        case "gz":
            return _Tar(path, gzipped=True)
    page = " (it is a web page)" if b"<html" in head.lower() or b"<!doc" in head.lower() else ""
    raise UserError(
        f"{path}: not a zip, tar or tar.gz archive{page}; delete {path} and fetch it again"
    )


class _Zip(Container):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        with self._reading():
            self._zip = self.enter_context(zipfile.ZipFile(path))
        for info in self._zip.infolist():
            if not info.is_dir():
                self._members[self._checked(info.filename)] = info

    def read(self, name: str) -> bytes:
        info = self._members[name]
        plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        self._check_kind(name, plain=plain, size=info.file_size)
        if info.flag_bits & 0x1:
            raise self._refuse(name, "is encrypted")
        with self._reading(name), self._zip.open(info) as file:
            return file.read(info.file_size + 1)


class _Tar(Container):
    """A tar. A tar.gz is unpacked first, into a temporary file without a name beside it."""

    def __init__(self, path: Path, *, gzipped: bool = False) -> None:
        super().__init__(path)
        self._members: dict[str, tarfile.TarInfo] = {}
        with self._reading():
            file: IO[bytes] = self.enter_context(path.open("rb"))
            if gzipped:
                file = self._unpacked(file)
            self._tar = self.enter_context(tarfile.TarFile(fileobj=file))
            end = 0
            for info in self._tar:
                end = info.offset_data
                if info.isreg():
                    end += -(-info.size // _BLOCK) * _BLOCK
                if not info.isdir():
                    self._members[self._checked(info.name)] = info
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise EOFError("it does not end as a tar does")

    def _unpacked(self, packed: IO[bytes]) -> IO[bytes]:
        """The content of a gzip. Raises UserError if it is out of all proportion to the file."""
        limit = max(_GZIP_FREE, _GZIP_RATIO * self.path.stat().st_size)
        folder = self.path.parent  # /tmp may be small
        with naming_the_path(folder):
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        unpacked = self.enter_context(file)
        with gzip.open(packed) as content:
            while chunk := content.read(_CHUNK):
                if unpacked.tell() + len(chunk) > limit:
                    raise self._refuse("its content", f"unpacks to more than {limit} bytes, a bomb")
                with naming_the_path(folder):
                    unpacked.write(chunk)
                    unpacked.flush()
        unpacked.seek(0)
        return unpacked

    def read(self, name: str) -> bytes:
        info = self._members[name]
        self._check_kind(name, plain=info.isreg() and not info.issparse(), size=info.size)
        with self._reading(name):
            file = self._tar.extractfile(info)
            content = b"" if file is None else file.read()
            if len(content) != info.size:
                raise EOFError(f"{len(content)} of {info.size} bytes")
        return content


class _Folders(Container):
    """Folders that archives were extracted to, whose files are named by their whole paths.

    So it does not matter at which level of the archive a folder begins.
    """

    other = (
        "give the folder that the archive was extracted to, with one copy of each file "
        "(`--from` may be given several times)"
    )
    _above = r"(?s:.*/)"

    def __init__(self, *paths: Path) -> None:
        super().__init__(paths[0])
        self._paths = paths
        self._members: dict[str, None] = {}

        def unread(error: OSError) -> None:
            LOG.warning("%s: cannot be read (%s)", error.filename, error.strerror)

        for path in paths:
            files = files_below(path.absolute(), unread=unread)
            self._members |= dict.fromkeys(map(str, files))

    def __str__(self) -> str:
        return " and ".join(map(str, self._paths))

    def called(self, name: str) -> str:
        return name

    def read(self, name: str) -> bytes:
        try:
            info = os.stat(name)
            self._check_kind(name, plain=stat.S_ISREG(info.st_mode), size=info.st_size)
            return Path(name).read_bytes()
        except OSError as error:
            raise UserError(f"{name}: cannot be read ({error.strerror})") from error

    def _refuse(self, member: str, fault: str) -> UserError:
        return UserError(f"{member}: {fault}; this is not a file of its source")
