"""Which archives the datasets come from: conf/sources.yaml, or the data folder's own list.

Imports nothing heavy: planning a suite asks which archives are there.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from cliptrase.config.validation import Frozen, Text, that, validated, whole
from cliptrase.config.written import read, text_of
from cliptrase.errors import UserError, counted, nearest
from cliptrase.files import once_a_file
from cliptrase.resources import resource

MIRROR = "CLIPTRASE_MIRROR"  # of the environment: a server that has all archives
_FILE_NAME = re.compile(r"[\w+-][\w.+-]*\.(zip|tar|tar\.gz|tgz)", re.ASCII)
DIGITS = {"sha256": 64, "sha1": 40, "md5": 32}  # of a checksum in hexadecimal


def is_web_address(url: object) -> bool:
    """Whether this is an http(s) address with a host, and without a user name or password."""
    if not isinstance(url, str) or re.search(r"[\s\x00-\x1f]", url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None


def _checksum(given: object) -> object:
    if isinstance(given, dict) and len(given) == 1:
        ((kind, digits),) = given.items()
        length = DIGITS.get(kind, 0)
        if isinstance(digits, str) and re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", digits) and length:
            return kind, digits.lower()
    elif given is None or isinstance(given, tuple):
        return given
    kinds = ", ".join(f"{kind} ({digits} digits)" for kind, digits in DIGITS.items())
    raise ValueError(f'must be null or {{KIND: "hexadecimal"}}, KIND of {kinds}')


def _archive_by_name(name: object, info: ValidationInfo) -> object:
    archives: Mapping[object, Archive] = info.context or {}
    if not isinstance(name, str) or name not in archives:
        raise ValueError(f"unknown archive; {nearest(text_of(name), map(str, archives))}")
    return archives[name]


Address = Annotated[str, that(is_web_address, "must be an http:// or https:// address")]
FileName = Annotated[
    str,
    that(
        lambda name: isinstance(name, str) and bool(_FILE_NAME.fullmatch(name)),
        "no file name of an archive (.zip, .tar, .tar.gz, .tgz)",
    ),
]
Count = Annotated[int, whole(1)]
RawValue = Annotated[int, whole(0, 65535)]


class Gated(Frozen):
    """An archive that every user must ask for: the page, and what to do there."""

    page: Address
    note: Text


class Archive(Frozen):
    """A file that is downloaded, or put into place by hand; see conf/sources.yaml for the fields.

    checksum: kind ("sha256", "sha1" or "md5") and lower-case hexadecimal digits. about: its rough
    size, for people, where `bytes` is not known.
    """

    name: FileName
    role: Text
    urls: tuple[Address, ...]
    bytes: Count | None
    checksum: Annotated[tuple[str, str] | None, BeforeValidator(_checksum)]
    licence: Text
    gated: Gated | None
    about: Count | None = None

    @model_validator(mode="after")
    def _gated_has_no_urls(self) -> Self:
        if self.gated and self.urls:
            raise ValueError("has urls and is gated; a gated archive has `urls: []`")
        return self

    @property
    def size(self) -> int | None:
        """Its size in bytes as well as it is known: to plan with, not to check with."""
        return self.bytes or self.about


class Expected(Frozen):
    """What a prepared dataset must be, as far as it is known; see conf/sources.yaml."""

    ids: tuple[str, ...] | str | None = None
    ids_sha256: str | None = None
    label_values: tuple[tuple[RawValue, RawValue], ...] | None = None
    shares: tuple[tuple[tuple[RawValue, ...], float, float], ...] = ()


class DatasetSource(Frozen):
    """The archives of a dataset by role (one archive may have several), and what it must hold."""

    name: str
    archives: dict[str, Annotated[Archive, BeforeValidator(_archive_by_name)]] = Field(min_length=1)
    optional: dict[str, Annotated[Archive, BeforeValidator(_archive_by_name)]]
    count: Count
    expected: Expected

    def needed(self) -> list[Archive]:
        """The archives that it cannot do without, each once, in the order of the roles."""
        return list({archive.name: archive for archive in self.archives.values()}.values())


class Sources(Frozen):
    """A whole list of sources."""

    archives: dict[str, Archive]
    datasets: dict[str, DatasetSource]

    @field_validator("archives", "datasets", mode="before")
    @classmethod
    def _with_names(cls, entries: object) -> object:
        """Every entry with the name that it stands under."""
        if not isinstance(entries, dict):
            return entries
        return {
            text_of(name): {**entry, "name": text_of(name)} if isinstance(entry, dict) else entry
            for name, entry in entries.items()
        }

    @field_validator("archives")
    @classmethod
    def _for_datasets(cls, archives: dict[str, Archive], info: ValidationInfo) -> object:
        info.context.update(archives)  # type: ignore[union-attr]
        return archives

    def archive(self, name: str) -> Archive:
        """An archive by its name. Raises UserError with the nearest name."""
        if name not in self.archives:
            raise UserError(f"unknown archive {name!r}; {nearest(name, self.archives)}")
        return self.archives[name]


def read_sources(data: Path | str = "data") -> Sources:
    """The sources of a data folder: its sources.yaml where it has one, else conf/sources.yaml.

    Raises UserError naming the file, the key and what it may be.
    """
    path = sources_path(data)
    try:
        return _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def sources_path(data: Path | str) -> Path:
    """The file that `read_sources` reads."""
    path = Path(data) / "sources.yaml"
    return path if path.exists() else resource("conf", "sources.yaml")


def raw_path(archive: Archive, data: Path | str) -> Path:
    """Where an archive is kept, whether it was downloaded or put there by hand."""
    return Path(data) / "raw" / archive.name


def receipt_path(archive: Archive, data: Path | str) -> Path:
    """Where the receipt of an archive is: what it was when it was last checked."""
    return Path(data) / "raw" / f"{archive.name}.json"


def missing_gated(dataset: DatasetSource, data: Path | str) -> list[Archive]:
    """The archives of a dataset that only the user can get, and that are not in <data>/raw yet."""
    gated = [archive for archive in dataset.needed() if archive.gated]
    return [archive for archive in gated if not raw_path(archive, data).is_file()]


def how_to_get(archive: Archive, data: Path | str) -> str:
    """What a user does to put an archive into place by hand, as the end of a sentence."""
    target = raw_path(archive, data)
    if archive.gated:
        note = archive.gated.note.rstrip(".")
        return f"{archive.gated.page}: {note}; then put the file {target.name} into {target.parent}"
    if archive.urls:
        return f"download {archive.urls[0]} by hand and put it at {target}"
    return f"put it at {target}, or name a server that has it (mirror=URL, --mirror URL)"


def readable(size: int) -> str:
    """A number of bytes for people: `815.6 MB`."""
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.95:
            break
        amount, unit = amount / 1000, larger
    return counted(size, "byte") if unit == "bytes" else f"{amount:.1f} {unit}"


def size_of(archive: Archive) -> str:
    """The size of an archive for people: `815.6 MB`, `about 1.3 GB` or `unknown size`."""
    if archive.size is None:
        return "unknown size"
    return ("" if archive.bytes else "about ") + readable(archive.size)


def mirror_of(given: object) -> str | None:
    """The server that has all archives: the one given, else the environment's, else None.

    It has no slash at its end. Raises UserError for what is no web address.
    """
    url = str(given) if given else os.environ.get(MIRROR, "").strip()
    if url and (not is_web_address(url) or urlsplit(url).query or urlsplit(url).fragment):
        key = "mirror" if given else MIRROR
        raise UserError(
            f"{key}={url}: must be the http:// or https:// address of a folder that has the "
            "archives by name, without a user name or a question mark"
        )
    return url.rstrip("/") or None


@once_a_file
def _read(path: Path) -> Sources:
    try:
        content = read(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from error
    return validated(
        Sources, content, sentence=lambda problem: f"{path}: {problem.sentence()}", context={}
    )
