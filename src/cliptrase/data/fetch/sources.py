"""Which archives the datasets come from: conf/sources.yaml, or the data folder's own list.

Imports nothing heavy: planning a suite asks which archives are there.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cliptrase.errors import UserError, nearest
from cliptrase.resources import resource

MIRROR = "CLIPTRASE_MIRROR"  # of the environment: a server that has all archives
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
DIGITS = {"sha256": 64, "sha1": 40, "md5": 32}  # of a checksum in hexadecimal


@dataclass(frozen=True)
class Gated:
    """An archive that every user must ask for: the page, and what to do there."""

    page: str
    note: str


@dataclass(frozen=True)
class Archive:
    """A file that is downloaded, or put into place by hand; see conf/sources.yaml for the fields.

    checksum: kind ("sha256", "sha1" or "md5") and lower-case hexadecimal digits. about: its size
    roughly, for people, where `bytes` is not known.
    """

    name: str
    role: str
    urls: tuple[str, ...]
    bytes: int | None
    checksum: tuple[str, str] | None
    licence: str
    gated: Gated | None
    about: int | None = None

    @property
    def size(self) -> int | None:
        """Its size in bytes as well as it is known: to plan with, not to check with."""
        return self.bytes or self.about


@dataclass(frozen=True)
class DatasetSource:
    """The archives of a dataset by role (one archive may have several), and what it must hold."""

    name: str
    archives: dict[str, Archive]
    optional: dict[str, Archive] = field(default_factory=dict)
    count: int = 0
    expected: dict[str, Any] = field(default_factory=dict)

    def needed(self) -> list[Archive]:
        """The archives that it cannot do without, each once, in the order of the roles."""
        return list({archive.name: archive for archive in self.archives.values()}.values())


@dataclass(frozen=True)
class Sources:
    """A whole list of sources, and the file that it was read from."""

    path: Path
    archives: dict[str, Archive]
    datasets: dict[str, DatasetSource]

    def archive(self, name: str) -> Archive:
        """An archive by its name. Raises UserError with the nearest name."""
        if name not in self.archives:
            raise UserError(f"unknown archive {name!r}; {nearest(name, self.archives)}")
        return self.archives[name]

    def dataset(self, name: str) -> DatasetSource:
        """A dataset by its name. Raises UserError with the nearest name."""
        if name not in self.datasets:
            raise UserError(f"{self.path} has no dataset {name!r}; {nearest(name, self.datasets)}")
        return self.datasets[name]


def read_sources(data: Path | str = "data") -> Sources:
    """The sources of a data folder: its sources.yaml where it has one, else conf/sources.yaml.

    Raises UserError naming the file, the key and what it may be.
    """
    path = sources_path(data)
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return _read(path, stat.st_mtime_ns, stat.st_size)


def sources_path(data: Path | str) -> Path:
    """The file that `read_sources` reads."""
    own = Path(data) / "sources.yaml"
    return own if own.exists() else resource("conf", "sources.yaml")


def raw_path(archive: Archive, data: Path | str) -> Path:
    """Where an archive is kept, whether it was downloaded or put there by hand."""
    return Path(data) / "raw" / archive.name


def receipt_path(archive: Archive, data: Path | str) -> Path:
    """Where it is written down what an archive was when it was checked."""
    return Path(data) / "raw" / f"{archive.name}.json"


def missing_gated(dataset: DatasetSource, data: Path | str) -> list[Archive]:
    """The archives of a dataset that only the user can get, and that are not in <data>/raw yet."""
    return [one for one in dataset.needed() if one.gated and not raw_path(one, data).is_file()]


def how_to_get(archive: Archive, data: Path | str) -> str:
    """What a user does to put an archive into place by hand, as the end of a sentence."""
    target = raw_path(archive, data)
    if archive.gated:
        note = archive.gated.note.rstrip(".")
        return f"{archive.gated.page}: {note}; then put the file {target.name} into {target.parent}"
    if archive.urls:
        return f"download {archive.urls[0]} by hand and put it at {target}"
    return f"put it at {target}, or name a server that has it (data.mirror=URL)"


def readable(size: int) -> str:
    """A number of bytes for people: `815.6 MB`."""
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.95:
            break
        amount, unit = amount / 1000, larger
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


def size_of(archive: Archive) -> str:
    """The size of an archive for people: `815.6 MB`, `about 1.3 GB` or `unknown size`."""
    if archive.size is None:
        return "unknown size"
    return ("" if archive.bytes else "about ") + readable(archive.size)


def mirror_of(given: object) -> str | None:
    """The server that has all archives: the one given, else the environment's, else None."""
    return str(given) if given else os.environ.get(MIRROR, "").strip() or None


def is_web_address(url: Any) -> bool:
    """Whether this is an http(s) address with a host, and without a user name or password."""
    if not isinstance(url, str) or re.search(r"[\s\x00-\x1f]", url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None


@functools.lru_cache(maxsize=8)
def _read(path: Path, mtime_ns: int, size: int) -> Sources:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from error
    top = _fields(content, {"archives", "datasets"}, str(path))
    archives = {
        name: _archive(name, entry, f"{path}: archives: {name}")
        for name, entry in _mapping(top["archives"], f"{path}: archives").items()
    }
    datasets = {
        name: _dataset(name, entry, archives, f"{path}: datasets: {name}")
        for name, entry in _mapping(top["datasets"], f"{path}: datasets").items()
    }
    return Sources(path, archives, datasets)


def _archive(name: Any, entry: Any, where: str) -> Archive:
    fine = isinstance(name, str) and re.fullmatch(r"[\w+-][\w.+-]*", name, re.ASCII)
    if not fine or not name.endswith(SUFFIXES):
        raise UserError(f"{where}: no file name of an archive ({', '.join(SUFFIXES)})")
    keys = {"role", "urls", "bytes", "checksum", "licence", "gated"}
    given = _fields(entry, keys, where, {"about"})
    urls = given["urls"]
    if not isinstance(urls, list) or not all(map(is_web_address, urls)):
        raise UserError(f"{where}: urls must be a list of http(s):// addresses, [] for none")
    for key in ("bytes", "about"):
        if given.get(key) is not None and not _is_count(given[key]):
            raise UserError(f"{where}: {key} must be a number greater than 0, or null")
    for key in ("role", "licence"):
        if not isinstance(given[key], str) or not given[key].strip():
            raise UserError(f"{where}: {key} must be a text")
    gated = None
    if given["gated"] is not None:
        ask = _fields(given["gated"], {"page", "note"}, f"{where}: gated")
        if not is_web_address(ask["page"]) or not isinstance(ask["note"], str):
            raise UserError(f"{where}: gated: page must be an address, and note a text")
        if urls:
            raise UserError(f"{where}: has urls and is gated; a gated archive has `urls: []`")
        gated = Gated(ask["page"], ask["note"])
    return Archive(
        name,
        given["role"],
        tuple(urls),
        given["bytes"],
        _checksum(given["checksum"], where),
        given["licence"],
        gated,
        given.get("about"),
    )


def _checksum(given: Any, where: str) -> tuple[str, str] | None:
    if given is None:
        return None
    if isinstance(given, dict) and len(given) == 1:
        ((kind, digits),) = given.items()
        length = DIGITS.get(kind, 0)
        if isinstance(digits, str) and re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", digits) and length:
            return kind, digits.lower()
    kinds = ", ".join(f"{kind} ({digits} digits)" for kind, digits in DIGITS.items())
    raise UserError(f'{where}: checksum must be null or {{KIND: "hexadecimal"}}, KIND of {kinds}')


def _dataset(name: Any, entry: Any, archives: dict[str, Archive], where: str) -> DatasetSource:
    given = _fields(entry, {"archives", "optional", "count", "expected"}, where)
    roles: dict[str, dict[str, Archive]] = {}
    for key in ("archives", "optional"):
        roles[key] = {}
        for role, archive in _mapping(given[key], f"{where}: {key}").items():
            if not isinstance(archive, str) or archive not in archives:
                hint = nearest(archive, archives)
                raise UserError(f"{where}: {key}: {role}: no archive {archive!r}; {hint}")
            roles[key][str(role)] = archives[archive]
    if not roles["archives"]:
        raise UserError(f"{where}: archives: a dataset needs at least one")
    if not _is_count(given["count"]):
        raise UserError(f"{where}: count must be a number greater than 0")
    expected = _mapping(given["expected"], f"{where}: expected")
    return DatasetSource(str(name), roles["archives"], roles["optional"], given["count"], expected)


def _fields(
    content: Any, known: set[str], where: str, optional: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    """A mapping with exactly these keys, and perhaps the optional ones."""
    content = _mapping(content, where)
    for key in sorted(map(str, content)):
        if key not in known | optional:
            raise UserError(f"{where}: unknown key {key!r}; {nearest(key, known | optional)}")
    for key in sorted(known - content.keys()):
        raise UserError(f"{where}: the key {key!r} is missing; see conf/sources.yaml")
    return content


def _mapping(content: Any, where: str) -> dict[Any, Any]:
    if not isinstance(content, dict):
        raise UserError(f"{where}: must be a mapping (key: value); see conf/sources.yaml")
    return content


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
